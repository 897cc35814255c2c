"""What is worth an event: a change of phase or reason, once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from finetune_api.failures import FailureReason
from finetune_api.status import FineTuneJobStatus


@dataclass(frozen=True)
class Announcement:
    type: Literal["Normal", "Warning"]
    reason: str
    message: str


def announcement(before: FineTuneJobStatus, after: FineTuneJobStatus) -> Announcement | None:
    """The event that this report is worth; None when phase and reason are as before."""
    if after.reason is None or (before.phase, before.reason) == (after.phase, after.reason):
        return None
    warns = after.reason in set(FailureReason)
    return Announcement("Warning" if warns else "Normal", after.reason, after.message or "")
