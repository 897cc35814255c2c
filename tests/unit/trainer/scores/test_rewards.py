"""Reward accuracy and margin of pairs, by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from finetune_trainer.scores import values
from finetune_trainer.scores.rewards import reward_scores


def found(*pairs: tuple[float, float, float]) -> dict[str, float]:
    return values(reward_scores(*np.array(pairs, np.float32).reshape(-1, 3).T))


def test_a_pair_is_right_where_the_chosen_answer_has_the_higher_reward_and_half_right_where_none_has() -> None:
    assert found((1, -1, 1), (0, 0, 1), (-1, 1, 1), (2, 1, 1)) == {"reward_accuracy": 2.5 / 4, "reward_margin": 0.25}
    assert found((0, 0, 1), (0, 0, 1)) == {"reward_accuracy": 0.5, "reward_margin": 0}, "as all are before training"


def test_pairs_that_do_not_count_do_not_count() -> None:
    assert found((1, 0, 1), (-9, 9, 0)) == {"reward_accuracy": 1, "reward_margin": 1}
    assert all(math.isnan(value) for value in found((1, 0, 0)).values())


def test_metrics_are_sums_over_pairs() -> None:
    draw = np.random.default_rng(1)
    chosen, rejected, counts = draw.normal(size=50), draw.normal(size=50), draw.integers(0, 2, 50)
    one, other = values(reward_scores(chosen, rejected, counts)).values()
    kept = counts > 0
    assert one == pytest.approx((chosen > rejected)[kept].mean())
    assert other == pytest.approx((chosen - rejected)[kept].mean())
