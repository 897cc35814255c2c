"""What is said while an attempt that was told to stop is still there."""

from __future__ import annotations

from datetime import timedelta

from finetune_api.failures import FailureReason
from finetune_api.status import Phase
from finetune_operator.decide.case import Case
from finetune_operator.decide.report import status
from finetune_operator.worlds.protocol import AttemptSeen, Decision

LATE = timedelta(seconds=30)
"""How long past its time an attempt may still be seen before its node is taken to be out of touch."""


def place(attempt: AttemptSeen) -> str:
    return f"{attempt.name} on node {attempt.node}" if attempt.node else attempt.name


def still_ending(case: Case, attempt: AttemptSeen, phase: Phase, reason: str, message: str) -> Decision:
    """`message`, as long as the attempt has time; after that nobody knows whether it still saves, and only a person can tell."""
    if attempt.gone_by is None:
        return Decision(status=status(case, phase, reason, message))
    late = attempt.gone_by + LATE
    if case.now < late:
        recheck = (late - case.now).total_seconds()
        return Decision(status=status(case, phase, reason, message), recheck_after=recheck)
    message = (
        f"{place(attempt)} should be gone since {attempt.gone_by:%H:%M:%S} UTC, and its node does not say so. "
        f"Bring the node back, or if it is gone for good: kubectl delete pod --force {attempt.name}."
    )
    return Decision(status=status(case, phase, FailureReason.NODE_LOST, message))
