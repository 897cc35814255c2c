"""Intervals against scipy, against the normal one, and against their own promises."""

from __future__ import annotations

import tracemalloc
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from finetune_trainer.scores import Interval, Score, mean, paired_intervals, resamples_of
from finetune_trainer.scores.bootstrap import CONFIDENCE
from finetune_trainer.scores.labels import label_scores, log_loss


@dataclass
class Split:
    """Made-up predictions of one split, before and after."""

    truth: NDArray[np.int64]
    probabilities: list[NDArray[np.float32]]

    @property
    def said(self) -> list[NDArray[np.int64]]:
        return [found.argmax(axis=1) for found in self.probabilities]

    @property
    def scores(self) -> list[list[Score]]:
        labels = self.probabilities[0].shape[1]
        return [
            [*label_scores(self.truth, found.argmax(axis=1), labels), log_loss(self.truth, found)]
            for found in self.probabilities
        ]

    def intervals(self, seed: int = 1) -> dict[str, Interval]:
        return paired_intervals(*self.scores, seed)


def split(rows: int, labels: int, *, skill: float) -> Split:
    random = np.random.default_rng(7)
    truth = random.integers(0, labels, rows)

    def probabilities(skill: float) -> NDArray[np.float32]:
        logits = random.normal(size=(rows, labels))
        logits[np.arange(rows), truth] += skill
        powers = np.exp(logits)
        return np.asarray(powers / powers.sum(axis=1, keepdims=True), dtype=np.float32)

    return Split(truth, [probabilities(0.0), probabilities(skill)])


@pytest.mark.parametrize("name", ["accuracy", "f1", "macro_f1", "loss"])
def test_the_interval_is_that_of_scipys_paired_bootstrap(name: str) -> None:
    from scipy.stats import bootstrap

    part = split(120, 2, skill=1.0)
    truth, (old, new), rows = part.truth, part.said, np.arange(120)
    old_loss, new_loss = (-np.log(p[rows, truth].astype(np.float64)) for p in part.probabilities)

    def f1(said: Any, label: int, index: Any) -> float:
        true, told = truth[index] == label, said[index] == label
        return 2 * float((true & told).sum()) / float(true.sum() + told.sum())

    def difference(index: Any) -> float:
        if name == "loss":
            return float(new_loss[index].mean() - old_loss[index].mean())
        if name == "accuracy":
            return float((truth == new)[index].mean() - (truth == old)[index].mean())
        if name == "f1":
            return f1(new, 1, index) - f1(old, 1, index)
        return sum(f1(new, label, index) - f1(old, label, index) for label in (0, 1)) / 2

    theirs = bootstrap(
        (rows,), difference, method="percentile", confidence_level=CONFIDENCE, n_resamples=3000, vectorized=False, rng=5
    ).confidence_interval
    ours = part.intervals()[name]
    width = theirs.high - theirs.low
    assert ours.low == pytest.approx(theirs.low, abs=0.07 * width)
    assert ours.high == pytest.approx(theirs.high, abs=0.07 * width)


def test_all_metrics_have_intervals_of_the_same_draw() -> None:
    part = split(300, 2, skill=1.0)
    alone = {old.name: paired_intervals([old], [new], 1)[old.name] for old, new in zip(*part.scores, strict=True)}
    assert part.intervals() == alone
    assert list(alone) == ["accuracy", "macro_f1", "f1", "loss"]


def test_the_interval_of_accuracy_is_about_the_normal_one() -> None:
    part = split(5000, 3, skill=2.0)
    old, new = part.said
    gain = (new == part.truth).astype(float) - (old == part.truth)
    error = 1.96 * gain.std() / np.sqrt(len(gain))
    interval = part.intervals()["accuracy"]
    assert interval.low == pytest.approx(gain.mean() - error, abs=0.1 * error)
    assert interval.high == pytest.approx(gain.mean() + error, abs=0.1 * error)


def test_the_interval_is_repeatable_and_depends_on_the_seed() -> None:
    part = split(100, 2, skill=2.5)
    assert part.intervals(1) == part.intervals(1)
    assert part.intervals(1)["f1"] != part.intervals(2)["f1"]


def test_equal_predictions_differ_by_nothing() -> None:
    _, after = split(100, 2, skill=2.5).scores
    assert set(paired_intervals(after, after, 1).values()) == {Interval(0.0, 0.0)}


def test_a_metric_that_was_measured_once_or_of_no_rows_has_no_interval() -> None:
    one, other = mean("loss", [1.0, 2.0]), mean("accuracy", [1.0, 0.0])
    assert paired_intervals([], [one], 1) == {}
    assert set(paired_intervals([one], [one, other], 1)) == {"loss"}
    assert paired_intervals([mean("loss", [])], [mean("loss", [])], 1) == {}


def test_resamples_in_which_a_metric_is_undefined_do_not_count() -> None:
    # Half of the resamples of two rows hold the one that weighs, or only that: the others say nothing.
    old, new = (mean("loss", [loss, 9.0], [1, 0]) for loss in (3.0, 1.0))
    assert paired_intervals([old], [new], 1) == {"loss": Interval(-2.0, -2.0)}
    nothing = mean("loss", [3.0, 9.0], [0, 0])
    assert paired_intervals([nothing], [nothing], 1) == {}


@pytest.mark.slow
def test_a_thousand_labels_of_a_hundred_thousand_rows_take_little_memory() -> None:
    """Three sums of each label, of each row, would be 2.4 GB before and as much after."""
    random = np.random.default_rng(3)
    truth, old, new = random.integers(0, 1000, size=(3, 100_000))
    assert resamples_of(len(truth)) == 1000
    tracemalloc.start()
    try:
        before, after = (label_scores(truth, said, 1000) for said in (old, np.where(truth < 900, truth, new)))
        found = paired_intervals(before, after, 1)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert found["macro_f1"].low < after[1].result - before[1].result < found["macro_f1"].high
    assert peak < 100e6
