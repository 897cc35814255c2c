"""What is told of the data before training."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from finetune_trainer.data.examples import Examples, Origins
from finetune_trainer.data.survey import LabelRows, SplitSurvey, lengths, survey


def split_of(*labels: Any, kind: pa.DataType = None, chunk: int = 3) -> Examples:
    """Rows with these labels, in several chunks."""
    kind = kind or pa.int64()
    chunks = [pa.array(labels[begin : begin + chunk], kind) for begin in range(0, len(labels), chunk)]
    rows = len(labels)
    return Examples(
        pa.table({"label": pa.chunked_array(chunks, kind)}),
        Origins(("f",), ("row",), np.zeros(rows, np.int32), np.arange(rows)),
    )


def keys(text: str) -> np.ndarray:
    """A row a letter; equal letters are equal inputs."""
    return np.array([ord(letter) for letter in text], np.uint64)


def test_repeated_contradictory_and_shared_rows_are_counted() -> None:
    found = survey(
        {"train": split_of(0, 1, 0, 0, 1, 1, 0), "validation": split_of(0, 1, 1, 1)},
        {"label": ("no", "yes")},
        {"train": keys("aabbbcd"), "validation": keys("axdx")},
    )
    assert found.splits == (
        # a is there twice and b three times, each with both labels.
        SplitSurvey("train", rows=7, repeated=3, contradictory=5, trained=0),
        SplitSurvey("validation", rows=4, repeated=1, contradictory=0, trained=2),
    )
    assert found.labels == {
        "label": (LabelRows("no", {"train": 4, "validation": 1}), LabelRows("yes", {"train": 3, "validation": 3}))
    }


def test_counts_are_those_of_looking_at_each_pair_of_rows() -> None:
    random = np.random.default_rng(7)
    for _ in range(50):
        inputs, labels = random.integers(0, 8, 12), random.integers(0, 3, 12)
        (found,) = survey(
            {"train": split_of(*labels.tolist())}, {"label": "abc"}, {"train": inputs.astype(np.uint64)}
        ).splits
        same = [pair for pair in combinations(range(12), 2) if inputs[pair[0]] == inputs[pair[1]]]
        assert found.repeated == len({second for _, second in same})
        assert found.contradictory == len({row for pair in same if labels[pair[0]] != labels[pair[1]] for row in pair})


def test_rows_with_several_labels_count_for_each_of_them_once_and_contradict_where_any_differs() -> None:
    rows = split_of([0, 2], [], [2, 2, 2], [2], kind=pa.list_(pa.int64()), chunk=2)
    found = survey({"train": rows}, {"label": "xyz"}, {"train": keys("ppqr")})
    assert [label.rows["train"] for label in found.labels["label"]] == [1, 0, 3]
    assert found.splits[0].contradictory == 2


def test_data_without_labels_has_no_balance_and_no_contradictions() -> None:
    found = survey({"train": split_of(1, 2)}, {}, {"train": keys("aa")})
    assert found.labels == {}
    assert (found.splits[0].repeated, found.splits[0].contradictory) == (1, 0)


def test_labels_with_hardly_any_row_are_few_and_the_rarest_lead() -> None:
    labels = [0] * 12 + [1] * 9 + [2] * 2
    found = survey(
        {"train": split_of(*labels)}, {"label": ("many", "nine", "two")}, {"train": np.arange(23, dtype=np.uint64)}
    )
    assert [(label.label, label.rows["train"]) for label in found.few("label")] == [("two", 2), ("nine", 9)]


@pytest.mark.parametrize("rows", [1, 3, 100, 101])
def test_a_percentile_is_a_length_that_is_there_and_that_so_many_do_not_exceed(rows: int) -> None:
    costs = np.random.default_rng(7).integers(1, 200, rows)
    at = lengths("train", "tokens", costs, ()).percentiles
    assert at[100] == costs.max()
    for share, length in at.items():
        assert length in costs
        assert (costs <= length).mean() >= share / 100 > (costs < length).mean()


def test_the_log_has_a_line_of_it() -> None:
    found = survey(
        {"train": split_of(0, 0, 1), "validation": split_of(0)},
        {"label": ("no", "yes")},
        {"train": keys("aab"), "validation": keys("b")},
    )
    found = replace(found, lengths=(lengths("train", "tokens", np.array([7, 9, 1200]), ()),))
    assert str(found) == (
        "rows: train 3, validation 1; repeated: train 1; with the inputs of training rows: validation 1; "
        "label: 2 names with 1 to 2 training rows, 2 of them with fewer than 10; "
        "tokens: at most 9 in half of the train rows, 1,200 in 99 of 100, 1,200 in all"
    )


def test_labels_of_equally_many_rows_have_so_many_each() -> None:
    found = survey({"train": split_of(0, 1)}, {"label": ("no", "yes")}, {"train": keys("ab")})
    assert "label: 2 names with 1 training row each" in str(found)


def test_a_result_has_the_same_and_not_of_every_label() -> None:
    found = survey(
        {"train": split_of(*range(1000))},
        {"label": list(map(str, range(1000)))},
        {"train": np.arange(1000, dtype=np.uint64)},
    )
    found = replace(found, lengths=(lengths("train", "tokens", np.array([7, 9]), ("2 examples cut",)),))
    said = found.result().wire()
    assert said["splits"] == [{"split": "train", "rows": 1000, "repeated": 0, "contradictory": 0, "trained": 0}]
    assert said["labels"] == [{"label": str(n), "rows": 1} for n in range(200)]
    assert said["lengths"] == [
        {
            "split": "train",
            "unit": "tokens",
            "percentiles": {"50": 7, "90": 9, "99": 9, "100": 9},
            "notes": ["2 examples cut"],
        }
    ]
