"""The usual way to find wrong labels, and cleanlab's: each row is judged by a model that was trained without it, so a model for each fold.

Each is trained as a run trains, by the same steps of the same recipe, but not evaluated on its way and not saved.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from cleanlab.rank import get_label_quality_scores
from numpy.typing import NDArray
from sklearn.model_selection import StratifiedKFold

from finetune_api.forms import forms_of
from finetune_api.job import FineTuneJobSpec
from finetune_api.tasks import TASKS as FACTS
from finetune_trainer.data import Data, load
from finetune_trainer.engine.levers import quicken
from finetune_trainer.engine.memory import MicroBatch
from finetune_trainer.engine.precision import choose_arithmetic
from finetune_trainer.engine.predict import predict
from finetune_trainer.engine.steps import Steps
from finetune_trainer.tasks import Task, task_class
from finetune_trainer.tasks.label_blocks import matrix
from finetune_trainer.threads import available_threads

FOLDS = 5
SCORES = ("self_confidence", "normalized_margin")
"""Cleanlab's scores of a label, low where it is probably wrong, from probabilities of models that have not seen the row."""


@dataclass
class Judged:
    """What cross-validation says of the training rows."""

    labels: NDArray[np.int64]
    probabilities: NDArray[np.float32]
    """Shape (rows, labels)."""
    seconds: float = 0.0
    """Until they were known: training and predictions."""
    stepping: float = 0.0
    """CPU seconds of the thread that trained."""
    noting: float = 0.0
    """Those of them in which margins were noted."""

    def rankings(self) -> dict[str, NDArray[np.int64]]:
        """All rows by falling suspicion, by the name of the score."""
        scores = {
            name: get_label_quality_scores(self.labels, self.probabilities.astype(np.float64), method=name)
            for name in SCORES
        }
        return {name: np.argsort(values, kind="stable") for name, values in scores.items()}


def judge(spec: FineTuneJobSpec, scratch: Path) -> Judged:
    """The training rows of a run."""
    torch.set_num_threads(available_threads())
    model, data = Path(spec.model.uri.removeprefix("file://")), loaded(spec, scratch)
    labels = data.train.numbers("label").astype(np.int64)
    judged = Judged(labels, np.zeros((len(labels), len(data.names["label"])), np.float32))
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=spec.training.seed)
    for number, (seen, held_out) in enumerate(folds.split(labels, labels)):
        begin = time.perf_counter()
        fold = replace(data, train=data.train.take(seen), validation=data.train.take(held_out))
        transformers.set_seed(spec.training.seed)
        task = task_class(spec.task, data.form)(model, fold, spec)
        folder = scratch / f"fold-{number}"
        folder.mkdir()
        judged.probabilities[held_out] = _said(task, spec, folder, judged)
        judged.seconds += time.perf_counter() - begin
    return judged


def loaded(spec: FineTuneJobSpec, scratch: Path) -> Data:
    """The data of a run."""
    forms = forms_of(FACTS[spec.task], spec)
    seed = spec.training.seed
    return load(spec.dataset, forms, storage=spec.storage, workspace=scratch, seed=seed, stop=lambda: None)


def _said(task: Task, spec: FineTuneJobSpec, folder: Path, judged: Judged) -> NDArray[np.float32]:
    """Train, and return what the model then says of the rows that are held out."""
    training = spec.training
    arithmetic = choose_arithmetic(training.precision)
    train = task.features(task.data.train, training=True, folder=folder, stop=lambda: None)
    quicken(task, train, arithmetic)
    steps = Steps(
        task,
        train,
        training,
        arithmetic=arithmetic,
        micro=MicroBatch.start(training, None, arithmetic.device, task.unit),
        total_steps=training.epochs * math.ceil(len(train.rows) / training.batch_size),
        check=lambda: None,
        after_step=lambda step: False,
    )
    noting = _Clock()
    for name in ("see", "keep"):
        setattr(steps.margins, name, noting.of(getattr(steps.margins, name)))
    stepping = _Clock()
    stepping.of(steps.run)()
    judged.stepping += stepping.seconds
    judged.noting += noting.seconds
    held_out = task.features(task.data.validation, training=False, folder=folder, stop=lambda: None)
    answers = predict(
        task, held_out, arithmetic, lambda: None, seed=training.seed, batch_size=training.batch_size
    ).answers
    return matrix(answers, "probability")


class _Clock:
    """CPU seconds of this thread in the calls of some functions: others' work on the machine does not count."""

    seconds = 0.0

    def of(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*arguments: Any, **named: Any) -> Any:
            begin = time.thread_time()
            found = function(*arguments, **named)
            self.seconds += time.thread_time() - begin
            return found

        return timed
