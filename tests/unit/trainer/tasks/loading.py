"""A task from a folder, and what it makes of texts."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from finetune_api.failures import FailureReason, JobError
from finetune_api.forms import forms_of
from finetune_api.job import FineTuneJobSpec
from finetune_api.tasks import TASKS as TASK_FACTS
from finetune_trainer.data.examples import Examples, Stop
from finetune_trainer.data.loaded import Data
from finetune_trainer.data.survey import Survey
from finetune_trainer.engine.predict import Arithmetic, Predicted, predict
from finetune_trainer.engine.suspected import suspected
from finetune_trainer.report.suspects import Suspect
from finetune_trainer.scores.suspects import Margins
from finetune_trainer.tasks import TASKS, Features, Task, task_class
from tests.unit.trainer.data.folders import load_forms
from tests.unit.trainer.rows import examples

CPU = Arithmetic(torch.device("cpu"), bf16=False)


def never() -> None:
    """No signal to stop."""


def load(folder: Path, labels: Sequence[str] = ("cooking", "sky")) -> Task:
    torch.manual_seed(1)
    return task_for(folder, examples(["Salt.", "Mars."]), labels)


def task_for(folder: Path, train: Examples, labels: Sequence[str], **spec: Any) -> Task:
    """The task of a job with these training examples; the model is drawn on from where torch's generator stands."""
    parsed = FineTuneJobSpec.model_validate(
        {
            "task": "text-classification",
            "model": {"uri": f"file://{folder}"},
            "dataset": {"uri": "file:///data"},
            "output": {"uri": "file:///results"},
            **spec,
        }
    )
    data = Data(
        train=train,
        validation=train,
        test=None,
        form=TASK_FACTS[parsed.task].forms[0],
        names={"label": tuple(labels)},
        warnings=(),
        fingerprint="",
        revision=None,
        survey=Survey((), {}),
        sources=(),
    )
    return TASKS[parsed.task](folder, data, parsed)


def task_of(model: Path, data: Path, dataset: Mapping[str, Any], **spec: Any) -> Task:
    """The task of a job with the data in a folder, read as `dataset` says."""
    parsed = FineTuneJobSpec.model_validate(
        {
            "task": "text-classification",
            "model": {"uri": f"file://{model}"},
            "dataset": {"uri": data.as_uri(), **dataset},
            "output": {"uri": "file:///results"},
            **spec,
        }
    )
    found = load_forms(data, *forms_of(TASK_FACTS[parsed.task], parsed), **dataset)
    torch.manual_seed(1)
    return task_class(parsed.task, found.form)(model, found, parsed)


def refusal(folder: Path, labels: Sequence[str] = ("cooking", "sky")) -> str:
    """What is wrong with the model in a folder; something must be."""
    with pytest.raises(JobError) as error:
        load(folder, labels)
    assert error.value.reason == FailureReason.MODEL_INVALID
    assert error.value.field == "spec.model.uri"
    return str(error.value)


def features_of(task: Task, rows: Examples, length: int | None = None, stop: Stop = never) -> Features:
    """The rows as features of at most so many tokens."""
    training = task.spec.training.model_copy(update={"max_length": length})
    task.spec = task.spec.model_copy(update={"training": training})
    return task.features(rows, training=True, folder=Path(tempfile.gettempdir()), stop=stop)


def encode(task: Task, texts: list[str], pairs: list[str] | None = None, length: int | None = None) -> Features:
    return features_of(task, examples(texts, pairs), length)


def take(features: Features, *indices: int) -> list[dict[str, Any]]:
    """These features."""
    return [dict(features.get(index, np.random.default_rng(index))) for index in indices]


def ask(task: Task, features: Features) -> Predicted:
    """What the model says of them."""
    return predict(task, features, CPU, never, seed=0, batch_size=8)


def suspects_of(task: Task, rows: Examples, features: Features, margins: Margins, folder: Path) -> list[Suspect]:
    """The rows whose label is probably wrong, by what was seen of their features."""
    return suspected(task, rows, features.rows, margins, CPU, never, task.spec.training, folder / "suspects")


def said(task: Task, features: Features) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Probabilities of the labels, shape (features, labels)."""
    return np.array(ask(task, features).answers.column("probability").to_pylist(), dtype=np.float32)


def logits(task: Task, features: Features, *indices: int) -> torch.Tensor:
    """What the model answers to these features as one batch, as its own class gives it."""
    batch = task.collate(take(features, *indices))
    answer: torch.Tensor = task.model(**{name: values for name, values in batch.items() if name != "labels"}).logits
    return answer
