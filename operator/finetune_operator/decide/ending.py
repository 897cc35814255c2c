"""Rules for how a job ends, and for leaving it alone afterwards."""

from __future__ import annotations

from dataclasses import replace
from math import isfinite
from typing import Any

from pydantic import ValidationError

from finetune_api.exit_codes import NEVER_RETRIED, ExitCode
from finetune_api.failures import REMEDIES, FailureReason
from finetune_api.problems import problems
from finetune_api.result import Result
from finetune_api.status import Artifacts, Failure, FineTuneJobStatus, MetricStatus, Phase, RunStatus
from finetune_operator.decide.attempts import cause_of, result_of, spent
from finetune_operator.decide.case import Case
from finetune_operator.decide.diagnosis import AGAIN, what_preceded
from finetune_operator.decide.lingering import GRACE, goes_on, is_kept
from finetune_operator.decide.report import conditions, sentences, status
from finetune_operator.worlds.protocol import (
    AttemptPhase,
    AttemptSeen,
    Cause,
    ChangeLimits,
    Decision,
    Ending,
    StopTraining,
)
from finetune_operator.worlds.restarts import ending_after, is_counted

FINAL_REFUSALS = frozenset({FailureReason.INVALID_SPEC, FailureReason.OUTPUT_CONFLICT})
"""What fails a job before any attempt; only an edit of its spec may help."""
WITHOUT_ATTEMPT = frozenset({Ending.DEADLINE_EXCEEDED, Ending.OTHER})
"""What may come before any attempt, so that there is none to wait for."""
MAX_METRICS = 32
HEARING = 10.0
"""Seconds to wait for the last words of an attempt after its training has ended: the two are told by different messengers."""


def job_is_finished(case: Case) -> Decision | None:
    """Finished is finished for its run id, whatever happens to the children.

    Only what the operator itself refused before any attempt may be tried again, once its user has changed the spec.
    """
    before = case.job.status
    if not _finished(before) or (before.observed_generation != case.job.generation and not _binds(case)):
        return None
    training = None if isinstance(case.parsed, ValidationError) else case.training
    if training is None or training.deleting:
        return Decision(status=_current(case, before))
    if training.ending is None and _goes_on(case):
        return Decision(actions=(StopTraining(training.name, training.uid),), status=_current(case, before))
    actions: tuple[ChangeLimits, ...] = ()
    if training.limits != case.limits_of_the_finished:
        actions = (ChangeLimits(training.name, training.uid, case.limits_of_the_finished),)
    recheck = GRACE if any(goes_on(a) for a in case.attempts_now) else None
    return Decision(actions=actions, status=_current(case, before), recheck_after=recheck)


def _goes_on(case: Case) -> bool:
    """Whether the training of a finished run would not end by itself: another container keeps a pod, or another attempt would follow."""
    attempts = case.attempts_now
    if any(a.phase is not AttemptPhase.ENDED or is_kept(a) or a.spoiled for a in attempts):
        return True
    return ending_after(attempts, case.current.limits) is None


def _finished(before: FineTuneJobStatus) -> bool:
    return any(c.type == "Finished" and c.status == "True" for c in before.conditions or [])


def _binds(case: Case) -> bool:
    """Whether the last verdict is about the run that the spec now asks for."""
    before = case.job.status
    refused = before.failure is not None and before.failure.attempt is None and before.failure.reason in FINAL_REFUSALS
    if refused or before.run is None:
        return False
    if isinstance(case.parsed, ValidationError):  # an edit that went wrong; inputs change only together with runId
        return case.job.spec.get("runId") in (None, before.run.id)
    return before.run.id == case.run.id


def _current(case: Case, before: FineTuneJobStatus) -> FineTuneJobStatus:
    """The same verdict, said about the present generation."""
    if before.observed_generation == case.job.generation or before.phase is None:
        return before
    return before.model_copy(
        update={
            "observed_generation": case.job.generation,
            "conditions": conditions(case, before.phase, before.reason or "", before.message or ""),
        }
    )


