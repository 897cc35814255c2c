"""Scores of numbers are those of scipy and scikit-learn."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from finetune_trainer.scores import paired_intervals, values
from finetune_trainer.scores.regression import pearson, ranks, regression_scores


def theirs(truth: Any, said: Any) -> dict[str, float]:
    from scipy.stats import pearsonr, spearmanr
    from sklearn.metrics import root_mean_squared_error

    return {
        "pearson": float(pearsonr(truth, said).statistic),
        "spearman": float(spearmanr(truth, said).statistic),
        "rmse": float(root_mean_squared_error(truth, said)),
    }


@pytest.mark.parametrize("rows", [2, 3, 10, 1000])
@pytest.mark.parametrize("offset", [0.0, 1e6, -3e8])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e6])
def test_any_numbers_score_as_with_scipy(rows: int, offset: float, scale: float) -> None:
    random = np.random.default_rng(rows)
    truth = np.round(random.normal(size=rows) * 3) * scale + np.arange(rows) % 2 + offset  # with ties
    said = truth + random.normal(size=rows) * scale
    assert values(regression_scores(truth, said)) == pytest.approx(theirs(truth, said), rel=1e-6, abs=1e-6)


def test_an_offset_of_a_million_costs_no_digits() -> None:
    from scipy.stats import pearsonr

    random = np.random.default_rng(1)
    x, y = random.normal(size=(2, 1000))
    assert pearson(x + 1e6, x + y + 1e6).result == pytest.approx(pearsonr(x, x + y).statistic, abs=1e-8)


def test_predictions_in_fp32_are_scored_in_fp64() -> None:
    random = np.random.default_rng(2)
    truth = random.uniform(0, 5, 1500)
    said = (truth + random.normal(size=1500)).astype(np.float32)
    assert values(regression_scores(truth, said)) == pytest.approx(theirs(truth, said.astype(np.float64)), abs=1e-9)


@pytest.mark.parametrize("same", [0.0, 0.1, -7e7])
@pytest.mark.parametrize("rows", [1, 2, 7, 1000])
def test_numbers_that_are_all_the_same_correlate_with_nothing(same: float, rows: int) -> None:
    other = np.arange(rows) * 0.3
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for truth, said in ((np.full(rows, same), other), (other, np.full(rows, same))):
            found = values(regression_scores(truth, said))
            assert (found["pearson"], found["spearman"]) == (0.0, 0.0)


def test_nothing_is_undefined_and_no_number_makes_no_number() -> None:
    nothing = values(regression_scores(np.array([]), np.array([])))
    assert (nothing["pearson"], nothing["spearman"]) == (0.0, 0.0)
    assert np.isnan(nothing["rmse"])
    broken = values(regression_scores(np.array([1.0, 2.0, 3.0]), np.array([1.0, np.nan, 3.0])))
    assert np.isnan(list(broken.values())).all()


@pytest.mark.parametrize("numbers", [[3.0], [1, 1, 1], [2, 1, 2, 0, 2], [0.5, -1, 7, 7]])
def test_ranks_are_those_of_scipy(numbers: list[float]) -> None:
    from scipy.stats import rankdata

    np.testing.assert_array_equal(ranks(np.array(numbers)), rankdata(numbers))


@pytest.mark.slow
def test_the_intervals_are_those_of_scipys_paired_bootstrap() -> None:
    from scipy.stats import bootstrap, rankdata

    random = np.random.default_rng(5)
    truth = random.integers(0, 6, 150) / 1.0
    old, new = truth + random.normal(size=150) * 4, truth + random.normal(size=150)
    ours = paired_intervals(regression_scores(truth, old), regression_scores(truth, new), 1)

    def difference(of: Any, index: NDArray[np.int64]) -> float:
        return float(of(truth[index], new[index]) - of(truth[index], old[index]))

    def r(x: Any, y: Any) -> float:
        return float(np.corrcoef(x, y)[0, 1])

    measures = {
        "pearson": r,
        "spearman": lambda x, y: r(rankdata(x), rankdata(y)),  # of the resample's own ranks
        "rmse": lambda x, y: np.sqrt(np.mean((x - y) ** 2)),
    }
    for name, of in measures.items():
        theirs = bootstrap(
            (np.arange(150),),
            lambda index, of=of: difference(of, index),
            method="percentile", n_resamples=1500, vectorized=False, rng=3,
        ).confidence_interval  # fmt: skip
        width = theirs.high - theirs.low
        assert ours[name].low == pytest.approx(theirs.low, abs=0.1 * width), name
        assert ours[name].high == pytest.approx(theirs.high, abs=0.1 * width), name


@pytest.mark.parametrize("value", [2.3384343, -7.5, 1e-6, 1e6])
def test_what_a_model_says_that_differs_in_last_bits_only_correlates_with_nothing(value: float) -> None:
    """As of one that says the same to everything: which of its sums is rounded up depends on the batch."""
    truth = np.linspace(0, 5, 50)
    said = np.full(50, value, np.float32)
    said[25:] = np.nextafter(said[25:], np.float32(np.inf))
    assert [score.result for score in regression_scores(truth, said)[:2]] == [0, 0]
    assert all(score.result > 0.5 for score in regression_scores(truth, said.astype(np.float64))[:2])
    told_apart = (value * (1 + 1e-5 * truth)).astype(np.float32)
    assert all(abs(score.result) > 0.99 for score in regression_scores(truth, told_apart)[:2])
