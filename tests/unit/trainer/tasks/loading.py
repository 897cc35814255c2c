"""A task from a folder, and what it says of texts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from finetune_api.failures import FailureReason, JobError
from finetune_trainer.tasks import TASKS, Encoded, Task
from tests.unit.trainer.rows import examples


def load(folder: Path, labels: Sequence[str] = ("cooking", "sky")) -> Task:
    torch.manual_seed(1)
    return TASKS["text-classification"](folder, list(labels), trust_remote_code=False)


def refusal(folder: Path, labels: Sequence[str] = ("cooking", "sky")) -> str:
    """What is wrong with the model in a folder; something must be."""
    with pytest.raises(JobError) as error:
        load(folder, labels)
    assert error.value.reason == FailureReason.MODEL_INVALID
    assert error.value.field == "spec.model.uri"
    return str(error.value)


def encode(task: Task, texts: list[str], pairs: list[str] | None = None) -> Encoded:
    return task.encode(examples(texts, pairs), task.max_length(None), lambda: None)
