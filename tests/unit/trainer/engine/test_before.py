"""What the model said before training comes back from a checkpoint as it was, also from those of earlier versions."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from finetune_trainer.engine.before import read_before, write_before
from finetune_trainer.engine.measure import LOSS, WEIGHT, Split
from finetune_trainer.tasks.label_blocks import matrix
from tests.unit.trainer.rows import examples

PROBABILITIES = np.array([[0.25, 0.75], [0.5, 0.5], [1.0, 0.0]], dtype=np.float32)


def split(name="validation"):
    return Split(name, examples(["a", "b", "c"], labels=np.array([1, 0, 1])), features=None)


def test_answers_of_every_shape_come_back(tmp_path):
    answers = pa.table(
        {
            "probability": pa.FixedSizeListArray.from_arrays(pa.array(PROBABILITIES.ravel()), 2),
            "said": [["x"], [], ["y", "z"]],
            LOSS: [0.1, float("nan"), 2.0],
        }
    )
    write_before(tmp_path, "validation", answers)
    write_before(tmp_path, "test", answers.slice(0, 1))

    found = read_before(tmp_path, split())

    assert found.schema == answers.schema and found.num_rows == 3
    assert found.drop_columns([LOSS]).equals(answers.drop_columns([LOSS]))
    assert read_before(tmp_path, split("test")).num_rows == 1


def test_the_probabilities_of_earlier_versions_are_answers_with_their_loss(tmp_path):
    np.savez(tmp_path / "baseline.npz", validation=PROBABILITIES)

    found = read_before(tmp_path, split())

    np.testing.assert_array_equal(matrix(found, "probability"), PROBABILITIES)
    smallest = -np.log(np.finfo(np.float32).tiny)
    assert found.column(LOSS).to_pylist() == pytest.approx([-np.log(0.75), -np.log(0.5), smallest])
    assert found.column(WEIGHT).to_pylist() == [1, 1, 1]
