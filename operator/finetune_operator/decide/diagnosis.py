"""What a run waited for or last failed with: a verdict that comes later, such as a deadline, is no reason to forget the cause."""

from __future__ import annotations

from finetune_api.failures import REMEDIES, FailureReason
from finetune_api.status import Phase
from finetune_operator.decide.attempts import DELETED, cause_of
from finetune_operator.decide.case import Case
from finetune_operator.decide.report import sentences
from finetune_operator.worlds.protocol import AttemptPhase, Cause

AGAIN = "To run again, set another spec.runId."


def what_preceded(case: Case) -> Cause | None:
    """As a half-sentence with its remedy; None when an attempt was running, or nothing is known."""
    waiting = [a.waiting for a in case.attempts_now if a.waiting is not None and a.phase is AttemptPhase.WAITING]
    coming = [a.on_its_way for a in case.attempts_now if a.on_its_way is not None and a.phase is AttemptPhase.WAITING]
    refusal = waiting[-1] if waiting else case.current.refusal
    if refusal is not None:
        remedy = sentences(refusal.remedy or REMEDIES[refusal.reason], AGAIN)
        return Cause(refusal.reason, f"it waited for: {refusal.message}", remedy, refusal.field)
    if coming:
        return Cause(coming[-1].what, f"it waited for: {coming[-1].message}")
    return _said_before(case) or _last_failure(case)


def _said_before(case: Case) -> Cause | None:
    """By the last report: the pod that waited may be gone already."""
    before = case.before
    if (
        before.phase not in (Phase.PENDING, Phase.STARTING)
        or before.reason not in set(FailureReason)
        or not before.message
    ):
        return None
    usual = sentences(REMEDIES[FailureReason(before.reason)])
    message = before.message.removesuffix(usual).strip()
    remedy = sentences(usual, AGAIN) if message != before.message else ""  # else it is in the message
    return Cause(before.reason, f"it waited for: {message}", remedy)


def _last_failure(case: Case) -> Cause | None:
    if case.before.phase is Phase.RUNNING or any(a.phase is AttemptPhase.RUNNING for a in case.attempts_now):
        return None
    for attempt in reversed(case.attempts_now):
        cause = cause_of(attempt)
        if cause is not None and cause.reason != DELETED and not attempt.deleting:
            said = f"its last attempt ended with {cause.reason}: {cause.message}"
            return Cause(cause.reason, said, sentences(cause.remedy, AGAIN) if cause.remedy else "", cause.field)
    return None
