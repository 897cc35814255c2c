"""Calibration, against scikit-learn's curve and the definition."""

from __future__ import annotations

import numpy as np
import pytest

from finetune_trainer.scores.calibration import calibration


def test_the_bins_are_those_of_scikit_learn() -> None:
    from sklearn.calibration import calibration_curve

    random = np.random.default_rng(7)
    probability = random.random(500).astype(np.float32)
    right = random.random(500) < probability**2
    ours = calibration(probability, right, bins=7)
    theirs = calibration_curve(right, probability.astype(np.float64), n_bins=7)
    np.testing.assert_allclose((ours.right, ours.confidence), theirs)
    assert ours.rows.sum() == 500


def test_the_error_is_the_mean_over_the_answers_of_how_far_their_bin_is_off() -> None:
    probability = np.array([0.55, 0.55, 0.95, 0.95, 0.95, 0.95])
    right = np.array([True, False, True, True, True, True])
    # A third of the answers is 0.55 sure and half right, the others are 0.95 sure and always right.
    assert calibration(probability, right).error == pytest.approx(0.05 / 3 + 2 * 0.05 / 3)


def test_a_model_that_is_right_as_often_as_it_says_has_next_to_no_error() -> None:
    random = np.random.default_rng(7)
    probability = random.random(100_000)
    right = random.random(100_000) < probability
    assert calibration(probability, right).error < 0.01
    assert calibration(probability, ~right).error > 0.4


def test_bins_include_their_upper_edge_and_those_without_answers_are_left_out() -> None:
    found = calibration(np.array([0.0, 0.1, 0.2, 1.0]), np.array([True, True, True, True]))
    assert found.rows.tolist() == [2, 1, 1]
    assert found.confidence.tolist() == [0.05, 0.2, 1.0]
    assert calibration(np.array([]), np.array([], bool)).error == 0
