"""The status as it is written: phase, reason and message, and the conditions that follow from them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

from pydantic import ValidationError

from finetune_api.failures import REMEDIES, FailureReason
from finetune_api.job import QUEUE_LABEL
from finetune_api.problems import problems
from finetune_api.status import Condition, Failure, FineTuneJobStatus, Phase
from finetune_operator.decide.case import Case
from finetune_operator.decide.progress import progress_told
from finetune_operator.worlds.protocol import ChangeLimits, ForgetAttempt, Refusal, StopAttempt, StopTraining

State = Literal["True", "False", "Unknown"]

CONDITIONS: dict[Phase, dict[Literal["Ready", "Reconciling", "Stalled", "Finished"], State]] = {
    Phase.PENDING: {"Ready": "False", "Reconciling": "True", "Stalled": "False", "Finished": "False"},
    Phase.STARTING: {"Ready": "False", "Reconciling": "True", "Stalled": "False", "Finished": "False"},
    Phase.RUNNING: {"Ready": "False", "Reconciling": "True", "Stalled": "False", "Finished": "False"},
    Phase.SUSPENDED: {"Ready": "False", "Reconciling": "False", "Stalled": "False", "Finished": "False"},
    Phase.SUCCEEDED: {"Ready": "True", "Reconciling": "False", "Stalled": "False", "Finished": "True"},
    Phase.FAILED: {"Ready": "False", "Reconciling": "False", "Stalled": "True", "Finished": "True"},
}
"""As kstatus reads them, so that `kubectl wait`, Argo CD and Flux see the same as people do."""


STALLED: dict[Literal["Ready", "Reconciling", "Stalled", "Finished"], State] = {
    "Ready": "False",
    "Reconciling": "False",
    "Stalled": "True",
    "Finished": "False",
}
"""Of a job that goes on by itself, but only once a person has done something outside of it."""


def status(
    case: Case, phase: Phase, reason: str, message: str, *, stalled: bool = False, **more: Any
) -> FineTuneJobStatus:
    """The whole status: what is said now, over what this run's earlier reports said; `more` are further fields."""
    fields: dict[str, Any] = {
        "start_time": case.start_time,
        "run": case.run_told,
        "training": case.before.training,
        "waited": case.waited if phase in (Phase.PENDING, Phase.STARTING) else None,
        "attempts": case.attempts or None,
        "usage": case.usage,
        "progress": progress_told(case, phase),
        **more,
    }
    if phase not in (Phase.SUCCEEDED, Phase.FAILED):
        stalled = stalled or not all(refusal.passing for refusal in _not_stopped(case))
        message = sentences(message, *asides(case))
        if not case.is_readable:
            reason, stalled = FailureReason.INVALID_SPEC, True
    return FineTuneJobStatus(
        observed_generation=case.job.generation,
        phase=phase,
        reason=reason,
        message=message,
        conditions=conditions(case, phase, reason, message, stalled=stalled),
        **fields,
    )


def if_stopped(case: Case, message: str) -> str:
    """What is told of a stop and of what follows it; nothing where the stop was refused, which is told besides."""
    return "" if _not_stopped(case) else message


def _not_stopped(case: Case) -> list[Refusal]:
    return [refused.refusal for refused in case.seen.refused if isinstance(refused.action, StopTraining)]


def asides(case: Case) -> Iterator[str]:
    """What has to be said besides, whatever the run does meanwhile."""
    if not case.is_readable:
        stops = case.is_suspended or case.training is None or case.training.deleting
        goes_on = "The run can go on only when it can be read" if stops else "The run goes on as it was started"
        remedy = "correct the field, or install the version of the operator that knows it"
        yield f"This operator cannot read the spec: {unreadable(case).message}. {goes_on}; {remedy}"
    if case.training is not None and case.training.disowned:
        yield (
            f"A policy of the cluster has taken its owner off the Job {case.training.name}, which would go on without this "
            "FineTuneJob: set spec.suspend before you delete that"
        )
    if case.training is not None and len(case.queues_named) > 1:
        yield f"The label {QUEUE_LABEL} names the queue {case.queues_named[1]}, which is not obeyed, as spec.queue is {case.queues_named[0]}"
    for refused in case.seen.refused:
        match refused.action:
            case ChangeLimits(name=name):
                yield f"The limits of {name} stay as they are: {refused.refusal.message}"
            case StopTraining(name=name) | StopAttempt(name=name) | ForgetAttempt(name=name):
                yield f"{name} could not be stopped: {refused.refusal.message}"


def unreadable(case: Case) -> Failure:
    """What is wrong with a spec that this operator cannot read, and what to do."""
    assert isinstance(case.parsed, ValidationError)
    first, *others = problems(case.parsed, case.job.spec, within=("spec",))
    rest = f" ({len(others)} more problem{'s' if len(others) > 1 else ''})" if others else ""
    allowed = f", allowed: {first.allowed}" if first.allowed else ""
    return Failure(
        reason=FailureReason.INVALID_SPEC,
        message=f"{first.path}: {first.value}{allowed}{rest}"[:1000],
        remedy=first.remedy or REMEDIES[FailureReason.INVALID_SPEC],
        field=first.path[:512],
    )


def conditions(case: Case, phase: Phase, reason: str, message: str, *, stalled: bool = False) -> list[Condition]:
    """All four, every time: an absent condition reads as unknown. The time of a condition is that of its last change."""
    earlier = {condition.type: condition for condition in case.job.status.conditions or []}
    result = [condition for kind, condition in earlier.items() if kind not in STALLED]  # a newer version's
    for kind, state in (STALLED if stalled else CONDITIONS[phase]).items():
        old = earlier.get(kind)
        said: dict[str, Any] = {
            "status": state,
            "reason": reason,
            "message": message if kind == "Ready" or state == "True" else "",
            "last_transition_time": old.last_transition_time if old and old.status == state else case.now,
            "observed_generation": case.job.generation,
        }
        # A copy, with what a newer version has put into it.
        result.append(old.model_copy(update=said) if old else Condition(type=kind, **said))
    return result


def sentences(*parts: str) -> str:
    """The parts as sentences in a row, each ended by a full stop; empty ones are left out. At most 1,000 characters."""
    whole = [part.strip() for part in parts if part.strip()]
    text = " ".join(part if part[-1] in ".!?" else f"{part}." for part in whole)
    return text if len(text) <= 1000 else f"{text[:999]}…"
