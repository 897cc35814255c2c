"""What must survive a lost pod besides weights, optimiser, schedule and random generators."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

METRICS_FILE = "metrics.jsonl"


@dataclass
class TrainingState:
    """Where training stands. Saved in every checkpoint, so that an attempt on an empty disk knows as much as the one before."""

    step: int = 0
    """Optimiser steps done."""
    evaluated_step: int = 0
    """The step of the latest evaluation. A checkpoint at an epoch's end may be older than the evaluation that is due there."""
    micro_batch_size: int | None = None
    """Examples in one forward pass, at most, as found by trying."""
    window_loss: float = 0.0
    """Sum of the steps' losses since the last row of training."""
    window_steps: int = 0
    best_value: float | None = None
    """Of the metric that the best model is chosen by."""
    best_step: int | None = None
    """The step that the best model comes from."""
    evaluations_without_gain: int = 0
    stopped_early: bool = False
    train_seconds: float = 0.0
    """Time spent on steps, over all attempts."""
    baseline: dict[str, dict[str, float]] = field(default_factory=dict)
    """Metrics before training, by split."""
    rows: list[dict[str, float]] = field(default_factory=list)
    """The rows of metrics.jsonl."""
    data_fingerprint: str | None = None
    """Of the data and the model that the steps were done with."""

    def facts(self) -> dict[str, Any]:
        """All but the rows, as JSON values."""
        values = asdict(self)
        del values["rows"]
        return values

    @classmethod
    def of(cls, facts: dict[str, Any], folder: Path) -> TrainingState:
        """The state of a checkpoint: its facts, and its rows from its `folder`."""
        rows = [json.loads(line) for line in (folder / METRICS_FILE).read_text().splitlines()]
        return cls(**facts, rows=rows)

    def improves(self, value: float, greater_is_better: bool) -> bool:
        if self.best_value is None:
            return True
        return value > self.best_value if greater_is_better else value < self.best_value


def dump_rows(rows: list[dict[str, float]]) -> bytes:
    """`rows` as one JSON object a line."""
    return "".join(json.dumps(row) + "\n" for row in rows).encode()
