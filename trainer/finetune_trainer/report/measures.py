"""What predictions are worth: confusion, per-label scores and the worst mistakes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from finetune_trainer.report.facts import Predictions


@dataclass(frozen=True)
class LabelScore:
    label: str
    precision: float | None
    """None where no row was said to have the label."""
    recall: float | None
    """None where no row has it."""
    f1: float | None
    """None where neither is."""
    rows: int
    """Rows that truly have the label."""


@dataclass(frozen=True)
class Mistake:
    text: str
    pair: str | None
    truth: str
    said: str
    confidence: float
    """Probability that the model gave to what it said."""
    origin: str


def confusion(truth: NDArray[np.int64], said: NDArray[np.int64], labels: int) -> NDArray[np.int64]:
    """Rows by true label (first axis) and predicted label (second), shape (labels, labels)."""
    return np.bincount(truth * labels + said, minlength=labels * labels).reshape(labels, labels)


def scores(counts: NDArray[np.int64], labels: list[str]) -> list[LabelScore]:
    """Precision, recall and F1 of each label."""
    said, truth = counts.sum(axis=0).tolist(), counts.sum(axis=1).tolist()
    return [
        LabelScore(
            label,
            precision=right / said[i] if said[i] else None,
            recall=right / truth[i] if truth[i] else None,
            f1=2 * right / (said[i] + truth[i]) if said[i] + truth[i] else None,
            rows=truth[i],
        )
        for i, (label, right) in enumerate(zip(labels, np.diag(counts).tolist(), strict=True))
    ]


def worst_mistakes(predictions: Predictions, labels: list[str], most: int) -> list[Mistake]:
    """The rows that the model got wrong with the highest confidence, the worst first."""
    said = predictions.after.argmax(axis=1)
    confidence = predictions.after.max(axis=1)
    examples = predictions.examples
    truth, text = examples.numbers("label"), examples.column("text")
    pair = examples.column("textPair") if "textPair" in examples.roles else None
    wrong = np.flatnonzero(said != truth)
    worst = wrong[np.argsort(-confidence[wrong], kind="stable")][:most]
    return [
        Mistake(
            text=text[row].as_py(),
            pair=None if pair is None else pair[row].as_py(),
            truth=labels[truth[row]],
            said=labels[said[row]],
            confidence=float(confidence[row]),
            origin=str(examples.origins[row]),
        )
        for row in worst
    ]
