"""Validation rows that cannot tell one model from another by recall, whatever the task finds."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from finetune_api.failures import FailureReason, JobError
from finetune_api.forms import forms_of
from finetune_api.job import FineTuneJobSpec
from finetune_api.tasks import TASKS as FACTS
from finetune_trainer.scores import values
from finetune_trainer.scores.ranking import most_wrong, recalls
from finetune_trainer.tasks import task_class
from tests.unit.trainer.data.folders import load_forms, written


def pairs(count: int, partner: str = "that {}", **more: str) -> list[dict[str, str]]:
    return [
        {"text": f"this {n}", "textPair": partner.format(n), **{k: v.format(n) for k, v in more.items()}}
        for n in range(count)
    ]


def pictures(count: int, **more: str) -> list[dict[str, str]]:
    return [{"image": f"{n}.png", **{k: v.format(n) for k, v in more.items()}} for n in range(count)]


def chosen(folder: Path, task: str, dev: Sequence[dict[str, str]], metric: str | None) -> str:
    train = pictures(12, text="a {}") if "text" in dev[0] and "image" in dev[0] else pairs(12, **_more(dev[0]))
    if "label" in dev[0]:
        train = pictures(12, label="a {}")
    lines = {"train.jsonl": train, "dev.jsonl": dev}
    written(folder, {name: "".join(json.dumps(row) + "\n" for row in rows) for name, rows in lines.items()})
    if "image" in dev[0]:
        for n in range(12):
            file = io.BytesIO()
            Image.fromarray(np.full((8, 8, 3), n, np.uint8)).save(file, "PNG")
            (folder / f"{n}.png").write_bytes(file.getvalue())
    dataset = {"splits": {"train": "train.jsonl", "validation": "dev.jsonl"}}
    spec = FineTuneJobSpec.model_validate(
        {
            "task": task,
            "model": {"uri": "file:///model"},
            "dataset": {"uri": folder.as_uri(), **dataset},
            "output": {"uri": "file:///results"},
            "training": {"evaluation": {"metric": metric}},
        }
    )
    data = load_forms(folder, *forms_of(FACTS[task], spec), **dataset)
    return task_class(task, data.form).choose_metric(data, spec)


def _more(row: dict[str, str]) -> dict[str, Any]:
    return {"negative": "no {}"} if "negative" in row else {}


TEXTS, IMAGES = "sentence-similarity", "zero-shot-image-classification"


@pytest.mark.parametrize(
    ("task", "dev", "metric", "wrong"),
    [
        (TEXTS, pairs(1), None, 0),
        (TEXTS, pairs(1), "loss", 0),
        (TEXTS, pairs(9, partner="the same"), None, 0),
        (TEXTS, pairs(5), "recall_at_5", 4),
        (TEXTS, pairs(1, negative="that 0"), None, 0),
        (TEXTS, pairs(1, negative="this 0"), None, 0),
        (IMAGES, pictures(1, text="a {}"), None, 0),
        (IMAGES, pictures(9, text="a thing"), None, 0),
        (IMAGES, pictures(5, text="a {}"), "recall_at_5", 4),
        (IMAGES, pictures(9, label="a 1"), "loss", 0),
    ],
)
def test_what_cannot_but_be_found_chooses_no_model(
    task: str, dev: list[dict[str, str]], metric: str | None, wrong: int, tmp_path: Path
) -> None:
    with pytest.raises(JobError, match=f"from {wrong} others at most, so their {metric or 'recall_at_1'}") as caught:
        chosen(tmp_path, task, dev, metric)
    assert (caught.value.reason, caught.value.field) == (FailureReason.DATA_INVALID, "spec.training.evaluation.metric")
    assert ("set spec.training.evaluation.metric to recall_at_1" in caught.value.remedy) == (wrong > 0)


@pytest.mark.parametrize(
    ("task", "dev", "metric"),
    [
        (TEXTS, pairs(2), None),
        (TEXTS, pairs(6), "recall_at_5"),
        (TEXTS, pairs(1, negative="no {}"), None),
        (TEXTS, pairs(2), "loss"),
        (IMAGES, pictures(2, text="a {}"), None),
        (IMAGES, pictures(6, text="a {}"), "recall_at_5"),
        (IMAGES, pictures(9, label="a 1"), None),
    ],
)
def test_what_may_be_missed_chooses_one(
    task: str, dev: list[dict[str, str]], metric: str | None, tmp_path: Path
) -> None:
    found = chosen(tmp_path, task, dev, metric)
    assert found == (metric or ("zero_shot_accuracy" if "label" in dev[0] else "recall_at_1"))


def test_so_many_wrong_answers_are_what_recall_can_lose_by() -> None:
    """At k it is below 1 for vectors that are all the same, which puts every wrong answer first, exactly where there are k of them."""
    draw = np.random.default_rng(0)
    for count in range(1, 8):
        same = np.ones((count, 2)) / np.sqrt(2)
        left, right = draw.integers(0, 4, (2, count))
        wrong = most_wrong(left, right, alike=True)
        scores = values(recalls(same, same, left, right, both_ways=False, at=range(1, 9), alike=True))
        assert [scores[f"recall_at_{k}"] < 1 for k in range(1, 9)] == [wrong >= k for k in range(1, 9)]
