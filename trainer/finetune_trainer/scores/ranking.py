"""Scores of embeddings: whether what belongs together is found among many.

Recall at k as for CLIP (Radford et al. 2021) and on the 1,000 pictures of Flickr30k's test split (Karpathy and Fei-Fei 2015): the share
of queries that have something of theirs among the k nearest candidates.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from finetune_trainer.scores.score import Score, mean

CANDIDATES = 1000
"""The first so many pairs of a split are searched for one another: recall depends on how many there are, and no two splits of more
would be comparable."""
AS_NEAR = 1e-6
"""Cosines of fp32 that differ by less may be equal but for the order of their sums."""
Embeddings = NDArray[np.floating]
Keys = NDArray[np.integer]


def recalls(
    left: Embeddings,
    right: Embeddings,
    left_keys: Keys,
    right_keys: Keys,
    *,
    both_ways: bool,
    negatives: tuple[Embeddings, Keys] | None = None,
    at: Sequence[int] = (1, 5),
    alike: bool = False,
) -> list[Score]:
    """`recall_at_1`, `recall_at_5`: pairs of which the one side is found by the other, among the first 1,000 of the split.

    `left` and `right` have the shape (examples, dimensions) and rows of length 1; row i of the one belongs to row i of the other. Equal
    keys mean equal texts or pictures: a hit is whatever equals a partner of something that equals the query. `negatives` are more
    candidates on the right, as many or none. With `both_ways` an example counts half for finding right by left, and half for the other
    way round; only the first otherwise.

    `alike` says that both sides are of one kind, such as texts: what equals the query itself is then no candidate, unless it is a hit.

    A candidate as near as the hit counts as nearer, so a model that answers the same to everything finds nothing. Examples after the
    first 1,000 are neither asked nor found. In a resample the candidates stay the same: the interval is of the queries.
    """
    weights = np.arange(len(left)) < CANDIDATES
    a, b, of_a, of_b = left[:CANDIDATES], right[:CANDIDATES], left_keys[:CANDIDATES], right_keys[:CANDIDATES]
    found, of_found = b, of_b
    if negatives is not None:
        more, keys = negatives
        found, of_found = np.concatenate([b, more[:CANDIDATES]]), np.concatenate([of_b, keys[:CANDIDATES]])
    ahead = [_ahead(a @ found.T, hits(of_a, of_b, of_found), alike & (of_a[:, None] == of_found))]
    if both_ways:
        ahead.append(_ahead(b @ a.T, hits(of_b, of_a, of_a), alike & (of_b[:, None] == of_a)))
    scores = []
    for k in at:
        shares = np.zeros(len(left))
        shares[: len(a)] = np.mean([nearer < k for nearer in ahead], axis=0)
        scores.append(mean(f"recall_at_{k}", shares, weights))
    return scores


def most_wrong(left_keys: Keys, right_keys: Keys, *, negatives: Keys | None = None, alike: bool = False) -> int:
    """How many candidates are wrong answers to the left query that has the most of them: recall at k is 1 whatever a model says unless these
    are k or more. As of `recalls`, negatives by their keys alone."""
    of_a, of_b = left_keys[:CANDIDATES], right_keys[:CANDIDATES]
    of_found = of_b if negatives is None else np.concatenate([of_b, negatives[:CANDIDATES]])
    itself = alike & (of_a[:, None] == of_found)
    return int((~hits(of_a, of_b, of_found) & ~itself).sum(axis=1).max(initial=0))


def _ahead(similarity: Embeddings, right: NDArray[np.bool_], itself: NDArray[np.bool_]) -> NDArray[np.int64]:
    """How many candidates that are neither a hit nor the query itself are at least as near as the nearest hit, shape (queries,)."""
    nearest = np.where(right, similarity, -np.inf).max(axis=1, keepdims=True)
    return np.asarray(
        (~right & ~itself & ~(similarity < nearest - AS_NEAR)).sum(axis=1)
    )  # so a NaN is ahead of everything


def hits(queries: Keys, partners: Keys, candidates: Keys) -> NDArray[np.bool_]:
    """Which candidates equal a partner of something that equals the query, shape (queries, candidates)."""
    equal_queries = (queries[:, None] == queries).astype(np.float32)
    return np.asarray(equal_queries @ (partners[:, None] == candidates).astype(np.float32) > 0)
