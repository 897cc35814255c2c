"""Rules for how a job ends, and for leaving it alone afterwards."""

from __future__ import annotations

from dataclasses import replace
from math import isfinite
from typing import Any

from pydantic import ValidationError

from finetune_api.exit_codes import NEVER_RETRIED, ExitCode
from finetune_api.failures import REMEDIES, FailureReason
from finetune_api.result import ModelResult, Result
from finetune_api.status import Artifacts, Failure, FineTuneJobStatus, MetricStatus, Phase, RunStatus
from finetune_operator.decide.acceptance import shortfall
from finetune_operator.decide.attempts import cause_of, log_uri, result_of
from finetune_operator.decide.case import Case, is_finished, wants
from finetune_operator.decide.diagnosis import AGAIN, what_preceded
from finetune_operator.decide.lingering import GRACE, goes_on, is_kept
from finetune_operator.decide.progress import measured_so_far, progress_told
from finetune_operator.decide.report import conditions, sentences, status, unreadable
from finetune_operator.worlds.protocol import (
    AttemptPhase,
    AttemptSeen,
    Cause,
    ChangeLimits,
    Decision,
    Ending,
    StopTraining,
    Training,
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

    Only what the operator itself refused before any attempt may be tried again: once its user has changed the spec, or once this
    operator can read what an older one could not.
    """
    before = case.job.status
    if not is_finished(before) or not _binds(case):
        return None
    training = case.training if case.is_readable else None
    if training is None or training.deleting:
        alone = not case.seen.trainings and not case.seen.attempts
        return Decision(status=_current(case, before), settled=alone)
    if training.ending is None and not _was_refused(before) and _goes_on(case):
        return Decision(actions=(StopTraining(training.name, training.uid),), status=_current(case, before))
    actions: tuple[ChangeLimits, ...] = ()
    if _is_kept_too_long(case, training):
        actions = (ChangeLimits(training.name, training.uid, case.limits_of_the_finished),)
    recheck = GRACE if any(goes_on(a) for a in case.attempts_now) else None
    return Decision(actions=actions, status=_current(case, before), recheck_after=recheck)


def acceptance_has_changed(case: Case) -> Decision | None:
    """What has finished is judged again by what was measured then, and nothing is trained for it.

    Said anew is only another verdict, or why the model is not accepted by what is asked for now.
    """
    before = case.job.status
    accepted, refused = before.phase is Phase.SUCCEEDED, _is_not_accepted(before)
    if not is_finished(before) or not _binds(case) or not (accepted or refused):
        return None
    lacks = shortfall(case, before.metrics or [])
    if (accepted and not lacks) or (refused and lacks and _is_said(case, lacks)):
        return None
    artifacts = before.artifacts
    attempt = before.attempts[-1].number if before.attempts else None
    phase, reason, message, failure = _judged(
        lacks, attempt, before.summary or "", _where(artifacts) if artifacts else ""
    )
    said = {
        "observed_generation": case.job.generation,
        "phase": phase,
        "reason": reason,
        "message": message,
        "failure": failure,
        "conditions": conditions(case, phase, reason, message),
    }
    return Decision(status=before.model_copy(update=said))


def _is_said(case: Case, lacks: str) -> bool:
    before = case.job.status
    return not case.is_new or (before.failure is not None and before.failure.message == sentences(lacks))


def _is_not_accepted(before: FineTuneJobStatus) -> bool:
    return before.failure is not None and before.failure.reason == FailureReason.ACCEPTANCE_NOT_MET


def _judged(lacks: str, attempt: int | None, *said: str) -> tuple[Phase, str, str, Failure | None]:
    """Phase, reason, message and failure of a job whose model is trained, of which this is `said`, and `lacks` that."""
    if not lacks:
        return Phase.SUCCEEDED, "Succeeded", sentences(*said), None
    remedy = REMEDIES[FailureReason.ACCEPTANCE_NOT_MET]
    failure = Failure(
        reason=FailureReason.ACCEPTANCE_NOT_MET,
        message=sentences(lacks),
        remedy=remedy,
        field="spec.acceptance",
        exit_code=ExitCode.DONE,
        attempt=attempt,
    )
    return Phase.FAILED, failure.reason, sentences(lacks, *said, remedy), failure


def _goes_on(case: Case) -> bool:
    """Whether the training of a finished run would not end by itself: another container keeps a pod, or another attempt would follow."""
    attempts = case.attempts_now
    if any(a.phase is not AttemptPhase.ENDED or is_kept(a) or a.spoiled for a in attempts):
        return True
    return ending_after(attempts, case.current.limits) is None


def _binds(case: Case) -> bool:
    """Whether the last verdict is about what the spec now asks for."""
    before, failure = case.job.status, case.job.status.failure
    if not _was_refused(before) and before.run is not None and before.start_time is not None:
        return case.pinned is not None if case.is_readable else wants(case.job.spec, before.run)
    # What the world refused names the run that was not started, what could not be read names none, or an earlier one.
    unread = (
        failure is not None
        and failure.reason == FailureReason.INVALID_SPEC
        and (before.run is None or before.start_time is not None)
    )
    return not case.is_new and not (unread and case.is_readable)


def _was_refused(before: FineTuneJobStatus) -> bool:
    """Whether the verdict is about what was not to be started, and so about no training that there is."""
    failure = before.failure
    return failure is not None and failure.attempt is None and failure.reason in FINAL_REFUSALS


def _is_kept_too_long(case: Case, training: Training) -> bool:
    wanted = case.limits_of_the_finished
    if training.asked is None:  # nobody knows whether the time to live in force was asked for or is the cluster's own
        return wanted.ttl_seconds_after_finished is not None and training.limits.ttl_seconds_after_finished is None
    return training.asked != wanted


def _current(case: Case, before: FineTuneJobStatus) -> FineTuneJobStatus:
    """The same verdict, said about the present generation."""
    if not case.is_new:
        return before
    generation = {"observed_generation": case.job.generation}
    said = [condition.model_copy(update=generation) for condition in before.conditions or []]
    return before.model_copy(update={**generation, "conditions": said})


def spec_is_invalid(case: Case) -> Decision | None:
    """The API server refuses most of this; here ends what its schema cannot say, or an older schema let through.

    Only what never started ends so: a run that goes on was started by an operator that could read its spec.
    """
    if case.is_readable or case.pinned is not None or case.training is not None:
        return None
    failure = unreadable(case)
    text = sentences(failure.message, failure.remedy)
    said = FineTuneJobStatus(
        observed_generation=case.job.generation,
        phase=Phase.FAILED,
        reason=FailureReason.INVALID_SPEC,
        message=text,
        failure=failure,
        conditions=conditions(case, Phase.FAILED, FailureReason.INVALID_SPEC, text),
    )
    return Decision(status=said)


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
    run = case.run_told or case.run
    artifacts = _artifacts(run.uri, result)
    more: dict[str, Any] = {"completion_time": case.ended, "artifacts": artifacts, "run": run}
    metrics: list[MetricStatus] = []
    if result is None:
        metric = measured_so_far(progress_told(case, Phase.SUCCEEDED))
        known = f"only as it last told them while it trained ({metric})" if metric else "unknown here"
        told = f"Finished. The trainer left no message that can be read, so its metrics are {known}; the results are in {run.uri}."
        more["summary"] = metric
        said: tuple[str, ...] = (told, note)
    else:
        pinned = run.model_dump() | {
            "model_revision": result.model_revision,
            "data_fingerprint": result.data_fingerprint,
        }
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
        summary = _summary(metrics)
        more |= {"metrics": metrics or None, "summary": summary or None}
        adopted = "An equal finished run was found, nothing had to be trained" if result.adopted else ""
        said = (summary, adopted, _where(artifacts), note)
    attempt = case.attempts[-1].number if case.attempts else None
    phase, reason, message, failure = _judged(shortfall(case, metrics), attempt, *said)
    more["progress"] = progress_told(case, Phase.SUCCEEDED)  # it is trained, whatever is thought of it
    return Decision(status=status(case, phase, reason, message, failure=failure, **more))


def _where(artifacts: Artifacts) -> str:
    if artifacts.model_uri:
        return f"The model is in {artifacts.model_uri}"
    return f"The adapters are in {artifacts.adapter_uri}"


def _artifacts(uri: str, result: Result | None) -> Artifacts:
    saved = result.model if result else None
    if saved is None:  # of a trainer that knows no adapters, or that nobody could read
        saved = ModelResult(folder="model")
    return Artifacts(
        model_uri=f"{uri}/{saved.folder}" if saved.folder else None,
        adapter_uri=f"{uri}/{saved.adapter}" if saved.adapter else None,
        report_uri=f"{uri}/report.html",
    )


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
        return failed(case, cause.reason, cause.message, cause.remedy, cause.field, last=last)
    if ending is Ending.DEADLINE_EXCEEDED:
        before = what_preceded(case)
        message = deadline_missed(case) + (f"; {before.message}" if before else "")
        remedy, field = (before.remedy, before.field) if before else ("", None)
        return failed(case, FailureReason.DEADLINE_EXCEEDED, message, remedy, field, last=last)
    if ending is Ending.BACKOFF_LIMIT_EXCEEDED:
        message = _failures(case)
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
    asked, force = case.current.asked, case.current.limits.active_deadline_seconds
    wanted = case.spec.active_deadline_seconds if case.is_readable else force
    if wanted is None or (asked is not None and asked.active_deadline_seconds != force):
        within = f"within {force} seconds," if force is not None else "before"
        return f"The run did not finish {within} a deadline that the cluster gave its Job; the spec asks for {wanted or 'none'}"
    return f"The run did not finish within {wanted} seconds"


def _failures(case: Case) -> str:
    """How many, and how many may be. Whoever deletes pods or changes the Job's failure policy makes the Job controller count what
    nobody else knows of."""
    count, force = case.failures_now(0), case.current.limits.backoff_limit
    if count <= force:
        known = "none of them is" if count == 0 else f"only {count} of them {'is' if count == 1 else 'are'}"
        return (
            f"The cluster counted more failed attempts than its Job's backoffLimit of {force} allows, and {known} known here: pods "
            "were deleted, or a policy of the cluster changed what the Job counts"
        )
    return f"{count} attempt{'s' if count != 1 else ''} failed, and {_allowed_failures(case)}"


def _allowed_failures(case: Case) -> str:
    asked, force = case.current.asked, case.current.limits.backoff_limit
    if asked is not None and asked.backoff_limit != force:
        return f"the cluster has set the Job's backoffLimit to {force}"
    return f"spec.backoffLimit allows {case.spec.backoff_limit if case.is_readable else force}"


def failed(
    case: Case,
    reason: str,
    message: str,
    remedy: str = "",
    field: str | None = None,
    *,
    last: AttemptSeen | None = None,
) -> Decision:
    known = FailureReason(reason) if reason in set(FailureReason) else FailureReason.INTERNAL
    remedy = remedy or REMEDIES[known]  # a later trainer may know other reasons
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
        log_uri=log_uri(case.run.uri, result),
    )
    more: dict[str, Any] = {
        "run": case.run_told or case.run,
        # A run that could not even be made is over all the same: what has no start may begin again after any edit.
        "start_time": case.start_time if correctable else case.start_time or case.now,
        "completion_time": case.ended,
        "failure": failure,
    }
    return Decision(status=status(case, Phase.FAILED, reason, sentences(message, remedy), **more))
