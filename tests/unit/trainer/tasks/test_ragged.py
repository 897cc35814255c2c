"""Features on disk: of any length, of any number, and gone with the process."""

from __future__ import annotations

import mmap

import numpy as np

from finetune_trainer.tasks import ragged
from finetune_trainer.tasks.ragged import OnDisk, Ragged


def written(folder, rows, block):
    file = OnDisk(folder)
    for begin in range(0, len(rows), block):
        file.add(rows[begin : begin + block])
    return file.mapped()


def test_values_come_back_in_order_whatever_the_blocks(tmp_path):
    rows = [list(range(length)) for length in (3, 1, 7, 2, 5)]
    for block in (1, 2, 5):
        assert written(tmp_path, rows, block).tolist() == [value for row in rows for value in row]


def test_they_are_mapped_and_leave_no_file_behind(tmp_path):
    values = written(tmp_path, [[1, 2, 3]] * 1000, 100)

    assert list(tmp_path.iterdir()) == []
    base = values
    while isinstance(base, np.ndarray):
        base = base.base
    assert isinstance(base, mmap.mmap), "they are in memory"


def test_a_feature_is_its_part_of_each_array(tmp_path):
    features = Ragged(
        along={"input_ids": written(tmp_path, [[5, 6, 7], [8]], 1), "words": np.array([0, 0, 1, 0], np.int32)},
        starts=np.array([0, 3, 4]),
        fixed={"labels": np.array([1, 0])},
        weights=np.array([2.0, 1.0]),
        rows=np.array([0, 1]),
    )

    first, second = (features.get(index, np.random.default_rng(0)) for index in (0, 1))

    assert {name: np.asarray(values).tolist() for name, values in first.items()} == {
        "input_ids": [5, 6, 7],
        "words": [0, 0, 1],
        "labels": 1,
    }
    assert second["input_ids"].tolist() == [8]
    assert features.costs.tolist() == [3, 1]


def test_nothing_is_nothing(tmp_path):
    assert written(tmp_path, [], 1).tolist() == []
    assert written(tmp_path, [[], []], 1).tolist() == []


def test_different_values_are_found_in_parts(monkeypatch):
    monkeypatch.setattr(ragged, "AT_ONCE", 3)
    values = np.array([7, 0, 7, 3, 3, 9, 0], np.int32)
    features = Ragged({"input_ids": values}, np.array([0, 4, 7]), {}, np.ones(2), np.arange(2))

    assert features.distinct("input_ids").tolist() == [0, 3, 7, 9]
