"""Rules from the first look at a job to the start of its training, and what holds that back."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from finetune_api.failures import REMEDIES, FailureReason, JobError
from finetune_api.job import QUEUE_LABEL
from finetune_api.status import Phase, TrainingStatus
from finetune_operator.decide.case import Case
from finetune_operator.decide.ending import FINAL_REFUSALS, failed
from finetune_operator.decide.pod_keys import foreign_keys
from finetune_operator.decide.report import if_stopped, sentences, status
from finetune_operator.decide.stopping import place, still_ending
from finetune_operator.decide.unmade import next_try, seconds_to_be_made, waited_told, waited_until_now
from finetune_operator.decide.waiting import not_begun_in_time
from finetune_operator.worlds.images import pinned_image
from finetune_operator.worlds.protocol import Cause, Decision, StartTraining, StopTraining, training_name

RETRY_REFUSED = 30.0
"""Seconds until a refused action is tried again: a quota that becomes free announces itself to nobody."""
RETRY_PASSING = 2.0
FREE_STARTS, LONGEST_WAIT = 3, timedelta(minutes=10)
WHO_REMOVES = (
    "Ask who administers the cluster what removes the Job, such as a policy, or a clean-up of what has no pod yet."
)


def job_is_gone(case: Case) -> Decision | None:
    """Its children go with it by their owner references; there is nobody left to report to."""
    return Decision() if case.seen.job is None or case.seen.job.deleting else None


def start_was_refused(case: Case) -> Decision | None:
    refusal = case.refused(StartTraining)
    if refusal is None:
        return None
    if refusal.reason in FINAL_REFUSALS:
        return failed(case, refusal.reason, refusal.message, field=refusal.field)
    unavailable = refusal.reason is FailureReason.CLUSTER_UNAVAILABLE
    remedy = refusal.remedy or REMEDIES[refusal.reason] if unavailable or not refusal.passing else ""
    said = status(
        case,
        Phase.PENDING,
        refusal.reason,
        sentences(refusal.message, remedy),
        stalled=refusal.reason is FailureReason.NAME_CONFLICT and not refusal.passing,
        waited=waited_told(case),
    )
    if unavailable:
        return Decision(status=said, backs_off=True, recheck_after=next_try(case))
    return Decision(status=said, recheck_after=next_try(case, RETRY_PASSING if refusal.passing else RETRY_REFUSED))


def other_run_is_still_there(case: Case) -> Decision | None:
    """After a change of the run id the earlier run ends first: two runs would use twice the GPUs."""
    others = case.other_trainings
    if not others or not case.is_readable:
        return None
    names = ", ".join(training.run_id for training in others)
    return Decision(
        actions=tuple(StopTraining(t.name, t.uid) for t in others if not t.deleting),
        status=status(
            case, Phase.PENDING, "Replacing", if_stopped(case, f"Run {names} of this job is being stopped first.")
        ),
    )


def job_is_suspended(case: Case) -> Decision | None:
    if not case.is_suspended:
        return None
    training = case.training
    if training is not None or case.attempts_left_behind:
        stop = (StopTraining(training.name, training.uid),) if training is not None and not training.deleting else ()
        message = if_stopped(case, "The training saves its work and stops.")
        ending = [a for a in (*case.attempts_left_behind, *case.attempts_now) if a.deleting]
        if ending:
            return replace(still_ending(case, ending[-1], Phase.SUSPENDED, "Suspending", message), actions=stop)
        return Decision(actions=stop, status=status(case, Phase.SUSPENDED, "Suspending", message))
    message = (
        "Suspended; set spec.suspend to false to go on from the last checkpoint."
        if case.before.start_time
        else "Suspended before its start; set spec.suspend to false to start."
    )
    return Decision(status=status(case, Phase.SUSPENDED, "Suspended", message))


def training_is_stopping(case: Case) -> Decision | None:
    """Somebody deleted it. A new one can take its place once it is gone."""
    if case.training is None or not case.training.deleting:
        return None
    message = f"{case.training.name} is being stopped; training goes on when it is gone."
    ending = [a for a in case.attempts_now if a.deleting]
    if ending:
        return still_ending(case, ending[-1], Phase.STARTING, "Restarting", message)
    return Decision(status=status(case, Phase.STARTING, "Restarting", message))


def earlier_attempt_is_still_ending(case: Case) -> Decision | None:
    """Two attempts at a time would write to one folder."""
    if case.training is not None or not case.attempts_left_behind:
        return None
    last = case.attempts_left_behind[-1]
    reason, then = ("Restarting", "goes on") if case.before.start_time else ("Starting", "starts")
    message = f"{place(last)} is still ending; training {then} when it is gone."
    return still_ending(case, last, Phase.STARTING, reason, message)


def pod_carries_what_others_obey(case: Case) -> Decision | None:
    """Judged before a pod is asked for, and no verdict on the run: what runs goes on, and what has run keeps its work."""
    allowed = case.seen.allowed_pod_keys
    if case.training is not None or allowed is None:
        return None
    foreign = list(foreign_keys(case.spec, allowed))
    if not foreign:
        return None
    places = ", ".join(place for place, _ in foreign[:3])
    domains = ", ".join(dict.fromkeys(domain for _, domain in foreign[:3]))
    more = f" (and {len(foreign) - 3} more)" if len(foreign) > 3 else ""
    message = f"{places}{more}: keys of {domains} are obeyed by other systems of the cluster, and not allowed here"
    remedy = "Remove them, or ask whoever installed the operator to allow them (the chart's trainer.allowedPodKeys)"
    said = status(case, Phase.PENDING, FailureReason.ADMISSION_DENIED, sentences(message, remedy), stalled=True)
    return Decision(status=said)


def two_queues_are_named(case: Case) -> Decision | None:
    """By the spec and by the label. No verdict on the run: either may be corrected, and of a label no generation tells."""
    if case.training is not None or len(case.queues_named) < 2:
        return None
    by_spec, by_label = case.queues_named
    message = f"spec.queue is {by_spec}, and the label {QUEUE_LABEL} names {by_label}"
    said = status(
        case, Phase.PENDING, FailureReason.INVALID_SPEC, sentences(message, "Remove one of the two"), stalled=True
    )
    return Decision(status=said)


def run_is_missing_and_cannot_be_read(case: Case) -> Decision | None:
    """It has started, so it does not fail; it waits for whoever can read its spec."""
    if case.is_readable or case.training is not None:
        return None
    return Decision(
        status=status(case, Phase.PENDING, FailureReason.INVALID_SPEC, f"Run {case.run_id} is not training")
    )


def run_does_not_fit(case: Case) -> Decision | None:
    """The trainer reads its Run from its environment, which has a size."""
    if case.training is not None:
        return None
    try:
        case.run_for_trainer.to_env()
    except JobError as error:
        return failed(case, error.reason, error.message, error.remedy, error.field)
    return None


def start_has_to_wait(case: Case) -> Decision | None:
    """Whoever removes each training before an attempt of it runs would have one made for ever: each time later, then."""
    last, starts = case.before.training, case.starts_in_vain
    if case.training is not None or last is None or starts < FREE_STARTS:
        return None
    due = last.start_time + min(timedelta(seconds=2 ** min(starts - FREE_STARTS + 1, 20)), LONGEST_WAIT)
    if case.now >= due or last.start_time > case.now + LONGEST_WAIT:  # the clock was set back since
        return None
    name = training_name(case.seen.key.name, case.run_id)
    removed = f"{name} was removed {starts} times before an attempt ran"
    left = seconds_to_be_made(case)
    if left is not None and left <= 0:
        return not_begun_in_time(case, Cause("Restarting", removed, WHO_REMOVES))
    message = f"{removed}; it is created again at {due:%H:%M:%S} UTC"
    return Decision(
        status=status(case, Phase.STARTING, "Restarting", sentences(message), waited=waited_told(case)),
        recheck_after=next_try(case, (due - case.now).total_seconds()),
    )


def training_is_missing(case: Case) -> Decision | None:
    """Because it never was, or because somebody deleted it: either way there has to be one."""
    if case.training is not None:
        return None
    run = case.run
    name = training_name(case.seen.key.name, run.id)
    if case.before.start_time is None:
        reason, message = "Starting", f"{name} was created."
    else:
        reason, message = "Restarting", f"{name} was created again and goes on from the last checkpoint."
    start = StartTraining(
        name=name,
        run=case.run_for_trainer,
        image=pinned_image(run),
        limits=case.limits,
        placement=case.placement,
        queueing=case.queueing,
    )
    asked = TrainingStatus(start_time=case.now, starts=case.starts_in_vain + 1, placement=case.placement)
    began = case.before.start_time or case.now
    waited = waited_until_now(case) if case.waited else None
    said = status(case, Phase.STARTING, reason, message, run=run, training=asked, start_time=began, waited=waited)
    return Decision(actions=(start,), status=said)
