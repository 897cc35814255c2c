"""Rows whose label is probably wrong."""

from __future__ import annotations

import numpy as np
import pytest

from finetune_trainer.scores.suspects import MOST, Margins, rank


def margins_of(total: list[float], times: list[int], other: list[int] | None = None) -> Margins:
    return Margins(
        np.array(total, np.float32), np.array(times, np.int32), np.array(other or [0] * len(total), np.int32)
    )


def test_the_row_with_the_lowest_mean_leads_and_those_that_are_learned_as_labelled_are_not_listed() -> None:
    found = rank(margins_of([-2, 6, -9, -4], [2, 2, 3, 1], [5, 6, 7, 8]), np.arange(4), share=1)
    assert found.rows.tolist() == [3, 2, 0]
    assert found.margin.tolist() == [-4, -3, -1]
    assert found.other.tolist() == [8, 7, 5]


def test_a_row_of_several_features_counts_once_with_its_lowest() -> None:
    found = rank(margins_of([-1, -5, -3, 2], [1, 1, 1, 1], [1, 2, 3, 4]), np.array([7, 7, 9, 9]), share=1)
    assert (found.rows.tolist(), found.margin.tolist(), found.other.tolist()) == ([7, 9], [-5, -3], [2, 3])


def test_rows_that_were_never_trained_on_are_not_judged() -> None:
    assert rank(margins_of([0, -1, 0], [0, 1, 0]), np.arange(3), share=1).rows.tolist() == [1]
    assert rank(margins_of([0, 0], [0, 0]), np.arange(2)).rows.tolist() == []


@pytest.mark.parametrize(("rows", "listed"), [(19, 0), (40, 2), (1000, 50), (10_000, MOST)])
def test_no_more_are_listed_than_a_share_of_the_rows_and_a_hundred(rows: int, listed: int) -> None:
    assert len(rank(margins_of([-1.0] * rows, [1] * rows), np.arange(rows)).rows) == listed


def test_labels_that_were_flipped_are_found_among_others_that_are_only_learned_by_heart() -> None:
    """A softmax regression, trained until it fits nearly each row, on three clouds of which every tenth label is wrong."""
    random = np.random.default_rng(7)
    rows, labels, features = 600, 3, 200
    truth = random.integers(0, labels, rows)
    points = random.normal(size=(rows, features)) + 4 * np.eye(labels, features)[truth]
    wrong = random.random(rows) < 0.1
    given = np.where(wrong, (truth + random.integers(1, labels, rows)) % labels, truth)
    weights = np.zeros((features, labels))
    total, lowest, other = np.zeros(rows), np.full(rows, np.inf), np.zeros(rows, int)
    for _ in range(5):
        for batch in np.array_split(random.permutation(rows), 60):
            logits = points[batch] @ weights
            chances = np.exp(logits - logits.max(axis=1, keepdims=True))
            chances /= chances.sum(axis=1, keepdims=True)
            others = np.where(np.eye(labels, dtype=bool)[given[batch]], -np.inf, logits)
            margin = logits[np.arange(len(batch)), given[batch]] - others.max(axis=1)
            other[batch] = np.where(margin < lowest[batch], others.argmax(axis=1), other[batch])
            lowest[batch] = np.minimum(lowest[batch], margin)
            total[batch] += margin
            weights -= 0.02 * points[batch].T @ (chances - np.eye(labels)[given[batch]])
    fitted = (points @ weights).argmax(axis=1) == given
    assert fitted[wrong].mean() > 0.8  # so that the trained model alone tells little

    found = rank(margins_of(total.tolist(), [5] * rows, other.tolist()), np.arange(rows))
    assert len(found.rows) == 30
    assert wrong[found.rows].mean() >= 0.9
    assert (found.other == truth[found.rows])[wrong[found.rows]].mean() >= 0.9
