"""What the best model is chosen by."""

from __future__ import annotations

from pathlib import Path

import pytest

from finetune_api.exit_codes import EXIT_CODES, NEVER_RETRIED
from finetune_api.failures import FailureReason, JobError
from finetune_api.job import FineTuneJobSpec
from finetune_trainer.data import Data
from finetune_trainer.tasks import TASKS
from tests.unit.trainer.data.folders import csv, load_from, reviews, written


def data(folder: Path, dev: str, labels: tuple[str, ...] = ("no", "yes")) -> Data:
    written(folder, {"train.csv": reviews(12, labels), "dev.csv": dev})
    return load_from(folder, splits={"validation": "dev.csv"})


def choosing_metric(asked: str | None, found: Data) -> str:
    spec = FineTuneJobSpec.model_validate(
        {
            "task": "text-classification",
            "model": {"uri": "file:///model"},
            "dataset": {"uri": "file:///data"},
            "output": {"uri": "file:///results"},
            "training": {"evaluation": {"metric": asked}},
        }
    )
    return TASKS[spec.task].choose_metric(found, spec)


def test_f1_chooses_for_two_labels_and_macro_f1_for_more(tmp_path: Path) -> None:
    assert choosing_metric(None, data(tmp_path, csv("a,yes"))) == "f1"
    assert choosing_metric(None, data(tmp_path, csv("a,b"), labels=("a", "b", "c"))) == "macro_f1"
    with pytest.raises(JobError, match="two labels, but the data has 3"):
        choosing_metric("f1", data(tmp_path, csv("a,b"), labels=("a", "b", "c")))


@pytest.mark.parametrize("asked", [None, "f1"])
def test_f1_that_is_0_whatever_the_model_says_chooses_nothing(asked: str | None, tmp_path: Path) -> None:
    only_no = data(tmp_path, csv("a,no", "b,no"))
    with pytest.raises(JobError, match='no validation row has the label "yes"') as caught:
        choosing_metric(asked, only_no)
    assert caught.value.reason is FailureReason.LABEL_INVALID
    assert EXIT_CODES[caught.value.reason] in NEVER_RETRIED
    assert "metric to loss" in caught.value.remedy
    assert choosing_metric("loss", only_no) == "loss"
