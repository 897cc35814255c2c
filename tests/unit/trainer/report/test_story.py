"""What the report says of a metric and of its interval."""

from __future__ import annotations

from dataclasses import replace

import pytest

from finetune_api.result import MetricResult
from finetune_trainer.report.story import MetricRow, certainty, forgotten, headline, metric_rows, resamples
from finetune_trainer.scores import Interval
from tests.unit.trainer.report.runs import finished_run


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
        ("f1", 0.5, 0.5, Interval(-0.1, 0.1), "F1 stayed at 0.500", "may be chance"),
        ("f1", 0.5, 0.5, Interval(0, 0), "F1 stayed at 0.500", "it is the same before and after"),
        ("macro_f1", 0.5, 0.7, Interval(0.1, 0.3), "Macro-F1 rose from 0.500 to 0.700", "That is +0.200"),
        ("chrf", 50, 70, Interval(10, 30), "chrF rose from 50.000 to 70.000", "That is +20.000"),
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


@pytest.mark.parametrize(("new_head", "says"), [(True, "there was little to forget"), (False, "")])
def test_what_was_forgotten_is_said_of_the_first_metric_and_of_a_new_head_that_it_had_nothing_to_forget(
    new_head: bool, says: str
) -> None:
    facts = finished_run(with_test=True)
    assert forgotten(facts, metric_rows(facts)) == ""
    facts = replace(
        facts,
        has_new_head=new_head,
        metrics=[*facts.metrics, MetricResult(name="f1", split="retention", baseline=0.8, value=0.6)],
        intervals={**facts.intervals, ("retention", "f1"): Interval(-0.3, -0.1)},
        rows_by_split={**facts.rows_by_split, "retention": 50},
    )
    rows = metric_rows(facts)
    assert [*dict.fromkeys(row.split for row in rows)] == ["test", "validation", "retention"]
    said = forgotten(facts, rows)
    assert said.startswith("F1 fell from 0.800 to 0.600 on the 50 retention rows. The model got worse by 0.200")
    assert ("head" in said) == new_head and says in said
