"""Scores of labels are those of scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from finetune_trainer.scores import values
from finetune_trainer.scores.labels import label_scores, log_loss, multilabel_scores

LABELS = NDArray[np.int64]


def theirs(truth: LABELS, said: LABELS, labels: int) -> dict[str, float]:
    from sklearn.metrics import accuracy_score, f1_score

    found = {
        "accuracy": float(accuracy_score(truth, said)),
        "macro_f1": float(f1_score(truth, said, average="macro", zero_division=0)),
    }
    if labels == 2:
        found["f1"] = float(f1_score(truth, said, pos_label=1, zero_division=0))
    return found


@pytest.mark.parametrize(("labels", "rows"), [(2, 1), (2, 5), (2, 200), (3, 4), (6, 4), (10, 1000), (500, 300)])
def test_any_labels_score_as_with_scikit_learn(labels: int, rows: int) -> None:
    random = np.random.default_rng(labels)
    for _ in range(
        20
    ):  # few rows of many labels: some occur nowhere, some only in the truth, some only among the predictions
        truth, said = random.integers(0, labels, size=(2, rows))
        assert values(label_scores(truth, said, labels)) == pytest.approx(theirs(truth, said, labels), abs=1e-12)


@pytest.mark.parametrize(
    ("truth", "said", "labels"),
    [
        pytest.param([0, 0], [0, 0], 2, id="the positive label occurs nowhere"),
        pytest.param([1, 1], [1, 1], 2, id="there is the positive label only"),
        pytest.param([0, 1], [1, 0], 2, id="all wrong"),
        pytest.param([0, 0, 0], [0, 0, 0], 1, id="one label"),
        pytest.param([0, 1], [0, 2], 5, id="a label is said that no row has, and two occur nowhere"),
    ],
)
def test_so_do_the_odd_cases(truth: list[int], said: list[int], labels: int) -> None:
    ours = values(label_scores(np.array(truth), np.array(said), labels))
    assert ours == pytest.approx(theirs(np.array(truth), np.array(said), labels), abs=1e-12)


def test_macro_f1_is_over_the_labels_that_occur_and_f1_is_for_two_labels_only() -> None:
    # "c" was said although no row has it, so it counts: of a, b and c, one is right.
    assert values(label_scores(np.array([0, 1]), np.array([0, 2]), 3)) == {
        "accuracy": 0.5,
        "macro_f1": pytest.approx(1 / 3),
    }
    assert values(label_scores(np.array([0, 1]), np.array([0, 1]), 3)) == {"accuracy": 1.0, "macro_f1": 1.0}


def test_no_rows_score_nothing() -> None:
    none = np.array([], dtype=np.int64)
    assert values(label_scores(none, none, 2)) == {"accuracy": 0.0, "macro_f1": 0.0, "f1": 0.0}
    assert np.isnan(log_loss(none, np.empty((0, 2))).result)


def test_the_loss_of_probabilities_is_scikit_learns() -> None:
    from sklearn.metrics import log_loss as their_log_loss

    random = np.random.default_rng(4)
    truth = random.integers(0, 4, 300)
    probabilities = random.dirichlet(np.ones(4), 300)
    assert log_loss(truth, probabilities).result == pytest.approx(their_log_loss(truth, probabilities, labels=range(4)))
    surely_wrong = log_loss(np.array([0]), np.array([[0, 1]], dtype=np.float32)).result
    assert surely_wrong == pytest.approx(-np.log(np.finfo(np.float32).tiny))


@pytest.mark.parametrize(("labels", "rows"), [(2, 3), (4, 1), (6, 40), (28, 500)])
def test_many_labels_an_example_score_as_with_scikit_learn(labels: int, rows: int) -> None:
    from sklearn.metrics import accuracy_score, f1_score

    random = np.random.default_rng(labels)
    for share in (0.0, 0.1, 0.5, 1.0):  # of no label anywhere, which is 0 of 0, to all of them everywhere
        truth, said = random.random((2, rows, labels)) < share
        theirs = {
            "micro_f1": float(f1_score(truth, said, average="micro", zero_division=0)),
            "macro_f1": float(np.nan_to_num(f1_score(truth, said, average="macro", zero_division=np.nan))),
            "exact_match": float(accuracy_score(truth, said)),
        }
        assert values(multilabel_scores(truth, said)) == pytest.approx(theirs, abs=1e-12)
