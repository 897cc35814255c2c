"""Rows whose label is probably wrong."""

from __future__ import annotations

import numpy as np
import pytest

from finetune_trainer.scores.suspects import (
    ASKED,
    MOST,
    Asked,
    Doubts,
    Margins,
    asked_of_each,
    asked_of_one,
    doubts,
    rank,
)


def margins_of(
    loss: list[float], times: list[int], other: list[int] | None = None, total: list[float] | None = None
) -> Margins:
    number = len(loss)
    return Margins(
        np.array(loss, np.float32),
        np.array(total or [-1] * number, np.float32),
        np.array(times, np.int32),
        np.array(other or [0] * number, np.int64),
    )


def test_the_row_with_the_highest_mean_loss_is_doubted_most() -> None:
    found = doubts(margins_of([2, 1, 9, 4], [2, 2, 3, 1], [5, 6, 7, 8], [2, 6, -9, -4]), np.arange(4), share=1)
    assert found.rows.tolist() == [3, 2, 0, 1]
    assert found.loss.tolist() == [4, 3, 1, 0.5]
    assert found.other.tolist() == [8, 7, 5, 6]
    assert found.against.tolist() == [True, True, False, False], "told to be another label in the mean"


def test_a_row_of_several_features_counts_once_with_its_highest() -> None:
    found = doubts(margins_of([1, 5, 3, 2], [1, 1, 1, 1], [1, 2, 3, 4]), np.array([7, 7, 9, 9]), share=1)
    assert (found.rows.tolist(), found.loss.tolist(), found.other.tolist()) == ([7, 9], [5, 3], [2, 3])


def test_rows_that_were_never_trained_on_are_not_judged() -> None:
    assert doubts(margins_of([0, 1, 0], [0, 1, 0]), np.arange(3), share=1).rows.tolist() == [1]
    assert doubts(margins_of([0, 0], [0, 0]), np.arange(2)).rows.tolist() == []


@pytest.mark.parametrize(("rows", "listed"), [(19, 0), (40, 2), (1000, 50), (10_000, MOST)])
def test_no_more_are_listed_than_a_share_of_the_rows_and_a_hundred_and_thrice_as_many_asked_of(
    rows: int, listed: int
) -> None:
    found = doubts(margins_of([1.0] * rows, [1] * rows), np.arange(rows))
    assert (len(found.rows), found.most) == (ASKED * listed, listed)
    nothing = np.zeros(len(found.rows), np.int64)
    assert len(rank(found, Asked(nothing.astype(float), nothing > 0, nothing)).places) == listed


def test_the_losses_of_training_and_after_are_added_and_what_is_said_last_is_suggested() -> None:
    """Of four rows: learned by heart in the end; contradicted as before; contradicted otherwise; never doubted by either."""
    seen = Doubts(
        rows=np.array([40, 41, 42, 43]),
        loss=np.array([4.0, 3, 2, 9]),
        against=np.array([True, True, False, False]),
        other=np.array([1, 2, 3, 4]),
        most=3,
    )
    after = Asked(np.array([0.5, 3.0, 1.5, 0.1]), np.array([False, True, True, False]), np.array([9, 2, 8, 7]))
    found = rank(seen, after)
    assert found.places.tolist() == [1, 0, 2]
    assert found.loss.tolist() == [6, 4.5, 3.5]
    assert found.other.tolist() == [2, 1, 8]


def test_what_is_said_of_one_label_is_its_probability_against_the_best_of_the_others() -> None:
    found = asked_of_one(np.array([[0.7, 0.2, 0.1], [0.2, 0.3, 0.5], [0, 1, 0]], np.float32), np.array([0, 1, 0]))
    assert found.contradicts.tolist() == [False, True, True]
    assert found.other.tolist() == [1, 2, 1]
    assert found.loss[:2].tolist() == pytest.approx([-np.log(0.7), -np.log(0.3)])
    assert 80 < found.loss[2] < np.inf


def test_what_is_said_of_each_label_is_the_answer_furthest_from_the_datas() -> None:
    probability = np.array([[0.9, 0.2, 0.4], [0.9, 0.7, 0.2]], np.float32)
    found = asked_of_each(probability, np.array([[True, False, False], [True, False, False]]))
    assert found.contradicts.tolist() == [False, True]
    assert found.other.tolist() == [2, 1]
    assert found.loss.tolist() == pytest.approx([-np.log(0.6), -np.log(0.3)])


def test_labels_that_were_flipped_are_found_among_others_that_are_only_learned_by_heart() -> None:
    """A softmax regression, trained until it fits nearly each row, on three clouds of which every tenth label is wrong."""
    random = np.random.default_rng(7)
    rows, labels, features = 600, 3, 200
    truth = random.integers(0, labels, rows)
    points = random.normal(size=(rows, features)) + 4 * np.eye(labels, features)[truth]
    wrong = random.random(rows) < 0.1
    given = np.where(wrong, (truth + random.integers(1, labels, rows)) % labels, truth)
    weights = np.zeros((features, labels))
    loss, total, lowest, other = np.zeros(rows), np.zeros(rows), np.full(rows, np.inf), np.zeros(rows, int)
    for _ in range(5):
        for batch in np.array_split(random.permutation(rows), 60):
            logits = points[batch] @ weights
            chances = softmax(logits)
            others = np.where(np.eye(labels, dtype=bool)[given[batch]], -np.inf, logits)
            margin = logits[np.arange(len(batch)), given[batch]] - others.max(axis=1)
            other[batch] = np.where(margin < lowest[batch], others.argmax(axis=1), other[batch])
            lowest[batch] = np.minimum(lowest[batch], margin)
            total[batch] += margin
            loss[batch] -= np.log(chances[np.arange(len(batch)), given[batch]])
            weights -= 0.02 * points[batch].T @ (chances - np.eye(labels)[given[batch]])
    after = softmax(points @ weights)
    assert (after.argmax(axis=1) == given)[wrong].mean() > 0.8  # so that the trained model alone tells little

    seen = doubts(margins_of(loss.tolist(), [5] * rows, other.tolist(), total.tolist()), np.arange(rows))
    found = rank(seen, asked_of_one(after[seen.rows], given[seen.rows]))
    listed = seen.rows[found.places]
    assert len(listed) == 30
    assert wrong[listed].mean() >= 0.9
    assert (found.other == truth[listed])[wrong[listed]].mean() >= 0.9


def softmax(logits: np.ndarray) -> np.ndarray:
    chances = np.exp(logits - logits.max(axis=1, keepdims=True))
    return chances / chances.sum(axis=1, keepdims=True)
