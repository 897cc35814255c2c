"""What is worth an event: a change of phase or reason, once."""

from __future__ import annotations

from finetune_api.failures import FailureReason
from finetune_api.status import FineTuneJobStatus, Phase
from finetune_operator.decide.progress import REASONS
from finetune_operator.worlds.protocol import Announcement


def announcement(before: FineTuneJobStatus, after: FineTuneJobStatus | None) -> Announcement | None:
    """The event that this report is worth; None when phase and reason are as before."""
    if after is None or after.reason is None or (before.phase, before.reason) == (after.phase, after.reason):
        return None
    if before.phase is None and (after.phase, after.reason) == (Phase.STARTING, "Starting"):
        return None  # a new job has its Job, which has an event of its own: each event is a write, and this one of every job
    if before.phase == after.phase and {before.reason, after.reason} <= set(REASONS.values()):
        return None  # a trainer goes from one phase to the next, and back for each evaluation
    warns = after.reason in set(FailureReason)
    return Announcement("Warning" if warns else "Normal", after.reason, after.message or "")
