"""Progress: what a running trainer says about itself.

Wire-compatible with the client that transformers ships for Kubeflow's progress endpoint (`KubeflowCallback`): the
`trainerStatus` object is theirs, steps, epochs and rates travel as named metrics, and metric values are strings. `phase` and
`message` beside it are ours; a server that does not know them ignores them, and without them a trainer is taken to train.
"""

from __future__ import annotations

from enum import StrEnum
from math import isfinite
from typing import Annotated, Any, Protocol, Self

from pydantic import AwareDatetime, BeforeValidator, Field

from finetune_api.base import Contract


class TrainerPhase(StrEnum):
    """What the trainer is doing."""

    DOWNLOADING = "Downloading"
    VALIDATING = "Validating"
    RESUMING = "Resuming"
    EVALUATING = "Evaluating"
    TRAINING = "Training"
    UPLOADING = "Uploading"
    DONE = "Done"


def _known(phase: Any) -> Any:
    """A phase that a newer version knows, or none at all, is training as far as this one can tell."""
    return phase if phase in [*TrainerPhase] else TrainerPhase.TRAINING


class NamedMetric(Contract):
    name: str
    value: str


THEIRS = {"current_step": "step", "current_epoch": "epoch"}
"""What transformers calls otherwise."""


class TrainerStatus(Contract):
    progress_percentage: int | None = Field(default=None, ge=0, le=100)
    estimated_remaining_seconds: int | None = Field(default=None, ge=0)
    metrics: list[NamedMetric] = []
    last_updated_time: AwareDatetime


class Progress(Contract):
    """One report. Named metrics in use: `step`, `total_steps`, `epoch`, `total_epochs`, `loss`, `learning_rate`,
    `samples_per_second`, `checkpoint_step`, and `eval_<metric>` after each evaluation, that which the best model is chosen by
    before the others. transformers says `current_step` and `current_epoch`."""

    trainer_status: TrainerStatus
    phase: Annotated[TrainerPhase, BeforeValidator(_known)] = TrainerPhase.TRAINING
    message: str = ""

    @classmethod
    def now(
        cls,
        phase: TrainerPhase,
        at: AwareDatetime,
        *,
        percent: int | None = None,
        remaining: int | None = None,
        message: str = "",
        **metrics: float,
    ) -> Self:
        """A report of this moment; `remaining` in seconds."""
        named = [NamedMetric(name=name, value=f"{value:.10g}") for name, value in metrics.items()]
        status = TrainerStatus(
            progress_percentage=percent, estimated_remaining_seconds=remaining, metrics=named, last_updated_time=at
        )
        return cls(trainer_status=status, phase=phase, message=message)

    def numbers(self) -> dict[str, float]:
        """The named metrics that are numbers, by our names; `nan` and infinities are none."""
        found: dict[str, float] = {}
        for metric in self.trainer_status.metrics:
            try:
                value = float(metric.value)
            except ValueError:
                continue
            if isfinite(value):
                found[THEIRS.get(metric.name, metric.name)] = value
        return found

    def metric(self, name: str) -> float | None:
        """The value of a named metric, or None when this report has none of that name."""
        return next((float(m.value) for m in self.trainer_status.metrics if m.name == name), None)


class ProgressSink(Protocol):
    """Takes reports without ever delaying or failing training: sending happens elsewhere, the newest report wins."""

    def send(self, progress: Progress) -> None: ...

    def close(self) -> None:
        """Deliver what is pending, for a bounded time."""
        ...
