"""The status as it is written: phase, reason and message, and the conditions that follow from them."""

from __future__ import annotations

from typing import Any, Literal

from finetune_api.status import Condition, FineTuneJobStatus, Phase
from finetune_operator.decide.case import Case

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
    # A training without a pinned run is one whose start could not be reported before the operator ended.
    training = case.training
    fields: dict[str, Any] = {
        "start_time": case.before.start_time or (training.created if training else None),
        "run": case.before.run or (case.run if training else None),
        "attempts": case.attempts or None,
        **more,
    }
    return FineTuneJobStatus(
        observed_generation=case.job.generation,
        phase=phase,
        reason=reason,
        message=message,
        conditions=conditions(case, phase, reason, message, stalled=stalled),
        **fields,
    )


def conditions(case: Case, phase: Phase, reason: str, message: str, *, stalled: bool = False) -> list[Condition]:
    """All four, every time: an absent condition reads as unknown. The time of a condition is that of its last change."""
    earlier = {condition.type: condition for condition in case.job.status.conditions or []}
    result = []
    for kind, state in (STALLED if stalled else CONDITIONS[phase]).items():
        old = earlier.get(kind)
        result.append(
            Condition(
                type=kind,
                status=state,
                reason=reason,
                message=message if kind == "Ready" or state == "True" else "",
                last_transition_time=old.last_transition_time if old and old.status == state else case.now,
                observed_generation=case.job.generation,
            )
        )
    return result


def sentences(*parts: str) -> str:
    """The parts as sentences in a row, each ended by a full stop; empty ones are left out. At most 1,000 characters."""
    whole = [part.strip() for part in parts if part.strip()]
    text = " ".join(part if part[-1] in ".!?" else f"{part}." for part in whole)
    return text if len(text) <= 1000 else f"{text[:999]}…"
