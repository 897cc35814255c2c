"""Scores of numbers: Pearson's and Spearman's correlation, and the root of the mean squared error."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from finetune_trainer.scores.score import Numbers, Score, ratio

NOISE = 1e-12
"""Spread below this part of the size of the numbers is rounding: they are all the same."""
LAST_BITS = 8
"""Steps of their last bit by which numbers differ that only the order of sums tells apart."""


def regression_scores(truth: NDArray[np.floating], said: NDArray[np.floating]) -> list[Score]:
    """`pearson`, `spearman` and `rmse`. Both of shape (examples,)."""
    error = np.asarray(said, dtype=np.float64) - np.asarray(truth, dtype=np.float64)
    return [
        pearson(truth, said),
        spearman(truth, said),
        Score("rmse", np.stack([error**2, np.ones_like(error)], axis=1), _root_of_the_mean),
    ]


def pearson(truth: NDArray[np.floating], said: NDArray[np.floating], name: str = "pearson") -> Score:
    """Pearson's product-moment correlation, between -1 and 1. 0 where either side is the same everywhere, where scipy says NaN.

    The numbers are centred and scaled first, which changes no correlation, also of no resample: the sums of squares of scores around a
    million would lose all that tells them apart.
    """
    x, y = _centred(truth), _centred(said)
    return Score(name, np.stack([np.ones_like(x), x, y, x * x, y * y, x * y], axis=1), _correlation)


def spearman(truth: NDArray[np.floating], said: NDArray[np.floating]) -> Score:
    """Spearman's correlation: Pearson's of the ranks, equal numbers having the mean of theirs.

    Of a resample, too, the ranks are those among all examples. Its own would differ in ties and, by the order of 1/n, in spacing.
    """
    of_truth, of_said = (np.zeros(len(side)) if is_noise(side) else ranks(side) for side in (truth, said))
    return pearson(of_truth, of_said, "spearman")


def ranks(numbers: NDArray[np.floating]) -> Numbers:
    """1 for the lowest; equal numbers have the mean of their ranks. A NaN makes all of them NaN."""
    if np.isnan(numbers).any():
        return np.full(len(numbers), np.nan)
    _, which, count = np.unique(numbers, return_inverse=True, return_counts=True)
    return np.asarray((np.cumsum(count) - (count - 1) / 2)[which])


def _centred(numbers: NDArray[np.floating]) -> Numbers:
    """Around 0 and at most 1 far from it."""
    exact = np.asarray(numbers, dtype=np.float64)
    if not len(exact):
        return exact
    apart = exact - exact.mean()
    return np.zeros_like(apart) if is_noise(numbers) else apart / np.abs(apart).max()


def is_noise(numbers: NDArray[np.floating]) -> bool:
    """Whether they are all the same but for rounding, of a few last bits where they are what a model said in fp32."""
    if not len(numbers):
        return False
    exact = np.asarray(numbers, dtype=np.float64)
    least = LAST_BITS * float(np.finfo(numbers.dtype).eps) if np.issubdtype(numbers.dtype, np.floating) else 0.0
    return bool(np.abs(exact - exact.mean()).max() <= max(NOISE, least) * np.abs(exact).max())


def _correlation(sums: Numbers) -> Numbers:
    n, x, y, xx, yy, xy = np.moveaxis(sums, -1, 0)
    of_x, of_y = n * xx - x * x, n * yy - y * y
    varies = (of_x > NOISE * n * xx) & (of_y > NOISE * n * yy) | np.isnan(of_x + of_y)
    found = ratio(n * xy - x * y, np.where(varies, np.sqrt(np.maximum(of_x * of_y, 0)), 0))
    return np.asarray(np.clip(found, -1, 1))


def _root_of_the_mean(sums: Numbers) -> Numbers:
    return np.asarray(np.sqrt(ratio(sums[..., 0], sums[..., 1], undefined=np.nan)))
