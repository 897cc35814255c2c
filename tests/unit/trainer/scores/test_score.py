"""Sums over examples."""

from __future__ import annotations

import numpy as np
import pytest

from finetune_trainer.scores import Sparse, mean, ratio
from finetune_trainer.scores.score import total


@pytest.mark.parametrize("entries", [0, 1, 500])
def test_sparse_sums_are_those_of_the_matrix_that_they_stand_for(entries: int) -> None:
    random = np.random.default_rng(entries)
    rows, columns = random.integers(0, 30, entries), random.integers(0, 7, entries)
    matrix = np.zeros((30, 9))  # the last two columns have no entry
    np.add.at(matrix, (rows, columns), 1)
    counts = random.integers(0, 4, size=(11, 30)).astype(np.float64)
    np.testing.assert_allclose(total(Sparse(rows, columns, (30, 9)), counts), counts @ matrix)


def test_a_mean_is_weighted_and_undefined_where_nothing_weighs() -> None:
    assert mean("loss", [1.0, 4.0]).result == 2.5
    assert mean("loss", [1.0, 4.0], [3, 1]).result == 1.75
    assert mean("accuracy", [True, False, False, True]).result == 0.5
    assert np.isnan(mean("loss", [1.0], [0]).result)


def test_a_ratio_says_what_nothing_of_nothing_is() -> None:
    np.testing.assert_array_equal(ratio([1, 1, 0], [2, 0, 0]), [0.5, 0, 0])
    np.testing.assert_array_equal(ratio([[1, 0]], 0, undefined=np.nan), [[np.nan, np.nan]])
