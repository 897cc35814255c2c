"""What follows an attempt, for worlds that restart attempts themselves.

In a cluster the Job controller decides this by the pod failure policy that `worlds/kube` writes; both are made from the same
sets of exit codes.
"""

from __future__ import annotations

from collections.abc import Sequence

from finetune_api.exit_codes import NEVER_RETRIED, NOT_COUNTED, ExitCode
from finetune_operator.worlds.protocol import AttemptSeen, Ending, Limits


def is_counted(attempt: AttemptSeen) -> bool:
    """Whether the end of an attempt without success counts against the limit, whatever caused it."""
    return attempt.disruption is None and attempt.exit_code not in NOT_COUNTED


def ending_after(attempts: Sequence[AttemptSeen], limits: Limits) -> Ending | None:
    """How the training ends after these ended attempts, or None when another one follows."""
    undisturbed = [attempt for attempt in attempts if attempt.disruption is None]
    if any(attempt.exit_code == ExitCode.DONE for attempt in undisturbed):
        return Ending.COMPLETE
    if any(attempt.exit_code in NEVER_RETRIED for attempt in undisturbed):
        return Ending.NEVER_RETRIED
    counted = sum(1 for attempt in undisturbed if is_counted(attempt))
    return Ending.BACKOFF_LIMIT_EXCEEDED if counted > limits.backoff_limit else None
