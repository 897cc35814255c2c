"""For how long a run has waited for a training that cannot be made, as spec.pendingDeadlineSeconds counts it.

A pod that waits is there, and tells since when. Of a training that was refused nothing is there to tell, and nobody tries while no operator
is there. So the status keeps what was counted at tries, written anew after each tenth of the limit. What lies between two tries counts, up
to such a part and a little, as whatever is more is time in which nobody tried.
"""

from __future__ import annotations

import math
from datetime import timedelta

from finetune_api.status import WaitedStatus
from finetune_operator.decide.case import Case

PARTS = 10
SHORTEST_PART = timedelta(seconds=2)
LATE = timedelta(seconds=2)
"""Looks may be late by so much."""


def waited_until_now(case: Case) -> WaitedStatus | None:
    """What has been counted once this try is over; None while nothing is to be counted."""
    limit = case.spec.pending_deadline_seconds if case.is_readable else None
    if limit is None:
        return None
    before = case.waited
    if before is None:
        return WaitedStatus(seconds=0, time=case.now, asked=case.asked)
    between = min(max(case.now - before.time, timedelta()), _part(limit) + LATE)
    return before.model_copy(update={"seconds": before.seconds + int(between.total_seconds()), "time": case.now})


def waited_told(case: Case) -> WaitedStatus | None:
    """The same as the status tells it, which is not written for each second."""
    before, now, limit = case.waited, waited_until_now(case), case.spec.pending_deadline_seconds
    if before is None or now is None or limit is None:
        return now
    is_told = timedelta() <= now.time - before.time < _part(limit)
    return before if is_told else now


def seconds_to_be_made(case: Case) -> float | None:
    """Until spec.pendingDeadlineSeconds is over, none or less thereafter; None while it does not count."""
    limit, waited = case.spec.pending_deadline_seconds if case.is_readable else None, waited_until_now(case)
    return None if limit is None or waited is None else limit - waited.seconds


def next_try(case: Case, usual: float | None = None) -> float | None:
    """Seconds until a training is asked for again at the latest, `usual` where nothing counts them."""
    limit, left, told = case.spec.pending_deadline_seconds, seconds_to_be_made(case), waited_told(case)
    if limit is None or left is None or told is None:
        return usual
    due = min(left, (told.time + _part(limit) - case.now).total_seconds())
    return max(1.0, due if usual is None else min(usual, due))


def _part(limit: int) -> timedelta:
    return max(SHORTEST_PART, timedelta(seconds=math.ceil(limit / PARTS)))