def spec_is_invalid(case: Case) -> Decision | None:
    """The API server refuses most of this; here ends what its schema cannot say, or an older schema let through."""
    if not isinstance(case.parsed, ValidationError):
        return None
    first, *others = problems(case.parsed, case.job.spec, within=("spec",))
    rest = f" ({len(others)} more problem{'s' if len(others) > 1 else ''})" if others else ""
    allowed = f", allowed: {first.allowed}" if first.allowed else ""
    message = f"{first.path}: {first.value}{allowed}{rest}"
    remedy = first.remedy or REMEDIES[FailureReason.INVALID_SPEC]
    failure = Failure(reason=FailureReason.INVALID_SPEC, message=message, remedy=remedy, field=first.path)
    text = sentences(message, remedy)
    before = case.job.status
    said = FineTuneJobStatus(
        observed_generation=case.job.generation,
        phase=Phase.FAILED,
        reason=FailureReason.INVALID_SPEC,
        message=text,
        run=before.run,
        start_time=before.start_time,
        attempts=before.attempts,
        failure=failure,
        conditions=conditions(case, Phase.FAILED, FailureReason.INVALID_SPEC, text),
    )
    stop = tuple(StopTraining(t.name, t.uid) for t in case.seen.trainings if t.ending is None and not t.deleting)
    return Decision(actions=stop, status=said)


def training_has_ended(case: Case) -> Decision | None:
    training = case.training
    if training is None or training.ending is None:
        return None
    last = last_words(case, training.ending)
    if last is not None and last.exit_code == ExitCode.DONE:  # it counts, although another container spoiled its pod
        return succeeded(case, result_of(last))
    speechless = last is None and training.ending not in WITHOUT_ATTEMPT
    if (
        speechless or any(a.phase is not AttemptPhase.ENDED for a in case.attempts_now)
    ) and training.ended_for < HEARING:
        return Decision(recheck_after=1.0)
    if training.ending is Ending.COMPLETE:
        return succeeded(case, result_of(last) if last else None)
    return failure_of(case, training.ending, last)


def last_words(case: Case, ending: Ending) -> AttemptSeen | None:
    """The attempt that decided how the training ended, as far as it is known to have ended."""
    ended = [a for a in case.attempts_now if a.phase is AttemptPhase.ENDED]
    done = [a for a in ended if a.exit_code == ExitCode.DONE]
    if done or ending is Ending.COMPLETE:
        ended = done
    elif ending is Ending.NEVER_RETRIED:
        ended = [a for a in ended if a.exit_code in NEVER_RETRIED and a.disruption is None]
    elif ending is Ending.BACKOFF_LIMIT_EXCEEDED:
        ended = [a for a in ended if is_counted(a)]
    return ended[-1] if ended else None


def succeeded(case: Case, result: Result | None, note: str = "") -> Decision:
    try:
        return _succeeded(case, result, note)
    except ValidationError:  # a trainer of somebody's own may write what does not fit into a status
        return _succeeded(case, None, note)


def _succeeded(case: Case, result: Result | None, note: str) -> Decision:
    run = case.run
    more: dict[str, Any] = {
        "completion_time": case.ended,
        "artifacts": Artifacts(model_uri=f"{run.uri}/model", report_uri=f"{run.uri}/report.html"),
    }
    if result is None:
        message = (
            f"Finished. The trainer left no message, so its metrics are unknown here; the results are in {run.uri}."
        )
        return Decision(status=status(case, Phase.SUCCEEDED, "Succeeded", sentences(message, note), run=run, **more))
    pinned = run.model_dump() | {"model_revision": result.model_revision, "data_fingerprint": result.data_fingerprint}
    more["run"] = RunStatus(**pinned)
    metrics = [
        MetricStatus(
            name=metric.name,
            split=metric.split,
            baseline=metric.baseline if metric.baseline is not None and isfinite(metric.baseline) else None,
            value=metric.value,
        )
        for metric in result.metrics[:MAX_METRICS]
        if isfinite(metric.value)  # JSON has no word for the others
    ]
    more["metrics"] = metrics or None
    summary = _summary(metrics)
    more["summary"] = summary or None
    adopted = "An equal finished run was found, nothing had to be trained" if result.adopted else ""
    message = sentences(summary, adopted, f"The model is in {run.uri}/model", note)
    return Decision(status=status(case, Phase.SUCCEEDED, "Succeeded", message, **more))


