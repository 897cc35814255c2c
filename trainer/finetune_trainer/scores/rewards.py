"""Scores of answers by their rewards: how much likelier than before a model takes them. Of pairs, of which one is preferred, and of answers
that are liked or not, each for itself."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from finetune_trainer.scores.score import Numbers, Score, mean, ratio

ACCURACY, MARGIN = "reward_accuracy", "reward_margin"


def reward_scores(
    chosen: NDArray[np.floating], rejected: NDArray[np.floating], counts: NDArray[np.floating]
) -> list[Score]:
    """`reward_accuracy`, in which a tie counts one half, as all are before training, and `reward_margin`; each of shape (pairs,), `counts`
    1 for a pair that counts, else 0. NaN where none does."""
    margins = chosen.astype(np.float64) - rejected.astype(np.float64)
    right = (margins > 0) + (margins == 0) / 2
    return [mean(ACCURACY, right, counts), mean(MARGIN, margins, counts)]


def liked_scores(rewards: NDArray[np.floating], liked: NDArray[np.bool_], counts: NDArray[np.floating]) -> list[Score]:
    """`reward_accuracy`, the part whose reward is above 0 where they are liked and below 0 where not, 0 counting one half, as all are before
    training; and `reward_margin`, the mean of the liked less that of the others. Each of shape (answers,), `counts` 1 for one that counts,
    else 0. NaN where none does, and the margin where there are none of one sort."""
    signed = np.where(liked, rewards, -rewards).astype(np.float64)
    right = (signed > 0) + (signed == 0) / 2
    one, other = counts * liked, counts * ~liked
    sums = np.stack([one * rewards, one, other * rewards, other], axis=1).astype(np.float64)
    return [mean(ACCURACY, right, counts), Score(MARGIN, sums, _difference)]


def _difference(sums: Numbers) -> Numbers:
    liked, others = (ratio(sums[..., place], sums[..., place + 1], undefined=np.nan) for place in (0, 2))
    return np.asarray(liked - others)
