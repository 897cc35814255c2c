"""What `make demo TASK=…` runs, and the pictures of its reports."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from PIL import Image

from docs.images.record import MAX_PICTURE
from examples.demo import DEMOS, EXAMPLES, main
from examples.demos import catalogue, letters, notices, reviews, shapes
from finetune_api.generate import REPOSITORY
from finetune_api.manifest import load
from finetune_api.task_pages import picture_of
from finetune_api.tasks import TASKS
from tests.unit.examples.manifests import generated_once

MADE_TEXTS = {module.__name__: module.make for module in (catalogue, letters, notices, reviews)}


def test_each_task_has_a_demo_and_its_manifest_is_of_that_task() -> None:
    assert set(DEMOS) == set(TASKS)
    assert {name: load(EXAMPLES / demo.manifest)[0]["spec"]["task"] for name, demo in DEMOS.items()} == {
        name: name for name in DEMOS
    }


def test_a_task_that_is_none_is_answered_with_those_that_there_are() -> None:
    with pytest.raises(SystemExit) as refused:
        main("image-clasification")
    said = str(refused.value)
    assert "There is no demo of image-clasification." in said
    assert [line.strip() for line in said.splitlines()[1:]] == list(DEMOS)


@pytest.mark.parametrize("make", MADE_TEXTS.values(), ids=MADE_TEXTS)
def test_made_texts_are_the_same_each_time_and_no_held_out_row_is_trained_on(make, tmp_path: Path) -> None:
    make(tmp_path / "first")
    make(tmp_path / "second")
    first, second = (
        {file.name: file.read_bytes() for file in (tmp_path / name).rglob("*.*")} for name in ("first", "second")
    )
    assert first == second
    rows = {file.stem: rows_of(file) for file in (tmp_path / "first").rglob("*.*")}
    assert rows.keys() == {"train", "validation", "test"}
    assert all(len(set(own)) == len(own) >= 100 for own in rows.values())
    assert not set(rows["train"]) & {*rows["validation"], *rows["test"]}
    assert not set(rows["validation"]) & set(rows["test"])


def rows_of(file: Path) -> list[str]:
    """What a model is given of each row."""
    if file.suffix == ".csv":
        return [row["text"] for row in csv.DictReader(file.open())]
    found = [json.loads(line) for line in file.read_text().splitlines()]
    return [" ".join(row["tokens"]) if "tokens" in row else f"{row['question']} {row['context']}" for row in found]


def test_answers_stand_where_the_notices_say(tmp_path: Path) -> None:
    notices.make(tmp_path)
    rows = [json.loads(line) for line in (tmp_path / "notices/test.jsonl").read_text().splitlines()]
    without = 0
    for row in rows:
        texts, starts = row["answers"]["text"], row["answers"]["answer_start"]
        assert all(row["context"][start:].startswith(text) for text, start in zip(texts, starts, strict=True))
        without += not texts
    assert 0.1 < without / len(rows) < 0.3


def test_shapes_differ_and_are_drawn_alike_each_time() -> None:
    import random

    def picture(shape: str) -> bytes:
        return shapes.drawn(shape, (255, 0, 0), (0, 0, 0), (0.5, 0.5), 0.3, 0.0, random.Random(1)).tobytes()

    pictures = {shape: picture(shape) for shape in shapes.SHAPES}
    assert pictures == {shape: picture(shape) for shape in shapes.SHAPES}
    assert len({*pictures.values()}) == len(shapes.SHAPES)


@pytest.mark.parametrize("task", TASKS.values(), ids=lambda task: task.name)
def test_the_page_of_a_task_shows_a_small_picture_of_its_report(task) -> None:
    file = REPOSITORY / picture_of(task)
    assert f"](../../{picture_of(task)})" in generated_once()[f"docs/tasks/{task.name}.md"]
    assert file.stat().st_size <= MAX_PICTURE
    with Image.open(file) as picture:
        assert picture.width >= 900 and picture.height >= 500
