"""Perplexity and accuracy over tokens."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from finetune_trainer.scores import values
from finetune_trainer.scores.likelihood import token_scores


def test_they_are_of_all_tokens_whatever_example_these_are_in() -> None:
    from sklearn.metrics import accuracy_score, log_loss

    random = np.random.default_rng(0)
    truth = random.integers(0, 5, 60)
    probabilities = random.dirichlet(np.ones(5), 60)
    right = probabilities.argmax(axis=1) == truth
    loss = -np.log(probabilities[np.arange(60), truth])
    ends = [0, 7, 7, 30, 60]  # the second example has no tokens
    parts = [slice(a, b) for a, b in pairwise(ends)]
    scores = token_scores(
        np.array([loss[part].sum() for part in parts]),
        np.array([len(loss[part]) for part in parts]),
        np.array([right[part].sum() for part in parts]),
    )
    assert values(scores) == pytest.approx(
        {
            "perplexity": np.exp(log_loss(truth, probabilities, labels=range(5))),
            "accuracy": accuracy_score(truth, probabilities.argmax(axis=1)),
        }
    )


def test_knowing_nothing_of_a_vocabulary_is_as_perplexing_as_it_is_large() -> None:
    (score,) = token_scores(np.array([3 * np.log(30522)]), np.array([3]))
    assert score.result == pytest.approx(30522)


def test_no_tokens_are_undefined_and_no_loss_is_too_large_to_write_down() -> None:
    assert all(np.isnan(score.result) for score in token_scores(np.array([0.0]), np.array([0]), np.array([0])))
    assert np.isfinite(token_scores(np.array([1e6]), np.array([1]))[0].result)
