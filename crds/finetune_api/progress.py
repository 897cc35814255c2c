"""Progress: what a running trainer says about itself.

Wire-compatible with the client that transformers ships for Kubeflow's progress endpoint (`KubeflowCallback`): the
`trainerStatus` object is theirs, steps, epochs and rates travel as named metrics, and metric values are strings. `phase` and
`message` beside it are ours; a server that does not know them ignores them.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Protocol, Self

from pydantic import AwareDatetime, Field

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


class NamedMetric(Contract):
    name: str
    value: str


class TrainerStatus(Contract):
    progress_percentage: int | None = Field(default=None, ge=0, le=100)
    estimated_remaining_seconds: int | None = Field(default=None, ge=0)
    metrics: list[NamedMetric] = []
    last_updated_time: AwareDatetime


class Progress(Contract):
    """One report. Named metrics in use: `step`, `total_steps`, `epoch`, `total_epochs`, `loss`, `learning_rate`,
    `samples_per_second`, `checkpoint_step`, and `eval_<metric>` after each evaluation, that which the best model is chosen by
    before the others."""

    trainer_status: TrainerStatus
    phase: TrainerPhase
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

    def metric(self, name: str) -> float | None:
        """The value of a named metric, or None when this report has none of that name."""
        return next((float(m.value) for m in self.trainer_status.metrics if m.name == name), None)


class ProgressSink(Protocol):
    """Takes reports without ever delaying or failing training: sending happens elsewhere, the newest report wins."""

    def send(self, progress: Progress) -> None: ...

    def close(self) -> None:
        """Deliver what is pending, for a bounded time."""
        ...
