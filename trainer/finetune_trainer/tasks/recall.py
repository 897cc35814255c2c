"""The curve of recall by rank, of whatever is searched for by its vectors."""

from __future__ import annotations

from collections.abc import Sequence

from finetune_trainer.report.blocks import Line
from finetune_trainer.scores import Score

WORST = 12
"""Pairs most wrongly ranked that are shown of each split."""
DEPTHS = (1, 2, 3, 5, 10, 20, 50)
"""Ranks at which recall is shown."""


def depths(candidates: int) -> list[int]:
    """The ranks that there are among so many candidates."""
    return [depth for depth in DEPTHS if depth <= candidates]


def recall_line(name: str, at: Sequence[int], found: Sequence[Score]) -> Line:
    """Of `recall_at_<k>` for each of the ranks `at`, in their order."""
    return Line(name, tuple(map(float, at)), tuple(score.result for score in found))
