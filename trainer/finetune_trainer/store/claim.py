"""Who may write to a run's folder: `claim.json`, taken by conditional write and renewed while its holder lives."""

from __future__ import annotations

from collections.abc import Callable
from typing import Self

from finetune_api.failures import JobError
from finetune_trainer.store.folder import Folder

LEASE = 60.0
"""Seconds. A claim is renewed every third of it, and is dead when it was not renewed for two."""


class Claim:
    """A claim that this process holds.

    The same owner takes over at once: an attempt is started only when the one before is gone. Another owner is refused while the
    claim lives, and takes over a dead or released one.
    """

    @classmethod
    def take(
        cls,
        folder: Folder,
        *,
        owner: str,
        holder: str,
        lease: float = LEASE,
        on_lost: Callable[[JobError], None] | None = None,
    ) -> Claim:
        """Take the claim and renew it in the background. `owner` is the Run's, `holder` the attempt's name.

        Raises JobError OutputConflict when another owner's claim lives. When somebody else takes the claim later, `check` raises
        and `on_lost` is called once, from the background thread.
        """
        raise NotImplementedError

    def check(self) -> None:
        """Raise JobError OutputConflict when the claim was lost."""
        raise NotImplementedError

    def release(self) -> None:
        """Stop renewing and let anybody take it. Never raises for a store that does not answer."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()
