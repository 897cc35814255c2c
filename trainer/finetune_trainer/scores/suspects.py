"""Training rows whose label is probably wrong, told by how they are learned and by what the trained model says of them.

Two things are known of each row without training anything again. The mean of its losses over training, as in Huang et al., O2U-Net: A
Simple Noisy Label Detection Approach for Deep Neural Networks (ICCV 2019): what similar rows teach works against a wrong label, so that
its loss stays high, also where it is learned by heart in the end. And the loss that the trained model has on it, asked as in an evaluation,
as in Northcutt et al., Confident Learning (JAIR 2021): without dropout, and of an image all of it. Rows are ranked by the sum, the highest
first; the trained model is asked only of those that training doubts most, which costs a few hundred forward passes.

How much is listed is for a person to look at: rows that the trained model contradicts, and those that it agrees with at last but that
training told to be another label in the mean, by the area under the margin of Pleiss et al., Identifying Mislabeled Data using the Area
Under the Margin Ranking (NeurIPS 2020): the margin of a row is the logit of its label minus the largest of the others.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

MOST_SHARE = 0.05
"""Of the training rows, that are listed at most: further down, hard rows outnumber wrong ones."""
MOST = 100
"""Rows that are listed at most."""
ASKED = 3
"""Times as many as are listed at most, that the trained model is asked of."""


@dataclass(frozen=True)
class Margins:
    """What was seen of each feature in training; arrays of shape (features,)."""

    loss: NDArray[np.float32]
    """The sum of −log of the probability of its label."""
    total: NDArray[np.float32]
    """The sum of its margins."""
    times: NDArray[np.int32]
    """How often it was trained on."""
    other: NDArray[np.int64]
    """The label with the largest of the other logits, or what the task gave for it, when its margin was lowest."""


@dataclass(frozen=True)
class Doubts:
    """The rows that training doubts most, by falling loss; arrays of shape (rows,)."""

    rows: NDArray[np.int64]
    loss: NDArray[np.float64]
    """The mean of its losses."""
    against: NDArray[np.bool_]
    """Whether it was told to be another label in the mean: the mean of its margins is negative."""
    other: NDArray[np.int64]
    """As in `Margins`."""
    most: int
    """How many of them may be listed."""


@dataclass(frozen=True)
class Asked:
    """What the trained model says of the rows of `Doubts`; arrays of shape (rows,)."""

    loss: NDArray[np.floating[Any]]
    """−log of the probability of the label."""
    contradicts: NDArray[np.bool_]
    """Whether it says another label."""
    other: NDArray[np.int64]
    """That label, in the numbers of `Doubts.other`; nothing where it says none."""


@dataclass(frozen=True)
class Ranked:
    """Rows by falling suspicion; arrays of one shape."""

    places: NDArray[np.int64]
    """Where each is in `Doubts.rows`."""
    other: NDArray[np.int64]
    """The label that each is learned as."""
    loss: NDArray[np.float64]
    """The mean of its losses in training, and the trained model's added."""


def doubts(margins: Margins, rows: NDArray[np.integer], *, share: float = MOST_SHARE, most: int = MOST) -> Doubts:
    """The rows with the highest mean loss, `ASKED` times as many as are listed: at most `most`, and `share` of those trained on.

    `rows` are the rows of the features, shape (features,). The loss of a row of several features is that of the highest of them.
    """
    seen = np.flatnonzero(margins.times)
    mean = margins.loss[seen].astype(np.float64) / margins.times[seen]
    order = seen[np.argsort(-mean, kind="stable")]
    _, first = np.unique(rows[order], return_index=True)  # the highest feature of each row
    highest = order[np.sort(first)]
    number = min(most, int(share * len(highest)))
    chosen = highest[: ASKED * number]
    return Doubts(
        rows=rows[chosen].astype(np.int64),
        loss=margins.loss[chosen].astype(np.float64) / margins.times[chosen],
        against=margins.total[chosen] < 0,
        other=margins.other[chosen].astype(np.int64),
        most=number,
    )


def rank(found: Doubts, asked: Asked) -> Ranked:
    """Those with the highest loss in training and after, of which one of the two says another label; what is said last is suggested."""
    loss = found.loss + asked.loss
    order = np.argsort(-loss, kind="stable")
    places = order[(found.against | asked.contradicts)[order]][: found.most]
    other = np.where(asked.contradicts, asked.other, found.other)
    return Ranked(places, other[places], loss[places])


def asked_of_one(probability: NDArray[np.floating[Any]], label: NDArray[np.integer]) -> Asked:
    """Where each row has one of several labels; `probability` has the shape (rows, labels)."""
    own = np.take_along_axis(probability, label[:, None], axis=1)[:, 0]
    others = probability.copy()
    np.put_along_axis(others, label[:, None], -1, axis=1)
    return Asked(loss_of(own), others.max(axis=1) > own, others.argmax(axis=1))


def asked_of_each(probability: NDArray[np.floating[Any]], truth: NDArray[np.bool_]) -> Asked:
    """Where each label is a question of its own; both have the shape (rows, labels). What counts is the answer that is furthest from the
    data's, and `other` is its label."""
    own = np.where(truth, probability, 1 - probability)
    furthest = own.argmin(axis=1)
    least = own.min(axis=1)
    return Asked(loss_of(least), least < 0.5, furthest)


def loss_of(probability: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """−log of it, finite where it is too small for its type."""
    return -np.log(np.maximum(probability.astype(np.float64), np.finfo(np.float32).tiny))
