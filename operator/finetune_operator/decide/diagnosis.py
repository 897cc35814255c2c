"""What a run waited for or last failed with: a verdict that comes later, such as a deadline, is no reason to forget the cause."""

from __future__ import annotations

from dataclasses import replace

from finetune_api.failures import REMEDIES, FailureReason
from finetune_api.status import Phase
from finetune_operator.decide.attempts import DELETED, cause_of
from finetune_operator.decide.case import Case
from finetune_operator.decide.report import sentences
from finetune_operator.worlds.protocol import AttemptPhase, Cause

WAITED_FOR = frozenset(FailureReason) - {FailureReason.INVALID_SPEC}
"""The other says that the spec cannot be read, and what the run does meanwhile."""
AGAIN = "To run again, set another spec.runId."


def what_preceded(case: Case) -> Cause | None:
    """As a half-sentence with its remedy; None when an attempt was running, or nothing is known."""
    waited_for = what_it_waits_for(case)
    if waited_for is None:
        return _last_failure(case)
    remedy = sentences(waited_for.remedy, AGAIN) if waited_for.remedy else ""
    return replace(waited_for, message=f"it waited for: {waited_for.message}", remedy=remedy)


def what_it_waits_for(case: Case) -> Cause | None:
    """Why no attempt runs, with its remedy, which is empty where it is in the message, or where what is waited for comes by itself."""
    waiting = [a for a in case.attempts_now if a.phase is AttemptPhase.WAITING]
    problems = [a.waiting for a in waiting if a.waiting is not None]
    coming = waiting[-1].on_its_way if waiting else None
    refusal = problems[-1] if problems else case.current.refusal
    if refusal is not None:
        message = sentences(refusal.message, coming.message) if coming else refusal.message
        return Cause(refusal.reason, message, refusal.remedy or REMEDIES[refusal.reason], refusal.field)
    if coming is not None:
        return Cause(coming.what, coming.message)
    return _said_before(case)


def _said_before(case: Case) -> Cause | None:
    """By the last report: the pod that waited may be gone already."""
    before = case.before
    if before.phase not in (Phase.PENDING, Phase.STARTING) or before.reason not in WAITED_FOR or not before.message:
        return None
    usual = sentences(REMEDIES[FailureReason(before.reason)])
    message = before.message.removesuffix(usual).strip()
    remedy = usual if message != before.message else ""  # else it is in the message
    return Cause(before.reason, message, remedy)


def _last_failure(case: Case) -> Cause | None:
    if case.before.phase is Phase.RUNNING or any(a.phase is AttemptPhase.RUNNING for a in case.attempts_now):
        return None
    for attempt in reversed(case.attempts_now):
        cause = cause_of(attempt)
        if cause is not None and cause.reason != DELETED and not attempt.deleting:
            said = f"its last attempt ended with {cause.reason}: {cause.message}"
            return Cause(cause.reason, said, sentences(cause.remedy, AGAIN) if cause.remedy else "", cause.field)
    return None
