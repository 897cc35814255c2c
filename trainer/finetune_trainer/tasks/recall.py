"""Of whatever is searched for by its vectors: the curve of recall by rank, and whether the validation rows can tell one model from another."""

from __future__ import annotations

from collections.abc import Sequence

from finetune_api.failures import FailureReason, JobError
from finetune_trainer.report.blocks import Line
from finetune_trainer.scores import Score

WORST = 12
"""Pairs most wrongly ranked that are shown of each split."""
DEPTHS = (1, 2, 3, 5, 10, 20, 50)
"""Ranks at which recall is shown."""
NEEDED = {"recall_at_1": 1, "recall_at_5": 5, "loss": 1}
"""By metric the wrong answers that some query must have, or it is the same whatever the model says."""


def refuse_certain(metric: str, wrong: int, rows: int) -> None:
    """Raise JobError DATA_INVALID where `metric` cannot choose a model: of `rows` validation rows none has more than so many `wrong` answers
    that the right one has to be told from."""
    if wrong >= NEEDED.get(metric, 0):
        return
    other = ", or set spec.training.evaluation.metric to recall_at_1" if wrong else ""
    raise JobError(
        FailureReason.DATA_INVALID,
        f"what belongs to one of the {rows:,} validation rows has to be told from {wrong} others at most, so their {metric}, by which the "
        f"best model is chosen, would be {0 if metric == 'loss' else 1} whatever the model says",
        field="spec.training.evaluation.metric",
        remedy=f"Give more validation rows that differ (a larger validationFraction, or splits.validation){other}.",
    )


def depths(candidates: int) -> list[int]:
    """The ranks that there are among so many candidates."""
    return [depth for depth in DEPTHS if depth <= candidates]


def recall_line(name: str, at: Sequence[int], found: Sequence[Score]) -> Line:
    """Of `recall_at_<k>` for each of the ranks `at`, in their order."""
    return Line(name, tuple(map(float, at)), tuple(score.result for score in found))
