"""What the report shows of texts that are compared: scores beside cosines, what is found at which rank, and the pairs most wrongly ranked."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finetune_trainer.data.examples import Examples
from finetune_trainer.report.blocks import Block, Card, Cards, Curve, Line, Scatter, Text, sentence
from finetune_trainer.scores.ranking import hits, recalls
from finetune_trainer.scores.regression import ranks
from finetune_trainer.tasks.recall import WORST, depths, recall_line
from finetune_trainer.tasks.shown import parts_of

PAIR = ("text", "textPair")
Vectors = NDArray[np.float32]
Keys = NDArray[np.int64]


@dataclass(frozen=True)
class Search:
    """Texts and what is searched for them: vectors of length 1, shape (examples, dimensions), and keys that are equal for equal texts."""

    queries: Vectors
    of_queries: Keys
    partners: Vectors
    of_partners: Keys
    negatives: tuple[Vectors, Keys] | None

    def of(self, examples: int) -> tuple[Vectors, Vectors, Keys, Keys]:
        """Queries and partners, vectors and keys, as the first rows of so many examples; the others are never looked at."""
        return (
            _lengthened(self.queries, examples),
            _lengthened(self.partners, examples),
            _lengthened(self.of_queries, examples),
            _lengthened(self.of_partners, examples),
        )

    @property
    def candidates(self) -> tuple[Vectors, Keys]:
        """All that is searched through: the partners, then the negatives."""
        if self.negatives is None:
            return self.partners, self.of_partners
        vectors, keys = self.negatives
        return np.concatenate([self.partners, vectors]), np.concatenate([self.of_partners, keys])


def _lengthened(values: NDArray[Any], rows: int) -> NDArray[Any]:
    longer = np.zeros((rows, *values.shape[1:]), values.dtype)  # pages that nobody touches take no memory
    longer[: len(values)] = values
    return longer


def score_blocks(examples: Examples, said: NDArray[np.float64], *, diagonal: bool) -> Iterator[Block]:
    """Of examples with a score; `said` are the cosines. On the `diagonal` both would be equal."""
    truth = examples.numbers("score").astype(np.float64)
    yield Scatter("scores", "Cosine by score", truth, said, "score", "cosine", diagonal=diagonal)
    of_truth, of_said = ranks(truth), ranks(said)
    worst = np.argsort(-np.abs(of_said - of_truth), kind="stable")[:WORST]
    yield Cards(
        "misranked",
        "The pairs most wrongly ranked",
        tuple(
            Card(
                str(examples.origins[row]),
                sentence(
                    (f"cosine {said[row]:.3f}, rank {of_said[row]:,.0f}", "said"),
                    " of what is least alike first, truly ",
                    (f"score {truth[row]:g}, rank {of_truth[row]:,.0f}", "truth"),
                ),
                parts_of(examples, PAIR, row),
            )
            for row in worst.tolist()
        ),
        note=f"Of {len(truth):,} pairs, by how far the rank of the cosine is from that of the score. Mistakes in the scores often show here.",
    )


def ranked_blocks(examples: Examples, before: Search | None, after: Search) -> Iterator[Block]:
    """Of examples without a score: whether a text finds its partner."""
    searches = {"after training": after} | ({} if before is None else {"before training": before})
    count = len(after.candidates[0])
    yield Curve(
        "recall",
        "Found among the nearest",
        tuple(_recall(name, search) for name, search in searches.items()),
        x_title="how many of the nearest are looked at",
        y_title="share that has found its own",
        note=f"Of the first {len(after.queries):,} texts, each among {count:,} candidates.",
    )
    vectors, keys = after.candidates
    cosines = after.queries @ vectors.T
    right = hits(after.of_queries, after.of_partners, keys)
    own = np.where(right, cosines, -np.inf).max(axis=1)
    wrong = np.where(right | (after.of_queries[:, None] == keys), -np.inf, cosines)
    nearest = wrong.argmax(axis=1)
    ahead = wrong.max(axis=1) - own
    worst = [row for row in np.argsort(-ahead, kind="stable")[:WORST].tolist() if np.isfinite(ahead[row])]
    yield Cards(
        "misranked",
        "The pairs most wrongly ranked",
        tuple(
            Card(
                str(examples.origins[row]),
                sentence(
                    (f"cosine {wrong[row, nearest[row]]:.3f}", "said"),
                    " with a text that is not its own, ",
                    (f"{own[row]:.3f}", "truth"),
                    " with its own",
                ),
                (
                    *parts_of(examples, PAIR, row),
                    Text(_candidate(examples, after, int(nearest[row])), "nearer" if ahead[row] > 0 else "next"),
                ),
            )
            for row in worst
        ),
        note=f"{int((ahead >= 0).sum()):,} of {len(ahead):,} texts are at least as near to one that is not their own.",
        empty="There is nothing else to be found.",
    )


def _recall(name: str, search: Search) -> Line:
    at = depths(len(search.candidates[0]))
    pairs = search.of(len(search.queries))
    return recall_line(name, at, recalls(*pairs, both_ways=False, negatives=search.negatives, at=at, alike=True))


def _candidate(examples: Examples, search: Search, place: int) -> str:
    role, row = ("textPair", place) if place < len(search.partners) else ("negative", place - len(search.partners))
    return str(examples.column(role)[row].as_py())
