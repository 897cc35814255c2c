"""The numbers of the report, against scipy and scikit-learn."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy.stats import bootstrap  # type: ignore[import-untyped]
from sklearn.metrics import f1_score, precision_recall_fscore_support

from finetune_api.result import MetricResult
from finetune_trainer.report.measures import (
    CONFIDENCE,
    Interval,
    Tally,
    confusion,
    difference_interval,
    scores,
    worst_mistakes,
)
from finetune_trainer.report.story import MetricRow, certainty, headline, metric_rows
from tests.unit.trainer.report.runs import finished_run, predictions


@pytest.mark.parametrize("name", ["accuracy", "f1", "macro_f1", "loss"])
def test_the_interval_is_that_of_scipys_paired_bootstrap(name: str) -> None:
    part = predictions("validation", 120, 2, pairs=False, skill=1.0)
    assert part.before is not None
    truth = part.examples.numbers("label")
    old, new = part.before.argmax(axis=1), part.after.argmax(axis=1)
    rows = np.arange(120)
    old_loss, new_loss = (-np.log(p[rows, truth].astype(np.float64)) for p in (part.before, part.after))

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
    ours = difference_interval(name, part, seed=1)
    assert ours is not None
    width = theirs.high - theirs.low
    assert ours.low == pytest.approx(theirs.low, abs=0.07 * width)
    assert ours.high == pytest.approx(theirs.high, abs=0.07 * width)


def test_macro_f1_of_every_resample_is_scikit_learns_default() -> None:
    random = np.random.default_rng(7)
    for _ in range(50):
        # Few rows of many labels: some occur nowhere, some only in the truth, some only among the predictions.
        truth, said = random.integers(0, 6, size=(2, 4))
        tally = Tally(*(np.eye(6)[rows].sum(axis=0) for rows in (truth[truth == said], truth, said)))
        assert float(tally.metric("macro_f1")) == pytest.approx(f1_score(truth, said, average="macro", zero_division=0))


def test_the_interval_of_accuracy_is_about_the_normal_one() -> None:
    part = predictions("validation", 5000, 3, pairs=False, skill=2.0)
    assert part.before is not None
    truth = part.examples.numbers("label")
    gain = (part.after.argmax(axis=1) == truth).astype(float) - (part.before.argmax(axis=1) == truth)
    error = 1.96 * gain.std() / np.sqrt(len(gain))
    interval = difference_interval("accuracy", part, seed=3)
    assert interval is not None
    assert interval.low == pytest.approx(gain.mean() - error, abs=0.1 * error)
    assert interval.high == pytest.approx(gain.mean() + error, abs=0.1 * error)


def test_the_interval_is_repeatable_and_depends_on_the_seed() -> None:
    part = predictions("validation", 100, 2, pairs=False)
    assert difference_interval("f1", part, 1) == difference_interval("f1", part, 1)
    assert difference_interval("f1", part, 1) != difference_interval("f1", part, 2)


def test_equal_predictions_differ_by_nothing() -> None:
    part = predictions("validation", 100, 2, pairs=False)
    assert difference_interval("f1", replace(part, before=part.after), 1) == Interval(0.0, 0.0)


def test_a_thousand_labels_take_bounded_memory() -> None:
    import tracemalloc

    part = predictions("validation", 1000, 1000, pairs=False, skill=8.0)
    tracemalloc.start()
    assert difference_interval("macro_f1", part, 1) is not None
    assert tracemalloc.get_traced_memory()[1] < 500e6
    tracemalloc.stop()


def test_scores_are_those_of_scikit_learn() -> None:
    part = predictions("validation", 300, 4, pairs=False, skill=1.0)
    truth, said = part.examples.numbers("label"), part.after.argmax(axis=1)
    ours = scores(confusion(truth, said, 5), ["a", "b", "c", "d", "never"])
    theirs = precision_recall_fscore_support(truth, said, labels=range(5), zero_division=np.nan)
    scored = np.array([(s.precision, s.recall, s.f1, s.rows) for s in ours], dtype=float)  # None as nan
    np.testing.assert_allclose(scored, np.transpose(theirs))
    assert (ours[4].precision, ours[4].recall, ours[4].f1) == (None, None, None)


def test_the_surest_mistakes_come_first_and_know_their_place() -> None:
    part = predictions("validation", 50, 2, pairs=True, skill=0.5)
    mistakes = worst_mistakes(part, ["no", "yes"], 5)
    confidences = [mistake.confidence for mistake in mistakes]
    assert confidences == sorted(confidences, reverse=True)
    wrong = part.after.argmax(axis=1) != part.examples.numbers("label")
    assert confidences[0] == pytest.approx(part.after.max(axis=1)[wrong].max())
    assert all(mistake.truth != mistake.said for mistake in mistakes)
    row = list(part.examples.values("text")).index(mistakes[0].text)
    assert mistakes[0].origin == f"dev.tsv, line {row + 2}"


@pytest.mark.parametrize(
    ("metric", "baseline", "value", "interval", "sentence", "meaning"),
    [
        (
            "f1",
            0.5,
            0.8,
            Interval(0.2, 0.4),
            "F1 rose from 0.500 to 0.800",
            "That is +0.300 (95 % interval +0.200 to +0.400)",
        ),
        ("f1", 0.5, 0.52, Interval(-0.02, 0.06), "F1 rose from 0.500 to 0.520", "may be chance (95 % interval −0.020"),
        ("f1", 0.8, 0.5, Interval(-0.4, -0.2), "F1 fell from 0.800 to 0.500", "The model got worse by 0.300"),
        ("loss", 0.7, 0.3, Interval(-0.5, -0.3), "Loss fell from 0.700 to 0.300", "That is −0.400"),
        ("f1", 0.5, 0.5, Interval(0, 0), "F1 stayed at 0.500", "may be chance"),
    ],
)
def test_the_words_say_what_the_interval_says(
    metric: str, baseline: float, value: float, interval: Interval, sentence: str, meaning: str
) -> None:
    row = MetricRow(metric, "validation", 1000, baseline, value, interval)
    assert headline(row) == f"{sentence} on the 1,000 validation rows."
    assert meaning in certainty(row)


def test_the_difference_of_the_table_lies_within_its_interval() -> None:
    for row in metric_rows(finished_run(with_test=True)):
        assert row.interval is not None
        assert row.difference is not None
        assert row.interval.low <= row.difference <= row.interval.high


def test_a_metric_of_unmeasured_rows_has_no_interval() -> None:
    facts = replace(finished_run(), metrics=[MetricResult(name="f1", split="test", value=0.5)])
    (row,) = metric_rows(facts)
    assert row.interval is None
