"""The numbers of the report, against scikit-learn."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import precision_recall_fscore_support

from finetune_api.result import MetricResult
from finetune_trainer.report.measures import confusion, scores, worst_mistakes
from finetune_trainer.report.story import MetricRow, certainty, headline, metric_rows, resamples
from finetune_trainer.scores import Interval
from tests.unit.trainer.report.runs import finished_run, predictions


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


def test_the_note_says_how_many_resamples_the_intervals_are_of() -> None:
    rows = metric_rows(finished_run(with_test=True))
    assert resamples(rows) == "5,000 resamples"
    many = [replace(row, rows=20_001) if row.split == "test" else row for row in rows]
    assert resamples(many) == "1,000 resamples of the test rows and 5,000 resamples of the validation rows"
    assert resamples([replace(row, interval=None) for row in rows]) == ""
