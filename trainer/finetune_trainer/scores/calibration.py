"""Whether a model is right as often as it says: the reliability diagram and its summary.

Guo et al., On Calibration of Modern Neural Networks (2017), section 2: answers are put into bins of equal width by their
probability, and in each the share of right ones is compared with the mean probability.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

BINS = 10


@dataclass(frozen=True)
class Calibration:
    """The bins that hold any answer, by rising probability; arrays of shape (bins,)."""

    confidence: NDArray[np.float64]
    """Mean probability of the answers in each."""
    right: NDArray[np.float64]
    """Share of them that are right."""
    rows: NDArray[np.int64]
    """How many they are."""

    @property
    def error(self) -> float:
        """The expected calibration error (ECE): the mean distance of the two shares, each bin counting as many times as it has answers."""
        if not self.rows.sum():
            return 0.0
        return float(np.abs(self.right - self.confidence) @ self.rows / self.rows.sum())


def calibration(probability: NDArray[np.floating], right: NDArray[np.bool_], bins: int = BINS) -> Calibration:
    """The bins of answers with these probabilities, of which `right` are; both of shape (answers,). Bin m holds ((m − 1)/bins, m/bins]."""
    edges = np.linspace(0, 1, bins + 1)[1:-1]
    place = np.searchsorted(edges, probability.astype(np.float64))
    rows = np.bincount(place, minlength=bins)
    there = rows > 0
    totals = [np.bincount(place, weights, minlength=bins)[there] for weights in (probability, right)]
    confidence, correct = (total / rows[there] for total in totals)
    return Calibration(confidence, correct, rows[there])
