"""Scores of labels, one an example or any number: accuracy, F1, macro-F1, micro-F1, exact match and the loss of probabilities.

F1 of a label is 2 · right / (truth + said): the rows that are right about it, that have it, and that were said to have it. 0/0 is 0, as
with scikit-learn's `zero_division=0`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from finetune_trainer.scores.score import Numbers, Score, Sparse, mean, ratio


def label_scores(truth: NDArray[np.integer], said: NDArray[np.integer], labels: int) -> list[Score]:
    """`accuracy`, `macro_f1` and, of two labels, `f1` of the second; of one label an example.

    `truth` and `said` are numbers below `labels`, shape (examples,). macro-F1 is the mean over the labels that are there or were said, in
    a resample over those of the resample: F1 of one that is neither is undefined, not 0.
    """
    everyone, (right,) = np.arange(len(truth)), np.nonzero(truth == said)
    sums = Sparse(
        np.concatenate([right, everyone, everyone]),
        np.concatenate([truth[right], truth + labels, said + 2 * labels]),
        (len(truth), 3 * labels),
    )
    scores = [Score("accuracy", sums, _accuracy), Score("macro_f1", sums, _macro_f1)]
    if labels == 2:
        scores.append(Score("f1", sums, _f1_of_the_last))
    return scores


def multilabel_scores(truth: NDArray[np.bool_], said: NDArray[np.bool_]) -> list[Score]:
    """`micro_f1`, `macro_f1` and `exact_match`, of any number of labels an example. Both of shape (examples, labels).

    micro-F1 is F1 of all labels taken together, exact match the share of examples that have all their labels and no other. macro-F1 is
    over the labels that are there or were said, as with scikit-learn's `zero_division=np.nan`.
    """
    labels = truth.shape[1]
    places = [np.nonzero(of_label) for of_label in (truth & said, truth, said)]
    sums = Sparse(
        np.concatenate([rows for rows, _ in places]),
        np.concatenate([columns + number * labels for number, (_, columns) in enumerate(places)]),
        (len(truth), 3 * labels),
    )
    return [
        Score("micro_f1", sums, _micro_f1),
        Score("macro_f1", sums, _macro_f1),
        mean("exact_match", (truth == said).all(axis=1)),
    ]


def log_loss(truth: NDArray[np.integer], probabilities: NDArray[np.floating]) -> Score:
    """`loss`: the mean of -log of the probability of the true label, which counts as at least fp32's smallest normal number.

    `probabilities` has the shape (examples, labels).
    """
    chosen = probabilities[np.arange(len(truth)), truth]
    return mean("loss", -np.log(np.maximum(chosen, np.finfo(np.float32).tiny).astype(np.float64)))


def _accuracy(sums: Numbers) -> Numbers:
    right, truth, _ = _of_labels(sums)
    return ratio(right.sum(axis=-1), truth.sum(axis=-1))


def _micro_f1(sums: Numbers) -> Numbers:
    right, truth, said = (of_labels.sum(axis=-1) for of_labels in _of_labels(sums))
    return ratio(2 * right, truth + said)


def _macro_f1(sums: Numbers) -> Numbers:
    _, truth, said = _of_labels(sums)
    return ratio(_f1(sums).sum(axis=-1), (truth + said > 0).sum(axis=-1))


def _f1_of_the_last(sums: Numbers) -> Numbers:
    return np.asarray(_f1(sums)[..., -1])


def _f1(sums: Numbers) -> Numbers:
    """Of each label."""
    right, truth, said = _of_labels(sums)
    return ratio(2 * right, truth + said)


def _of_labels(sums: Numbers) -> list[Numbers]:
    return np.split(sums, 3, axis=-1)
