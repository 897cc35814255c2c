"""A metric is a function of sums over examples, so that a resample of a thousand costs a row of counts and no second look at the examples.

Accuracy is right / rows, F1 is 2 · right / (truth + said), a mean is Σ weight · value / Σ weight. The libraries that people know these
metrics from (scikit-learn, scipy and the like) are the oracles of the tests.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

Numbers = NDArray[np.float64]


class Sparse:
    """Sums nearly all of which are 0, such as three for each of a thousand labels: each entry adds 1 to one sum of one example."""

    def __init__(self, rows: NDArray[np.integer], columns: NDArray[np.integer], shape: tuple[int, int]) -> None:
        """Entry i is that of example `rows[i]` and sum `columns[i]`; `shape` is (examples, sums). A place may be named several times."""
        order = np.argsort(columns, kind="stable")
        self.shape = shape
        self._rows = np.asarray(rows)[order]
        self._present, self._starts = np.unique(np.asarray(columns)[order], return_index=True)

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def entries(self) -> int:
        return len(self._rows)

    def total(self, counts: Numbers) -> Numbers:
        """The sums where example i counts `counts[…, i]` times. Shape (resamples, examples) to (resamples, sums)."""
        found = np.zeros((len(counts), self.shape[1]))
        if self.entries:
            found[:, self._present] = np.add.reduceat(counts.take(self._rows, axis=1), self._starts, axis=1)
        return found


Sums = Numbers | Sparse
"""Of each example, shape (examples, k)."""


@dataclass(frozen=True, eq=False)
class Score:
    """One metric of one split, by what its examples add to it."""

    name: str
    """As in result.json, such as `macro_f1`."""
    sums: Sums
    """Scores that are made of the same sums share the object, and it is summed once for all of them."""
    value: Callable[[Numbers], Numbers]
    """From sums over examples, shape (…, k), to the metric, shape (…). NaN where it is undefined."""

    @property
    def examples(self) -> int:
        return len(self.sums)

    @cached_property
    def result(self) -> float:
        """The metric of all examples."""
        return float(self.value(total(self.sums, np.ones((1, self.examples))))[0])


def total(sums: Sums, counts: Numbers) -> Numbers:
    """The sums where example i counts `counts[r, i]` times in resample r. Shape (resamples, examples) to (resamples, k)."""
    return sums.total(counts) if isinstance(sums, Sparse) else np.asarray(counts @ sums)


def values(scores: Sequence[Score]) -> dict[str, float]:
    """What the metrics are, by name."""
    return {score.name: score.result for score in scores}


def mean(name: str, each: ArrayLike, weights: ArrayLike | None = None) -> Score:
    """Σ weight · value / Σ weight of one value an example, 1 being the weight by default. NaN where all weights are 0.

    `each` is what an example has: a loss, or 1 where it is right and 0 where it is not.
    """
    of_each = np.asarray(each, dtype=np.float64)
    heavy = np.ones_like(of_each) if weights is None else np.asarray(weights, dtype=np.float64)
    return Score(
        name, np.stack([of_each * heavy, heavy], axis=1), lambda s: ratio(s[..., 0], s[..., 1], undefined=np.nan)
    )


def of_some(score: Score, rows: NDArray[np.integer], examples: int) -> Score:
    """The same metric where only some of the examples have it: those in these rows, to which `score` has a sum each. The others add
    nothing, so it takes part in the draws of all."""
    assert not isinstance(score.sums, Sparse)  # no metric of some examples has such
    sums = np.zeros((examples, score.sums.shape[1]))
    sums[rows] = score.sums
    return Score(score.name, sums, score.value)


def ratio(part: ArrayLike, whole: ArrayLike, *, undefined: float = 0.0) -> Numbers:
    """part / whole, and `undefined` where the whole is 0."""
    above, below = np.broadcast_arrays(np.asarray(part, dtype=np.float64), np.asarray(whole, dtype=np.float64))
    return np.asarray(np.divide(above, below, out=np.full(above.shape, undefined), where=below != 0))
