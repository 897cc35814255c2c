"""Numbers of which little can be learnt, or by which no model can be chosen: where that is by a correlation, the validation rows must have
something to correlate with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finetune_api.failures import FailureReason, JobError

CLOSE = 0.01
"""Numbers that lie within so little are as good as one to the loss: what a model answers at first differs by more."""


def notes_of_close(numbers: NDArray[np.floating[Any]]) -> list[str]:
    """A sentence about training numbers that are learnt as they are, where they are hardly different ones."""
    if np.ptp(numbers) >= CLOSE:
        return []
    return [
        f"The numbers to learn lie between {numbers.min():g} and {numbers.max():g}, so close together that the model hardly learns to tell "
        "them apart: its answers differ by more before any training. Multiply them, so that they lie around 1."
    ]


def refuse_constant(metric: str, numbers: NDArray[np.floating[Any]], *, others: Sequence[str]) -> None:
    """Raise JobError DATA_INVALID where `metric` is a correlation and all `numbers`, those of the validation rows, are the same. `others`
    are metrics that would do."""
    if metric in ("pearson", "spearman") and numbers.min() == numbers.max():
        raise JobError(
            FailureReason.DATA_INVALID,
            f"all {len(numbers):,} validation rows have the number {numbers[0]:g}, so their {metric}, by which the best model is "
            "chosen, says nothing",
            field="spec.training.evaluation.metric",
            remedy="Give validation rows with other numbers (a larger validationFraction, or splits.validation), or set "
            f"spec.training.evaluation.metric to {' or '.join(others)}.",
        )
