"""The section on data."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from finetune_trainer.data.survey import LabelRows, Lengths, SplitSurvey, Survey
from finetune_trainer.report.data import data_blocks
from tests.unit.trainer.report.runs import NASTY, finished_run
from tests.unit.trainer.report.test_report import Page, one_line, written

FOUND = Survey(
    (
        SplitSurvey("train", rows=3668, repeated=12, contradictory=4, trained=0),
        SplitSurvey("validation", rows=408, repeated=1, contradictory=0, trained=2),
    ),
    {"label": (LabelRows("same", {"train": 2474, "validation": 279}), LabelRows(NASTY, {"train": 3, "validation": 0}))},
    (Lengths("train", "tokens", {50: 53, 90: 75, 99: 95, 100: 128}, ("12 examples are cut at 128 tokens",)),),
)


def test_the_section_tells_rows_lengths_balance_and_what_is_rare(tmp_path: Path) -> None:
    html, _ = written(tmp_path, replace(finished_run(), survey=FOUND))
    section = one_line(Page(html).text)
    assert "train 3,668 12 4 –" in section
    assert "validation 408 1 0 2" in section
    assert "train 53 75 95 128" in section
    assert "12 examples are cut at 128 tokens." in section
    assert "same 2,474" in section
    assert f"hardly anything can be learned of {one_line(NASTY)} (3)." in section


def test_nothing_is_said_of_lengths_that_nobody_measured_or_labels_that_are_not_there() -> None:
    blocks = list(data_blocks(replace(FOUND, lengths=(), labels={})))
    assert [block.name for block in blocks] == ["rows"]


def test_of_a_thousand_rare_labels_some_are_named() -> None:
    labels = tuple(LabelRows(f"label {n}", {"train": 1}) for n in range(1000))
    note = list(data_blocks(replace(FOUND, labels={"label": labels})))[-1].note
    assert len(re.findall(r"label \d+ \(1\)", note)) == 10
    assert note.endswith("and 990 more.")


def noted(**notes: tuple[str, ...]) -> str:
    """What is said of lengths with such notes, by split."""
    lengths = tuple(Lengths(split, "tokens", {50: 1, 90: 2, 99: 3, 100: 4}, found) for split, found in notes.items())  # type: ignore[arg-type]
    (block,) = (block for block in data_blocks(replace(FOUND, lengths=lengths)) if block.name == "lengths")
    return block.note.removeprefix("Half, 90 % and 99 % of the rows have at most so many. ")


def test_what_is_noted_of_all_splits_is_said_once() -> None:
    none = "no example is cut at 512 tokens"
    mean = "{} tokens an example in the mean"
    said = noted(train=(mean.format(19), none), validation=(mean.format(20), none), test=(mean.format(19), none))
    assert said == (
        "19 (train), 20 (validation) and 19 (test) tokens an example in the mean. No example is cut at 512 tokens."
    )


def test_what_is_noted_of_some_splits_says_which() -> None:
    said = noted(train=("1,200 examples are cut at 512 tokens",), validation=("no example is cut at 512 tokens",))
    assert said == "1,200 examples are cut at 512 tokens (train). No example is cut at 512 tokens (validation)."


def test_what_differs_by_several_numbers_stays_as_it_is_of_each_split() -> None:
    said = noted(
        train=("19 tokens in the mean, 12 of them learnt",), test=("18 tokens in the mean, 11 of them learnt",)
    )
    assert said == "19 tokens in the mean, 12 of them learnt (train); 18 tokens in the mean, 11 of them learnt (test)."
