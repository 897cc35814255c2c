"""What must survive a lost pod besides weights, optimiser, schedule and random generators."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, TypeAdapter, ValidationError

from finetune_trainer.store.checkpoints import Checkpoint

METRICS_FILE = "metrics.jsonl"
FORMAT = 3
"""Of the facts and files in a checkpoint: another whenever the code of before could not go on from them."""
IN_PARTS = 4
"""The same, but that each rank saved a part."""
READABLE = (1, 2, FORMAT, IN_PARTS)
"""Those that this code goes on from. Until 2 all weights were there, also those that never move; 1 had a file more, with what
transformers' Trainer says of itself."""
LATER = ("packed", "activation_checkpointing", "precision")
"""Facts that not all of these have: without them it was as their defaults say."""


def _nan_for_null(value: Any) -> Any:
    return math.nan if value is None else value


Number = Annotated[float, BeforeValidator(_nan_for_null)]
"""JSON has no word for what is no number: it is written as null."""


@dataclass
class TrainingState:
    """Where training stands. Saved in every checkpoint, so that an attempt on an empty disk knows as much as the one before."""

    __pydantic_config__ = ConfigDict(extra="forbid", strict=True)

    step: int = 0
    """Optimiser steps done."""
    evaluated_step: int = 0
    """The step of the latest evaluation. A checkpoint at an epoch's end may be older than the evaluation that is due there."""
    micro_batch_size: int | None = None
    """Examples in one forward pass, at most, as found by trying."""
    activation_checkpointing: bool = False
    """Whether activations are computed again in the backward pass, as asked for or found by trying."""
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
    baseline: dict[str, dict[str, Number]] = field(default_factory=dict)
    """Metrics before training, by split."""
    rows: list[dict[str, float]] = field(default_factory=list)
    """The rows of metrics.jsonl."""
    data_fingerprint: str | None = None
    """Of the data and the model that the steps were done with."""
    precision: Literal["fp32", "bf16"] | None = None
    """In which the steps were computed; None where the version that did them did not say."""
    packed: bool = False
    """Whether the steps were of packed examples. Said only where they were: earlier versions know none, and could not go on from them."""

    def facts(self) -> dict[str, Any]:
        """All but the rows, as JSON values."""
        values = asdict(self)
        del values["rows"]
        if not self.packed:
            del values["packed"]
        return values

    @classmethod
    def of(cls, checkpoint: Checkpoint, folder: Path) -> TrainingState:
        """The state of a checkpoint: its facts, and its rows from its `folder`.

        Raises ValueError, whose text is the end of a sentence about the checkpoint, when that is none to go on from.
        """
        if checkpoint.format not in READABLE:
            raise ValueError(
                f"is of format {checkpoint.format}, this trainer goes on from formats {READABLE[0]} to {FORMAT}"
            )
        missing = [f.name for f in fields(cls) if f.name not in ("rows", *LATER, *checkpoint.facts)]
        if missing:
            raise ValueError(f"does not say its {missing[0]}")
        try:
            state = _STATE.validate_json(json.dumps(checkpoint.facts))
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            raise ValueError(f"says no {'.'.join(map(str, first['loc']))} that can be: {first['msg']}") from None
        best_step = int(checkpoint.best.split("-")[1]) if checkpoint.best else None
        if (state.step, state.best_step) != (checkpoint.step, best_step):
            raise ValueError("contradicts itself about its step or that of its best model")
        try:
            state.rows = [json.loads(line) for line in (folder / METRICS_FILE).read_text().splitlines()]
        except (OSError, ValueError):
            raise ValueError(f"has no {METRICS_FILE} that can be read") from None
        return state

    def improves(self, value: float, greater_is_better: bool) -> bool:
        """Whether `value` is better than the best so far; one that is no number is better than none at all."""
        if self.best_value is None or math.isnan(self.best_value):
            return self.best_step is None or not math.isnan(value)
        return value > self.best_value if greater_is_better else value < self.best_value


def dump_rows(rows: list[dict[str, float]]) -> bytes:
    """`rows` as one JSON object a line."""
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


_STATE = TypeAdapter(TrainingState)
