"""Rules for an attempt that waits for what comes by itself, for what has waited too long, and for an attempt of which nobody knows whether
it runs."""

from __future__ import annotations

from datetime import datetime, timedelta

from finetune_api.failures import REMEDIES, FailureReason
from finetune_api.status import Phase
from finetune_operator.decide.attempts import within
from finetune_operator.decide.case import Case
from finetune_operator.decide.diagnosis import what_it_waits_for
from finetune_operator.decide.ending import FINAL_REFUSALS, failed
from finetune_operator.decide.headway import due_after_the_last_end
from finetune_operator.decide.report import sentences, status
from finetune_operator.decide.stopping import not_heard_of
from finetune_operator.decide.unmade import seconds_to_be_made
from finetune_operator.worlds.protocol import AttemptPhase, Awaited, Cause, Decision, OnItsWay, StartTraining

A_NODE_COMES_WITHIN = timedelta(minutes=20)
"""Autoscalers give up a node after 15 minutes at most; one that was announced longer ago does not come."""

TOO_SHORT = "Raise spec.pendingDeadlineSeconds, if what it waits for takes longer."


def node_is_out_of_touch(case: Case) -> Decision | None:
    """It may go on all the same. Whoever runs nodes gives it up after a while, and then another attempt follows."""
    running = [a for a in case.attempts_now if a.phase is AttemptPhase.RUNNING]
    if not running or running[-1].out_of_touch is None or running[-1].deleting:
        return None
    last = running[-1]
    message = sentences(
        not_heard_of(last),
        "It may still train; if the node stays away, the cluster gives the pod up, and the next attempt goes on from the last checkpoint",
    )
    return Decision(status=status(case, Phase.RUNNING, FailureReason.NODE_LOST, message))


def attempt_waits_for_a_node_that_is_coming(case: Case) -> Decision | None:
    """No node can take it, which is a problem only where none is added for it."""
    awaited = _awaited(case, Awaited.NODE)
    if awaited is None:
        return None
    late = awaited.since + A_NODE_COMES_WITHIN
    if case.now >= late:
        return None
    return _said(case, awaited, (late - case.now).total_seconds())


def attempt_waits_for_its_image(case: Case) -> Decision | None:
    awaited = _awaited(case, Awaited.IMAGE)
    return _said(case, awaited) if awaited is not None else None


def training_was_not_made_in_time(case: Case) -> Decision | None:
    """It was asked for once more, and refused."""
    refusal, left = case.refused(StartTraining), seconds_to_be_made(case)
    if refusal is None or refusal.reason in FINAL_REFUSALS or left is None or left > 0:
        return None
    remedy = refusal.remedy or REMEDIES[refusal.reason]
    return not_begun_in_time(case, Cause(refusal.reason, refusal.message, remedy, refusal.field))


def attempt_was_never_started_in_time(case: Case) -> Decision | None:
    """What it had got, such as a node that others want, is freed once its end is written."""
    left = seconds_to_begin(case)
    return not_begun_in_time(case, what_it_waits_for(case)) if left is not None and left <= 0 else None


def not_begun_in_time(case: Case, cause: Cause | None) -> Decision:
    """The end of a run that has waited too long for this."""
    message = f"No attempt ran within the {case.spec.pending_deadline_seconds} seconds of spec.pendingDeadlineSeconds"
    if cause is None:
        return failed(case, FailureReason.DEADLINE_EXCEEDED, message, TOO_SHORT)
    message = f"{message}; it waited for: {cause.message}"
    if cause.reason in set(FailureReason):
        return failed(case, cause.reason, message, cause.remedy, cause.field)
    return failed(case, FailureReason.DEADLINE_EXCEEDED, message, cause.remedy or TOO_SHORT)


def seconds_to_begin(case: Case) -> float | None:
    """Until spec.pendingDeadlineSeconds is over, less than none thereafter; None while it does not count."""
    limit = case.spec.pending_deadline_seconds if case.is_readable else None
    since = _idle_since(case) if limit is not None else None
    if limit is None or since is None:
        return None
    before = case.waited.seconds if case.waited else 0  # while its training could not be made
    return limit - before - (case.now - since).total_seconds()


def _idle_since(case: Case) -> datetime | None:
    """Since when no attempt runs although one could. While a queue or somebody holds the training back none could, and its world says
    anew when it started once that is over."""
    training = case.current
    if training.queued or training.held or training.started is None:
        return None
    unseen = training.active and not case.attempts_now  # it may run
    if unseen or any(a.phase is AttemptPhase.RUNNING for a in case.attempts_now):
        return None
    since = [within(training.created, training.started, case.now)]
    since += [a.end_time for a in case.attempts if a.start_time is not None and a.end_time is not None]
    ran = [a.created for a in case.attempts_now if a.started is not None]
    # What follows an attempt is created after its end, whatever the clock of its node says of that.
    since += [a.created for a in case.attempts_now if ran and a.created > ran[-1]][:1]
    ended = [a for a in case.attempts_now if a.phase is AttemptPhase.ENDED]
    due = due_after_the_last_end(case) if ended and ended[-1].started is not None else None
    return max(since if due is None else [*since, due])


def _awaited(case: Case, what: Awaited) -> OnItsWay | None:
    waiting = [a for a in case.attempts_now if a.phase is AttemptPhase.WAITING]
    found = waiting[-1].on_its_way if waiting else None
    return found if found is not None and found.what is what else None


def _said(case: Case, awaited: OnItsWay, recheck_after: float | None = None) -> Decision:
    message = sentences(f"{awaited.message}, since {awaited.since:%H:%M:%S} UTC")
    return Decision(status=status(case, Phase.STARTING, awaited.what, message), recheck_after=recheck_after)