def _summary(metrics: list[MetricStatus]) -> str:
    if not metrics:
        return ""
    first = metrics[0]
    before = "" if first.baseline is None else f"{first.baseline:.3f} → "
    return f"{first.name} {before}{first.value:.3f}"


def failure_of(case: Case, ending: Ending, last: AttemptSeen | None) -> Decision:
    cause = (cause_of(last) if last else None) or Cause(FailureReason.INTERNAL, "", "")
    if ending is Ending.NEVER_RETRIED and last is not None:
        # It ended the training by its exit code, so that is what to read, whatever befell its pod besides.
        cause = cause_of(replace(last, ended_by=None)) or cause
        return failed(case, FailureReason(cause.reason), cause.message, cause.remedy, cause.field, last=last)
    if ending is Ending.DEADLINE_EXCEEDED:
        before = what_preceded(case)
        message = deadline_missed(case) + (f"; {before.message}" if before else "")
        remedy, field = (before.remedy, before.field) if before else ("", None)
        return failed(case, FailureReason.DEADLINE_EXCEEDED, message, remedy, field, last=last)
    if ending is Ending.BACKOFF_LIMIT_EXCEEDED:
        count = spent(case.attempts, until=None).failures
        failures = f"{count} attempt{'s' if count != 1 else ''} failed"
        message = f"{failures}, and spec.backoffLimit allows {case.spec.backoff_limit}"
        if last is not None:
            message = f"{message}. The last one: {cause.reason}: {cause.message}"
        elif failures_recorded := [a for a in case.attempts if a.counts_as == "Failure"]:  # its pod is gone
            message = f"{message}. The last one: {failures_recorded[-1].reason}"
        return failed(case, FailureReason.BACKOFF_LIMIT_EXCEEDED, message, cause.remedy, cause.field, last=last)
    before = what_preceded(case)
    message = (case.current.message or "The training failed without a reason") + (
        f"; {before.message}" if before else ""
    )
    return failed(case, FailureReason.INTERNAL, message, before.remedy if before else "", last=last)


def deadline_missed(case: Case) -> str:
    deadline = case.spec.active_deadline_seconds
    if deadline is None:
        return "The run did not finish before a deadline that the cluster gave its Job; the spec asks for none"
    return f"The run did not finish within {deadline} seconds"


def failed(
    case: Case,
    reason: FailureReason,
    message: str,
    remedy: str = "",
    field: str | None = None,
    *,
    last: AttemptSeen | None = None,
) -> Decision:
    remedy = remedy or REMEDIES[reason]
    correctable = last is None and reason in FINAL_REFUSALS  # an edit of the spec is enough
    if case.seen.remembers and not correctable and "runId" not in remedy:
        remedy = sentences(remedy, AGAIN)
    attempt = next((a.number for a in case.attempts if last is not None and a.name == last.name), None)
    result = result_of(last) if last else None
    failure = Failure(
        reason=reason,
        message=sentences(message),
        remedy=sentences(remedy),
        field=field[:512] if field else None,
        exit_code=last.exit_code if last else None,
        attempt=attempt,
        log_uri=f"{case.run.uri}/attempts/{result.attempt}/log.txt" if result and result.attempt else None,
    )
    more: dict[str, Any] = {
        "run": case.run,
        "completion_time": case.ended,
        "failure": failure,
    }
    return Decision(status=status(case, Phase.FAILED, reason, sentences(message, remedy), **more))
