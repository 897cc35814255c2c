"""Scores of pairs of answers, of which one is preferred, by the rewards of both: how much likelier than before a model takes them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from finetune_trainer.scores.score import Score, mean


def reward_scores(
    chosen: NDArray[np.floating], rejected: NDArray[np.floating], counts: NDArray[np.floating]
) -> list[Score]:
    """`reward_accuracy`, in which a tie counts one half, as all are before training, and `reward_margin`; each of shape (pairs,), `counts`
    1 for a pair that counts, else 0. NaN where none does."""
    margins = chosen.astype(np.float64) - rejected.astype(np.float64)
    right = (margins > 0) + (margins == 0) / 2
    return [mean("reward_accuracy", right, counts), mean("reward_margin", margins, counts)]
