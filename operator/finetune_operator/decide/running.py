"""Rules for a training that is there and goes on."""

from __future__ import annotations

from datetime import timedelta

from finetune_api.failures import REMEDIES, FailureReason
from finetune_api.status import Phase
from finetune_operator.decide.case import Case
from finetune_operator.decide.ending import deadline_missed
from finetune_operator.decide.headway import LONG_WAIT, restart_due
from finetune_operator.decide.progress import doing, measured_so_far, progress_told
from finetune_operator.decide.report import if_stopped, sentences, status
from finetune_operator.decide.stopping import place, still_ending
from finetune_operator.worlds.protocol import (
    AttemptPhase,
    AttemptSeen,
    ChangeLimits,
    Decision,
    Ending,
    Refusal,
    StopTraining,
)
from finetune_operator.worlds.restarts import ending_after

FIRST_LOOK, LATER_LOOKS = 5.0, 30.0
"""Seconds between looks at a training without attempts: what keeps them from being created announces itself to nobody."""
PATIENCE = 60.0
CLOCKS_DIFFER = 2.0
HIDDEN = 15.0
"""Seconds after which an attempt that nobody sees is no longer one whose news is late."""
VERDICT = timedelta(seconds=15)
"""How long after its last attempt a training may take to end."""


def changed_limits(case: Case) -> tuple[ChangeLimits, ...]:
    """What is done beside whatever is said of a training that goes on: new limits are no event, and keep no status back."""
    if not case.is_readable:
        return ()
    training = case.current
    if training.asked is not None:
        changed = training.asked != case.limits
    else:  # nobody remembers, and a policy of the cluster may want what is in force: so once a generation
        changed = case.is_new and training.limits != case.limits
    return (ChangeLimits(training.name, training.uid, case.limits),) if changed else ()


def attempt_is_running(case: Case) -> Decision | None:
    running = [a for a in case.attempts_now if a.phase is AttemptPhase.RUNNING]
    if not running:
        return None
    last = running[-1]
    if last.deleting:
        return still_ending(case, last, Phase.RUNNING, *_being_stopped(case, last))
    where = f" on node {last.node}" if last.node else ""
    number = next((a.number for a in case.attempts if a.name == last.name), len(case.attempts))
    message = f"Attempt {number} is running{where}."
    metric = measured_so_far(progress_told(case, Phase.RUNNING))
    return Decision(status=status(case, Phase.RUNNING, doing(case, number), message, summary=metric))


def _being_stopped(case: Case, attempt: AttemptSeen) -> tuple[str, str]:
    """Reason and message. Of one that is ended because it hangs, as its entry says by now, nobody says that it saves."""
    entry = next((a for a in case.attempts if a.name == attempt.name), None)
    if entry is not None and entry.reason and entry.message:
        told = f"It was told to stop, {_then(case, 'the last checkpoint')}"
        return entry.reason, sentences(entry.message, told)
    return "Stopping", sentences(f"{place(attempt)} was told to stop: it saves its work, {_then(case, 'there')}")


def _then(case: Case, checkpoint: str) -> str:
    match ending_at_hand(case):
        case None:
            return f"and the next attempt goes on from {checkpoint}"
        case Ending.DEADLINE_EXCEEDED:
            return f"and then the training ends: {deadline_missed(case)}"
        case _:
            return "and ends"


def placement_has_changed(case: Case) -> Decision | None:
    """The user changed what a pod asks for while none was running, such as a node selector that fits no node.

    The status remembers what was asked for last. The training does, too, but a policy of the cluster may have had its hand there:
    one that differs for ever would replace for ever.
    """
    last = case.before.training
    remembered = {last.placement if last else None, case.current.placement} - {None}
    if not case.is_readable or case.placement in remembered:
        return None
    if case.current.queue == case.queueing.queue and case.placement_without_its_label in remembered:
        return None  # it was made by an earlier version
    if not remembered:  # then every change of the spec is taken for one of this kind
        return _replaced(case, "The spec has changed") if case.is_new and case.before.start_time else None
    return _replaced(case, "The spec of the pod has changed")


def image_has_changed(case: Case) -> Decision | None:
    """The default image, or that of the spec, is another one, and no attempt has run: what waits may wait for a wrong one."""
    before = case.before.run
    if before is None or before.image in (None, case.run.image) or not case.is_readable or case.has_run:
        return None
    return _replaced(case, f"The trainer's image is now {case.run.image}")


def platform_has_changed(case: Case) -> Decision | None:
    """Whoever runs the cluster gives all pods other things now, and no attempt has run: what waits may wait for these."""
    if not case.current.outdated or not case.is_readable or case.has_run:
        return None
    return _replaced(case, "The platform's settings for all training pods have changed")


def _replaced(case: Case, why: str) -> Decision:
    return Decision(
        actions=(StopTraining(case.current.name, case.current.uid),),
        status=status(
            case,
            Phase.STARTING,
            "Restarting",
            if_stopped(case, f"{why}; a new pod replaces the one that waits."),
        ),
    )


def training_is_held(case: Case) -> Decision | None:
    """Not by a queue, nor by this operator."""
    if not case.current.held:
        return None
    return Decision(status=status(case, Phase.PENDING, "Held", case.current.held, stalled=True))


def queue_is_missing(case: Case) -> Decision | None:
    """Nobody admits what waits there; its queueing system takes note as soon as there is one of that name."""
    refusal = case.current.refusal
    if not case.current.queued or refusal is None:
        return None
    message = sentences(refusal.message, refusal.remedy or REMEDIES[refusal.reason])
    return Decision(status=status(case, Phase.PENDING, refusal.reason, message))


