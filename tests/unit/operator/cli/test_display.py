"""What a report of a trainer looks like, word by word."""

from __future__ import annotations

import io
from datetime import UTC, datetime
from typing import Any

import pytest
from rich.console import Console

from finetune_api.progress import Progress, TrainerPhase
from finetune_operator.cli.display import PlainDisplay, describe, duration


def progress(phase: TrainerPhase = TrainerPhase.TRAINING, **facts: Any) -> Progress:
    return Progress.now(phase, datetime(2026, 1, 1, tzinfo=UTC), **facts)


NUMBERS: dict[str, Any] = {"step": 120, "total_steps": 840, "loss": 0.512, "epoch": 0.4, "samples_per_second": 31.2}


def test_all_that_is_known_is_told_the_most_wanted_first() -> None:
    known = progress(remaining=125, percent=14, eval_f1=0.871, eval_accuracy=0.9, eval_macro_f1=0.8, **NUMBERS)
    assert describe(known) == "step 120 of 840 · 2m 5s left · loss 0.512 · f1 0.871 · epoch 0.4 · 31 samples/s"


@pytest.mark.parametrize(
    ("rate", "said"), [(0.41, "0.41"), (0.036, "0.036"), (3.14, "3.1"), (9.96, "10"), (31.2, "31"), (1234.5, "1234")]
)
def test_a_large_model_on_few_cores_does_not_look_as_if_it_stood_still(rate: float, said: str) -> None:
    assert describe(progress(samples_per_second=rate)) == f"{said} samples/s"


@pytest.mark.parametrize(
    ("metrics", "said"),
    [
        ({"eval_loss": 2.0}, ""),
        ({"eval_loss": 2.0, "eval_accuracy": 0.9}, "accuracy 0.900"),
        ({"eval_macro_f1": 0.8, "eval_accuracy": 0.9}, "macro_f1 0.800"),
        ({"eval_loss": 2.0, "eval_recall_at_1": 0.25, "eval_recall_at_5": 0.5}, "recall_at_1 0.250"),
    ],
)
def test_the_metric_is_the_one_that_the_trainer_tells_first(metrics: dict[str, float], said: str) -> None:
    assert describe(progress(**metrics)) == said


def test_time_left_is_told_of_training_only() -> None:
    assert "left" not in describe(progress(TrainerPhase.EVALUATING, remaining=125, **NUMBERS))


def test_before_there_are_numbers_the_message_is_told() -> None:
    assert describe(progress(TrainerPhase.RESUMING, message="from step 27")) == "from step 27"


def test_what_a_phase_says_comes_before_the_numbers_of_training() -> None:
    known = progress(TrainerPhase.EVALUATING, message="31 of 547 texts written", **NUMBERS)
    assert describe(known).startswith("31 of 547 texts written · step 120 of 840 · ")


@pytest.mark.parametrize(("seconds", "said"), [(8.4, "8s"), (59.6, "1m 0s"), (125, "2m 5s"), (3780, "1h 3m")])
def test_durations_read_as_people_say_them(seconds: float, said: str) -> None:
    assert duration(seconds) == said


def test_plain_output_tells_news_of_training_now_and_then_and_nothing_else() -> None:
    output = io.StringIO()
    display = PlainDisplay(Console(file=output, width=40))
    display.update(progress())
    display.update(progress(TrainerPhase.EVALUATING, percent=1, **NUMBERS))
    assert output.getvalue() == ""
    display.update(progress(percent=1, **NUMBERS))
    display.update(progress(percent=2, **NUMBERS))
    display.line("[bold]a line of the log with a :smile: that is much longer than the console is wide")
    assert output.getvalue() == (
        "1 % · step 120 of 840 · loss 0.512 · epoch 0.4 · 31 samples/s\n"
        "[bold]a line of the log with a :smile: that is much longer than the console is wide\n"
    )
