"""Files that are called like a split which the spec leaves out are not passed over in silence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.unit.trainer.data.folders import csv, load_from, reviews, written


@pytest.mark.parametrize(
    ("name", "spec", "split"),
    [
        ("validation.csv", {}, "validation"),
        ("val/part-1.csv", {}, "validation"),
        ("dev.tsv", {}, "validation"),
        ("Test.csv", {}, "test"),
        ("test.csv", {"splits": {"validation": "dev.csv"}}, "test"),
    ],
)
def test_a_file_that_is_called_like_a_split_which_is_not_named_is_told(
    name: str, spec: dict[str, Any], split: str, tmp_path: Path
) -> None:
    dev = {"dev.csv": reviews(4)} if spec else {}
    written(tmp_path, {"train.csv": reviews(20), name: reviews(6), **dev})
    told = [line for line in load_from(tmp_path, **spec).warnings if "No split has" in line]
    assert told == [f"No split has {name}: name them in spec.dataset.splits.{split} if they are for {split}."]


@pytest.mark.parametrize(
    ("name", "spec"),
    [
        ("test.csv", {"splits": {"test": "test.csv"}}),
        ("test.csv", {"splits": {"train": "t*.csv"}}),
        ("test.md", {}),
        ("extra.csv", {}),
        ("validation.csv", {"splits": {"validation": "train-2.csv", "train": "train-1.csv"}}),
    ],
)
def test_files_that_a_split_has_or_that_are_no_examples_are_not_told(
    name: str, spec: dict[str, Any], tmp_path: Path
) -> None:
    rows = {"train-1.csv": reviews(20), "train-2.csv": reviews(6)}
    assert not [
        line for line in load_from(written(tmp_path, {**rows, name: reviews(6)}), **spec).warnings if "No split" in line
    ]


def test_lines_of_plain_text_are_read_as_the_message_about_them_says(tmp_path: Path) -> None:
    written(tmp_path, {"train.txt": "".join(f'text {n}, "quoted\n' for n in range(20))})
    data = load_from(tmp_path, task="fill-mask", format="tsv", csv={"columnNames": ["text"]}, validationFraction=0.1)
    assert 'text 0, "quoted' in {*data.train.values("text"), *data.validation.values("text")}


def test_a_folder_that_is_named_stands_for_all_that_is_in_it(tmp_path: Path) -> None:
    files = {f"{part}/{n}.csv": csv(f"{part} {n},a", f"{n} of {part},b") for part in ("train", "val") for n in range(3)}
    data = load_from(written(tmp_path, files), splits={"train": "train/", "validation": "val/"})
    assert (len(data.train), len(data.validation)) == (6, 6)
