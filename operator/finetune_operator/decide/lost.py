"""Attempts that will not end by themselves: one that hangs, and those whose nodes are gone and cannot say how they ended."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from finetune_api.failures import FailureReason
from finetune_api.status import Phase
from finetune_operator.decide.attempts import given_up
from finetune_operator.decide.case import Case
from finetune_operator.decide.report import sentences, status
from finetune_operator.decide.stopping import given_up_at, place
from finetune_operator.worlds.protocol import (
    Action,
    AttemptPhase,
    AttemptSeen,
    Cause,
    Decision,
    ForgetAttempt,
    StopAttempt,
    StopTraining,
)

HALF_AS_LONG_AGAIN = 1.5
"""A trainer that hangs ends itself once `spec.progressDeadlineSeconds` is over; this is for one that cannot."""


def lost_attempt_is_given_up(case: Case) -> Decision | None:
    """Its node is out of touch and does not say that it has ended as it was told to, so its training would wait for ever.

    It may still train behind a broken network. That harms nobody: the next attempt takes the claim on the run's folder, and what finds
    that lost writes nothing more. A trainer of somebody's own may know no claim, so of it only a person can tell.

    The training goes first: while it is there, a pod that is deleted by force stays, and no other one is made in its place.
    """
    lost = [a for a in case.seen.attempts if (due := given_up_at(case, a)) is not None and case.now >= due]
    if not lost or case.refused(StopTraining):
        return None
    uids = {a.training for a in lost}
    stops = tuple(StopTraining(t.name, t.uid) for t in case.seen.trainings if t.uid in uids and not t.deleting)
    forgets = tuple(ForgetAttempt(a.name, a.uid) for a in lost)
    last = lost[-1]
    why = f"{place(last)} should be gone since {last.gone_by:%H:%M:%S} UTC, and its node does not say so"
    cause = Cause(FailureReason.NODE_LOST, sentences(why))
    suspended = case.is_suspended
    then = "" if suspended else "The next attempt goes on from the last checkpoint"
    said = status(
        case,
        Phase.SUSPENDED if suspended else Phase.STARTING,
        FailureReason.NODE_LOST,
        sentences(why, "It is given up", then),
        attempts=given_up(case.attempts, {a.name for a in lost}, cause) or None,
    )
    actions: tuple[Action, ...] = (*stops, *forgets)
    ours = {a.name for a in lost} & {a.name for a in case.attempts}
    return _once_written(case, ours, cause, Decision(actions=actions, status=said, recheck_after=1.0))


def seconds_to_give_up(case: Case) -> float | None:
    """Until an attempt is given up that is late; None where none is."""
    dues = [due for a in case.seen.attempts if (due := given_up_at(case, a)) is not None]
    return min((left for due in dues if (left := (due - case.now).total_seconds()) > 0), default=None)


def training_has_stalled(case: Case) -> Decision | None:
    """Nothing is heard any more of a trainer that was heard before, and it has not ended itself: its process stands still."""
    left = seconds_to_stall(case)
    if left is None or left > 0:
        return None
    last = _running(case)
    assert last is not None, "it has a time to stall"
    limit = case.spec.progress_deadline_seconds
    why = f"{place(last)} has said nothing for {last.silent_for or 0:.0f} seconds, and spec.progressDeadlineSeconds allows {limit}"
    cause = Cause(FailureReason.TRAINING_STALLED, sentences(why))
    message = sentences(why, "It is ended, and the next attempt goes on from the last checkpoint")
    said = status(
        case,
        Phase.RUNNING,
        FailureReason.TRAINING_STALLED,
        message,
        attempts=given_up(case.attempts, {last.name}, cause),
    )
    return _once_written(case, {last.name}, cause, Decision(actions=(StopAttempt(last.name, last.uid),), status=said))


def _once_written(case: Case, names: Collection[str], cause: Cause, decision: Decision) -> Decision:
    """The decision, as soon as the status says why: a write of it may be refused, and nobody could tell once the pod is gone."""
    told = {a.name for a in case.before.attempts or [] if a.reason == cause.reason}
    return decision if told >= set(names) else replace(decision, actions=(), recheck_after=1.0)


def seconds_to_stall(case: Case) -> float | None:
    """Until the running attempt is taken to hang if nothing is heard of it; None where that does not count."""
    limit = case.spec.progress_deadline_seconds if case.is_readable else None
    last = _running(case)
    if limit is None or last is None or last.silent_for is None or not _was_heard(case, last):
        return None
    return HALF_AS_LONG_AGAIN * limit - last.silent_for


def _running(case: Case) -> AttemptSeen | None:
    running = [a for a in case.attempts_now if a.phase is AttemptPhase.RUNNING]
    last = running[-1] if running else None
    gone_on = last is not None and not last.deleting and last.exit_code is None and last.out_of_touch is None
    return last if gone_on else None


def _was_heard(case: Case, attempt: AttemptSeen) -> bool:
    """Whether this attempt has ever told anything: not all images do, nor pods from before trainers were heard."""
    progress, report = case.before.progress, case.seen.report
    number = next((a.number for a in case.attempts if a.name == attempt.name), None)
    told = progress is not None and number is not None and progress.attempt == number
    return told or (report is not None and report.attempt == attempt.name)
