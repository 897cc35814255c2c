"""A run that ends well with a model that is worse than before: it says so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from finetune_trainer.engine.measure import is_worse
from tests.training.attempts import Job
from tests.training.inside import complete_inside
from tests.training.tiny import VALIDATION, tiny_inputs

OTHER = {"cooking": "sky", "sky": "cooking"}


@pytest.mark.parametrize("worse", [True, False])
def test_a_best_model_that_is_worse_than_before_is_told(worse: bool, tmp_path: Path) -> None:
    """What is learnt is the opposite of what the validation rows say."""
    rows = [(text, OTHER[label] if worse else label) for text, label in VALIDATION]
    training: dict[str, Any] = {"epochs": 4, "batchSize": 8, "learningRate": 1e-2, "precision": "fp32"}
    training["evaluation"] = {"metric": "loss"}
    ended = complete_inside(Job(tmp_path / "job", **tiny_inputs(tmp_path, validation=rows), training=training))

    [found] = [one for one in ended.result.metrics if one.name == "loss"]
    assert found.baseline is not None
    assert (found.value > found.baseline) == worse
    said = "worse than before training by the loss of the validation examples"
    assert [said in line for line in ended.log.splitlines()].count(True) == worse


@pytest.mark.parametrize(
    ("value", "than", "more_is_better", "worse"),
    [(0.4, 0.5, True, True), (0.5, 0.5, True, False), (0.6, 0.5, True, False), (0.4, 0.5, False, False), (0.5, 0.5, False, False), (0.6, 0.5, False, True)],
)  # fmt: skip
def test_what_is_worse_depends_on_the_metric(value: float, than: float, more_is_better: bool, worse: bool) -> None:
    assert is_worse(value, than, more_is_better=more_is_better) == worse
