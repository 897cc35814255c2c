"""How much of a difference is chance: the paired bootstrap over rows, of all metrics of a split at once.

The percentile interval of Efron and Tibshirani, An Introduction to the Bootstrap (1993), chapter 13, pairing as in Koehn (2004). A
resample says how often each row was drawn; a metric of it is the metric's value of the rows' sums, each as often. So one draw serves all
metrics, before training and after.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from finetune_trainer.scores.score import Numbers, Score, Sparse, total

CONFIDENCE = 0.95
RESAMPLES, FEWER, MANY_ROWS = 5000, 1000, 20_000
NUMBERS_HELD = 2_000_000
"""Of any one array on the way: 16 MB."""


@dataclass(frozen=True)
class Interval:
    low: float
    high: float

    @property
    def is_clear(self) -> bool:
        """Whether zero lies outside."""
        return self.low > 0 or self.high < 0


def resamples_of(rows: int) -> int:
    """How many resamples are made of so many rows: 5,000, which takes a second for 20,000 rows, and 1,000 of more."""
    return FEWER if rows > MANY_ROWS else RESAMPLES


def paired_intervals(before: Sequence[Score], after: Sequence[Score], seed: int) -> dict[str, Interval]:
    """The 95 % interval of after minus before of each metric that was measured both times, by name; equal for equal `seed`.

    Resamples in which a metric is undefined are left out; a metric that is undefined in all of them has no interval.
    """
    former = {score.name: score for score in before}
    pairs = [(former[score.name], score) for score in after if score.name in former and score.examples]
    if not pairs:
        return {}
    rows = pairs[0][1].examples
    assert all(score.examples == rows for pair in pairs for score in pair), "before and after are of the same rows"
    distinct = {id(score.sums): score.sums for pair in pairs for score in pair}
    differences: dict[str, list[Numbers]] = {score.name: [] for _, score in pairs}
    widest = max(max(*sums.shape, sums.entries if isinstance(sums, Sparse) else 0) for sums in distinct.values())
    for counts in _draws(rows, max(1, NUMBERS_HELD // widest), np.random.default_rng(seed)):
        totals = {key: total(sums, counts) for key, sums in distinct.items()}
        for old, new in pairs:
            differences[new.name].append(new.value(totals[id(new.sums)]) - old.value(totals[id(old.sums)]))
    found = {name: _interval(np.concatenate(parts)) for name, parts in differences.items()}
    return {name: interval for name, interval in found.items() if interval is not None}


def _draws(rows: int, size: int, random: np.random.Generator) -> Iterator[Numbers]:
    """How often each row is drawn in each resample, shape (up to `size`, rows), until there are enough resamples.

    Rows are drawn and counted, a tenth of what a multinomial draw costs: with a loss among the metrics no two rows are the same.
    """
    resamples = resamples_of(rows)
    for begin in range(0, resamples, size):
        counts = np.empty((min(size, resamples - begin), rows))
        for one in counts:
            one[:] = np.bincount(random.integers(0, rows, size=rows), minlength=rows)
        yield counts


def _interval(differences: NDArray[np.float64]) -> Interval | None:
    defined = differences[np.isfinite(differences)]
    if not len(defined):
        return None
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(defined, [tail, 1 - tail])
    return Interval(float(low), float(high))
