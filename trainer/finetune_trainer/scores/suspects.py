"""Training rows whose label is probably wrong, told by how they are learned.

The area under the margin of Pleiss et al., Identifying Mislabeled Data using the Area Under the Margin Ranking (NeurIPS 2020): the margin
of a row is the logit of its label minus the largest of the others, each time that it is trained on, and its area is the mean of these.
What similar rows teach works against a wrong label, so that its margin stays low or negative, also where it is learned by heart in
the end. It costs nothing but the margins, which training passes by anyway.

The paper finds where to cut with rows that it labels wrongly on purpose. Nobody's rows are changed here: those whose area is negative,
which were told to be another label in the mean, are listed, the lowest first, and a person looks.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MOST_SHARE = 0.05
"""Of the training rows, that are listed at most: further down, hard rows outnumber wrong ones."""
MOST = 100
"""Rows that are listed at most."""


@dataclass(frozen=True)
class Margins:
    """What was seen of each feature in training; arrays of shape (features,)."""

    total: NDArray[np.float32]
    """The sum of its margins."""
    times: NDArray[np.int32]
    """How often it was trained on."""
    other: NDArray[np.int64]
    """The label with the largest of the other logits, or what the task gave for it, when its margin was lowest."""


@dataclass(frozen=True)
class Ranked:
    """Rows by falling suspicion."""

    rows: NDArray[np.int64]
    other: NDArray[np.int64]
    """The label that each is learned as."""
    margin: NDArray[np.float64]
    """The mean of its margins."""


def rank(margins: Margins, rows: NDArray[np.integer], *, share: float = MOST_SHARE, most: int = MOST) -> Ranked:
    """The rows with the lowest mean margin, as far as it is negative; no more than `most`, or than `share` of those trained on.

    `rows` are the rows of the features, shape (features,). The margin of a row of several features is that of the lowest of them.
    """
    seen = np.flatnonzero(margins.times)
    mean = margins.total[seen].astype(np.float64) / margins.times[seen]
    order = seen[np.argsort(mean, kind="stable")]
    _, first = np.unique(rows[order], return_index=True)  # the lowest feature of each row
    lowest = order[np.sort(first)]
    area = margins.total[lowest].astype(np.float64) / margins.times[lowest]
    number = min(most, int(share * len(lowest)), int((area < 0).sum()))
    return Ranked(
        rows[lowest[:number]].astype(np.int64), margins.other[lowest[:number]].astype(np.int64), area[:number]
    )