def training_is_queued(case: Case) -> Decision | None:
    if not case.current.queued:
        return None
    says = f"It says: {case.current.queue_says}" if case.current.queue_says else ""
    return Decision(status=status(case, Phase.PENDING, "Queued", sentences("Waits for its queue to admit it", says)))


def attempt_cannot_be_created(case: Case) -> Decision | None:
    if case.current.refusal is None or any(a.phase is not AttemptPhase.ENDED for a in case.attempts_now):
        return None
    return _waits_for(case, case.current.refusal, recheck_after=LATER_LOOKS)


def attempt_cannot_start(case: Case) -> Decision | None:
    problems = [a.waiting for a in case.attempts_now if a.phase is AttemptPhase.WAITING and a.waiting is not None]
    return _waits_for(case, problems[-1]) if problems else None


def verdict_is_due(case: Case) -> Decision | None:
    """The training is about to end; the world has yet to say so, and what was said last stands until then."""
    if case.before.phase is None:
        return None
    ended = [a for a in case.attempts_now if a.phase is AttemptPhase.ENDED]
    if len(ended) == len(case.attempts_now) and ending_after(ended, case.current.limits) is not None:
        late = max(a.ended or a.created for a in ended) + VERDICT
        wait = (late - case.now).total_seconds()
        return (
            Decision(recheck_after=wait) if 0 < wait <= PATIENCE else None
        )  # beyond that it is by a clock that is far ahead
    return Decision(recheck_after=LATER_LOOKS) if ending_at_hand(case) else None


def ending_at_hand(case: Case) -> Ending | None:
    """How the training will end once its attempts have, because the world has said so or its time is up."""
    training, deadline = case.current, case.current.limits.active_deadline_seconds
    if training.verdict is not None or training.queued or training.started is None or deadline is None:
        return training.verdict
    over = (case.now - training.started).total_seconds() - deadline
    # Some time is left for another clock to say the same; when nothing comes of it, nobody was about to say it.
    return Ending.DEADLINE_EXCEEDED if -CLOCKS_DIFFER <= over < PATIENCE else None


def attempt_is_out_of_sight(case: Case) -> Decision | None:
    """The world counts one that nobody sees: a policy of the cluster has taken away what shows whose it is."""
    if not case.current.active or case.attempts_now:
        return None
    if case.current.unseen_for < HIDDEN:
        return None
    message = (
        f"{case.current.name} has a pod that cannot be seen here, because it lacks the labels finetune.dev/uid and "
        "finetune.dev/job as this operator gave them: a policy of the cluster changes them. The run goes on, and its end will be told without its metrics"
    )
    return Decision(status=status(case, Phase.RUNNING, "OutOfSight", sentences(message)), recheck_after=LATER_LOOKS)


def attempt_has_told_another(case: Case) -> Decision | None:
    """What it waits for was told to another process, and is told to this one again: until then what that has said stands, or each
    start of an operator would write twice to every job that waits. What the pod itself says, and was not said yet, comes first."""
    waiting = [a for a in case.attempts_now if a.phase is AttemptPhase.WAITING]
    if not waiting or not waiting[-1].untold or case.before.phase is not Phase.STARTING or case.is_new:
        return None
    problem, before = waiting[-1].waiting, case.before
    if problem is not None and before.reason != "ScalingUp":
        said = before.reason == problem.reason and (before.message or "").startswith(problem.message.rstrip(". "))
        return Decision() if said else None
    return Decision()


def attempt_is_awaited(case: Case) -> Decision:
    waiting = [a for a in case.attempts_now if a.phase is AttemptPhase.WAITING]
    ended = [a for a in case.attempts if a.end_time is not None]
    if ended:
        last = ended[-1]
        code = f" (exit code {last.exit_code})" if last.exit_code is not None else ""
        reason = "Restarting"
        message = f"Attempt {last.number} ended with {last.reason}{code}; {_what_follows(case)}."
    else:
        reason, message = "Starting", f"{case.current.name} was created."
    due = restart_due(case)
    if due is not None and due - case.now > LONG_WAIT:
        message = f"{message} The cluster waits until {due:%H:%M:%S} UTC before it, longer after each end."
    if waiting and waiting[-1].initializing:
        message = f"{message} {waiting[-1].name} waits: {waiting[-1].initializing}."
    age = (case.now - case.current.created).total_seconds()
    recheck = None if waiting else FIRST_LOOK if age < PATIENCE or case.current.active else LATER_LOOKS
    return Decision(status=status(case, Phase.STARTING, reason, message), recheck_after=recheck)


def _what_follows(case: Case) -> str:
    """The Job controller decides that, and where it is away, longer than a verdict takes, it has yet to."""
    ended = [a for a in case.attempts_now if a.phase is AttemptPhase.ENDED]
    if len(ended) == len(case.attempts_now) and ending_after(ended, case.current.limits) is not None:
        return "the cluster has yet to end the training for that"
    return "the next one goes on from the last checkpoint"


def _waits_for(case: Case, refusal: Refusal, recheck_after: float | None = None) -> Decision:
    remedy = sentences(refusal.remedy or REMEDIES[refusal.reason])
    message = sentences(refusal.message, remedy)
    what, _, _ = refusal.message.partition("pulled: ")
    before, told, _ = (case.before.message or "").partition(remedy)
    if refusal.reason is FailureReason.IMAGE_PULL_FAILED and before.startswith(what) and told:
        message = before + told  # kubelets say it in turn as a failure and as a back-off; the first one told the cause
    return Decision(
        status=status(case, Phase.STARTING, refusal.reason, message),
        recheck_after=recheck_after,
    )
