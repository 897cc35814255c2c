"""What predictions are worth: confusion, per-label scores, how sure the difference is, and the worst mistakes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from finetune_trainer.report.facts import Predictions

RESAMPLES = 5000
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Interval:
    low: float
    high: float

    @property
    def is_clear(self) -> bool:
        """Whether zero lies outside."""
        return self.low > 0 or self.high < 0


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


@dataclass(frozen=True)
class Tally:
    """What the metrics are made from: for each label the rows that are right, that have it, and that were said to have it.

    Each of shape (…, labels).
    """

    right: NDArray[np.float64]
    truth: NDArray[np.float64]
    said: NDArray[np.float64]

    def metric(self, name: str) -> NDArray[np.float64]:
        """`accuracy`, `macro_f1` (over the labels that are there or were said) or `f1` (of the last label), shape (…)."""
        if name == "accuracy":
            return _ratio(self.right.sum(axis=-1), self.truth.sum(axis=-1))
        occurs = self.truth + self.said
        f1 = _ratio(2 * self.right, occurs)
        if name == "macro_f1":
            return _ratio(f1.sum(axis=-1), (occurs > 0).sum(axis=-1))
        if name == "f1":
            return np.asarray(f1[..., -1])
        raise ValueError(f"no metric {name!r} is known")


def difference_interval(name: str, predictions: Predictions, seed: int) -> Interval | None:
    """The 95 % interval of after minus before, by paired bootstrap over rows; None without predictions from before.

    The percentile interval of Efron and Tibshirani, An Introduction to the Bootstrap (1993), chapter 13, pairing as in Koehn
    (2004). For metrics of counts, rows with equal truth and equal predictions are interchangeable, so a resample of
    rows is one multinomial draw over the kinds of rows there are: the same distribution, at a cost that does not grow with rows.
    """
    if predictions.before is None or len(predictions.examples) == 0:
        return None
    random = np.random.default_rng(seed)
    if name == "loss":
        differences = _loss_differences(predictions, random)
    else:
        differences = _metric_differences(name, predictions, random)
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(differences, [tail, 1 - tail])
    return Interval(float(low), float(high))


def _metric_differences(name: str, predictions: Predictions, random: np.random.Generator) -> NDArray[np.float64]:
    assert predictions.before is not None
    labels = predictions.after.shape[1]
    said = [predictions.before.argmax(axis=1), predictions.after.argmax(axis=1)]
    kinds, number = np.unique(np.stack([predictions.examples.numbers("label"), *said]), axis=1, return_counts=True)
    # One row a kind, one column a label: a resample's counts times these give its tallies.
    truth, before, after = (np.eye(labels)[kind] for kind in kinds)
    differences = []
    # Blocks bound the memory when there are many kinds.
    for size in _blocks(RESAMPLES, max(1, 4_000_000 // max(len(number), labels))):
        drawn = random.multinomial(number.sum(), number / number.sum(), size=size).astype(np.float64)
        old = Tally(drawn @ (truth * before), drawn @ truth, drawn @ before)
        new = Tally(drawn @ (truth * after), drawn @ truth, drawn @ after)
        differences.append(new.metric(name) - old.metric(name))
    return np.concatenate(differences)


def _loss_differences(predictions: Predictions, random: np.random.Generator) -> NDArray[np.float64]:
    assert predictions.before is not None
    truth = predictions.examples.numbers("label")
    rows = np.arange(len(truth))
    smallest = np.finfo(np.float32).tiny
    before = -np.log(np.maximum(predictions.before[rows, truth], smallest).astype(np.float64))
    after = -np.log(np.maximum(predictions.after[rows, truth], smallest).astype(np.float64))
    difference = after - before
    means = [
        difference[random.integers(0, len(rows), size=(size, len(rows)))].mean(axis=1)
        for size in _blocks(RESAMPLES, max(1, 4_000_000 // len(rows)))
    ]
    return np.concatenate(means)


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


def _blocks(total: int, largest: int) -> list[int]:
    return [min(largest, total - start) for start in range(0, total, largest)]


def _ratio(part: NDArray[np.generic], whole: NDArray[np.generic]) -> NDArray[np.float64]:
    part, whole = np.asarray(part, dtype=np.float64), np.asarray(whole, dtype=np.float64)
    return np.asarray(np.divide(part, whole, out=np.zeros_like(part), where=whole != 0))
