"""What a model is worth on one split: its answers to each example, its metrics, and what these are made of."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from finetune_api.dataset import MeasuredSplit
from finetune_api.training import Training
from finetune_trainer.data.examples import Examples
from finetune_trainer.engine.generate import Tell, generate
from finetune_trainer.engine.predict import Arithmetic, predict
from finetune_trainer.engine.ranks import ALONE, Ranks
from finetune_trainer.scores import Score, mean, values
from finetune_trainer.tasks.base import Features, Task

LOSS, WEIGHT = "loss", "weight"
"""Columns beside the task's own: the summed loss of each example, and what it counts."""


@dataclass
class Split:
    """Examples that are measured."""

    name: MeasuredSplit
    examples: Examples
    features: Features


def answer(
    task: Task,
    split: Split,
    arithmetic: Arithmetic,
    check: Callable[[], None],
    training: Training,
    tell: Tell = lambda done, of: None,
    ranks: Ranks = ALONE,
) -> pa.Table:
    """What the model as it is says of a split, one row an example, with its loss; the same in all ranks. `check` is called now and then and may raise, `tell`
    where the model writes texts."""
    features = split.features
    seed, batch_size = training.seed, training.batch_size
    predicted = predict(task, features, arithmetic, check, seed=seed, batch_size=batch_size, ranks=ranks)
    found = [task.merge(features, predicted.answers)]
    rows = len(split.examples)
    asked = task.asked(split.examples)
    if len(asked):
        assert len(features.rows) == rows, "there is one feature of each example"
        written = generate(task, features, asked, arithmetic, check, tell, seed=seed, ranks=ranks)
        place = np.full(rows, -1)
        place[asked] = np.arange(len(asked))
        found.append(written.take(pa.array(place, mask=place < 0)))  # null where nothing was asked
    sums = {
        LOSS: np.bincount(features.rows, predicted.losses, minlength=rows),
        WEIGHT: np.bincount(features.rows, features.weights, minlength=rows),
    }
    return pa.table({**{name: table.column(name) for table in found for name in table.column_names}, **sums})


def scores(task: Task, split: Split, answers: pa.Table) -> list[Score]:
    """The loss, which comes first, and the task's metrics of what `answer` gave."""
    summed, weights = (answers.column(name).to_numpy() for name in (LOSS, WEIGHT))
    each = np.divide(summed, weights, out=np.zeros_like(summed), where=weights != 0)
    return [mean(LOSS, each, weights), *task.scores(split.examples, answers)]


def defined(found: Sequence[Score]) -> dict[str, float]:
    """What the metrics are, by name, without those that these answers have none of, such as a correlation with what never changes."""
    return {name: value for name, value in values(found).items() if math.isfinite(value)}


def is_worse(value: float, than: float, *, more_is_better: bool) -> bool:
    """Whether one value of a metric is worse than another."""
    return value < than if more_is_better else value > than
