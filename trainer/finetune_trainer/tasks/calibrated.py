"""The calibration of a report: a curve, and what it says in words."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from finetune_trainer.report.blocks import Curve, Line
from finetune_trainer.scores.calibration import BINS, Calibration, calibration

EVEN = 0.02
"""Difference of two shares up to which they are called the same."""

Judged = tuple[NDArray[np.floating], NDArray[np.bool_]]
"""Probabilities that were said, and which of what they were said of is so; both of shape (answers,)."""


def calibration_curve(after: Judged, before: Judged | None, *, counted: str, x_title: str, y_title: str) -> Curve:
    """Of a model before and after training; `counted` says what a share is of: `it is right in {} of the rows`."""
    found = {"after training": calibration(*after)}
    if before is not None:
        found["before training"] = calibration(*before)
    return Curve(
        "calibration",
        "Calibration",
        tuple(
            Line(name, tuple(one.confidence.tolist()), tuple(one.right.tolist()), tuple(one.rows.tolist()))
            for name, one in found.items()
        ),
        x_title=x_title,
        y_title=y_title,
        diagonal=True,
        note=_note(found["after training"], found.get("before training"), counted),
    )


def _note(after: Calibration, before: Calibration | None, counted: str) -> str:
    said, right = _mean(after.confidence, after), _mean(after.right, after)
    if abs(said - right) <= EVEN:
        verdict = "neither on the whole"
    else:
        verdict = "too sure on the whole" if said > right else "too modest on the whole"
    errors = [f"{after.error:.3f} after training", *([] if before is None else [f"{before.error:.3f} before"])]
    sentences = [
        "Above the diagonal the model is too modest, below it too sure.",
        f"After training it is {verdict}: it says {100 * said:.1f} % in the mean, and {counted.format(f'{100 * right:.1f} %')}.",
        f"Expected calibration error (Guo et al. 2017, {BINS} bins): {', '.join(errors)}.",
    ]
    if before is not None and before.error < after.error:
        sentences.append("A low error alone is no merit: a model that guesses, and says so, has one, too.")
    return " ".join(sentences)


def _mean(shares: NDArray[np.float64], of: Calibration) -> float:
    return float(shares @ of.rows / max(1, of.rows.sum()))
