"""The part that this process has in an attempt: the whole, one of several, or that of the parent that starts these and says what became
of them."""

from __future__ import annotations

import os

from finetune_trainer.processes import PARENT_ENV, end_with, how_many
from finetune_trainer.stop import StopSignal


def main(stop: StopSignal) -> int:
    """Be the process that the environment asks for, and import no more than that takes. Returns an exit code."""
    if PARENT_ENV in os.environ:
        end_with(int(os.environ[PARENT_ENV]))
        from finetune_trainer import rank

        return rank.main(stop)
    if how_many(os.environ) > 1:
        from finetune_trainer import parent

        return parent.main(stop)
    from finetune_trainer import attempt

    return attempt.main(stop)
