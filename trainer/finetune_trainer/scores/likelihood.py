"""Scores of models that give each token a probability: perplexity, and how often the likeliest token is the true one."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from finetune_trainer.scores.score import Numbers, Score, mean, ratio

LARGEST = 700.0
"""A loss above this has a perplexity that no float holds: it counts as this much, e^700."""


def token_scores(
    losses: NDArray[np.floating], tokens: NDArray[np.integer], right: NDArray[np.integer] | None = None
) -> list[Score]:
    """`perplexity` and, where `right` is known, `accuracy`; both over tokens, so an example counts by how many it has.

    Of each example, shape (examples,): the summed -log probability of its target tokens, how many these are, and of how many the
    likeliest token was the true one. Perplexity is e to the mean loss of a token. NaN where there are no tokens.
    """
    sums = np.stack([np.asarray(losses, dtype=np.float64), np.asarray(tokens, dtype=np.float64)], axis=1)
    scores = [Score("perplexity", sums, _perplexity)]
    if right is not None:
        scores.append(mean("accuracy", ratio(right, tokens), tokens))
    return scores


def _perplexity(sums: Numbers) -> Numbers:
    return np.asarray(np.exp(np.minimum(ratio(sums[..., 0], sums[..., 1], undefined=np.nan), LARGEST)))
