"""What must survive a lost pod besides weights, optimiser, schedule and random generators."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

STATE_FILE = "state.json"
METRICS_FILE = "metrics.jsonl"


@dataclass
class TrainingState:
    """Where training stands. Saved in every checkpoint, so that an attempt on an empty disk knows as much as the one before."""

    step: int = 0
    """Optimiser steps done."""
    evaluated_step: int = 0
    """The step of the latest evaluation. A checkpoint at an epoch's end may be older than the evaluation that is due there."""
    micro_batch_size: int | None = None
    """As found by trying."""
    window_loss: float = 0.0
    """Sum of the steps' losses since the last row of training."""
    window_steps: int = 0
    best_value: float | None = None
    """Of the metric that the best model is chosen by."""
    best_step: int | None = None
    best_name: str | None = None
    """What the store calls the best model."""
    evaluations_without_gain: int = 0
    stopped_early: bool = False
    train_seconds: float = 0.0
    """Time spent on steps, over all attempts."""
    baseline: dict[str, dict[str, float]] = field(default_factory=dict)
    """Metrics before training, by split."""
    rows: list[dict[str, float]] = field(default_factory=list)
    """The rows of metrics.jsonl."""

    def save(self, folder: Path) -> None:
        values = asdict(self)
        write_rows(folder / METRICS_FILE, values.pop("rows"))
        (folder / STATE_FILE).write_text(json.dumps(values, indent=1))

    @classmethod
    def load(cls, folder: Path) -> TrainingState:
        rows = [json.loads(line) for line in (folder / METRICS_FILE).read_text().splitlines()]
        return cls(**json.loads((folder / STATE_FILE).read_text()), rows=rows)

    def improves(self, value: float, greater_is_better: bool) -> bool:
        if self.best_value is None:
            return True
        return value > self.best_value if greater_is_better else value < self.best_value


def write_rows(file: Path, rows: list[dict[str, float]]) -> None:
    """`rows` as one JSON object a line."""
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
