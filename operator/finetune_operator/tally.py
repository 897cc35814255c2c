"""What one write of a status adds to the counters: what this process has told for the first time, and nothing else.

A status is written over exactly the one that was read, so each of these transitions is written once, by one process. Whoever reads it
anew, after a restart or as the second of two operators, has told nothing and counts nothing.
"""

from __future__ import annotations

from collections.abc import Iterator

from finetune_api.status import Attempt, FineTuneJobStatus, Phase

WAITING = frozenset({Phase.PENDING.value, Phase.STARTING.value})
"""Phases of a job that wants to run and does not yet."""
ENDED = frozenset({Phase.SUCCEEDED.value, Phase.FAILED.value})


def failure(before: FineTuneJobStatus, after: FineTuneJobStatus) -> str | None:
    """Why the job has failed with this write; None where it has not, or had ended before: what is judged again by another
    `spec.acceptance` has not ended again, however often somebody changes that."""
    if after.phase != Phase.FAILED or (before.phase in ENDED and _run(before) == _run(after)):
        return None
    return after.reason or ""


def ended_attempts(before: FineTuneJobStatus, after: FineTuneJobStatus) -> Iterator[Attempt]:
    """Attempts whose end this write tells of."""
    known = {attempt.name for attempt in before.attempts or [] if attempt.end_time is not None}
    return (a for a in after.attempts or [] if a.end_time is not None and a.name not in known)


def ended_wait(before: FineTuneJobStatus, after: FineTuneJobStatus) -> str | None:
    """What the job waited for until this write; None where it did not wait, or still waits for the same."""
    if before.phase not in WAITING or (before.phase, before.reason) == (after.phase, after.reason):
        return None
    return before.reason or ""


def _run(status: FineTuneJobStatus) -> str:
    return status.run.id if status.run is not None else ""
