"""What a trainer says of itself, as the status tells it."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from finetune_api.progress import NamedMetric, Progress, TrainerPhase, TrainerStatus
from finetune_api.status import ProgressStatus
from finetune_operator.decide.progress import duration
from finetune_operator.worlds.fake import may_follow
from tests.unit.operator.story import TUNED, Story, result_message

TRAINING, EVALUATING = TrainerPhase.TRAINING, TrainerPhase.EVALUATING


def told(story: Story) -> ProgressStatus:
    assert story.status.progress is not None
    return story.status.progress


def trains() -> Story:
    """At step 820 of 1377."""
    numbers = {"step": 820, "total_steps": 1377, "epoch": 1.786492374, "loss": 0.51234567}
    return Story().starts().runs().says(TRAINING, percent=59, remaining=371, **numbers)


def foreign(percent: int | None = None, remaining: int | None = None, **metrics: object) -> Progress:
    """As transformers' own callback says it."""
    named = [NamedMetric(name=name, value=str(value)) for name, value in metrics.items()]
    at = datetime.now(UTC)
    status = TrainerStatus(
        progress_percentage=percent, estimated_remaining_seconds=remaining, metrics=named, last_updated_time=at
    )
    return Progress(trainer_status=status)


# ------------------------------------------------------------------------------------------------------- what is shown


def test_steps_are_shown_as_people_read_them() -> None:
    progress = told(trains())
    assert (progress.shown, progress.remaining) == ("59 % (820/1377)", "6m")
    assert (progress.percent, progress.step, progress.total_steps, progress.attempt) == (59, 820, 1377, 1)
    assert (progress.epoch, progress.loss) == (1.78649, 0.512346)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        *[(0, "0s"), (59, "59s"), (60, "1m"), (3599, "59m"), (3600, "1h"), (7500, "2h5m"), (172799, "47h59m")],
        *[(172800, "2d"), (276000, "3d4h"), (10**12, "99999d")],
    ],
)
def test_a_duration_is_written_as_kubectl_writes_ages(seconds: int, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize("phase", TrainerPhase)
def test_the_reason_follows_the_trainer(phase: TrainerPhase) -> None:
    story = Story().starts().runs().says(phase)
    assert story.state() == ("Running", "Uploading" if phase is TrainerPhase.DONE else phase.value)
    assert told(story).phase == phase


def test_without_a_word_from_the_trainer_the_job_trains_and_shows_no_progress() -> None:
    story = Story().starts().runs()
    assert (story.state(), story.status.progress) == (("Running", "Training"), None)


def test_before_the_first_step_the_trainers_own_words_are_shown() -> None:
    story = Story().starts().runs().says(TrainerPhase.VALIDATING, message="preparing the examples")
    assert told(story).shown == "preparing the examples"
    story.says(EVALUATING, message="before training")
    assert told(story).shown == "before training"
    assert told(story.says(TRAINING)).shown is None
    story.says(EVALUATING, message="200 of 400 texts written", step=0, total_steps=10)
    assert told(story).shown == "0 % (0/10)"


def test_what_would_move_a_terminals_cursor_is_not_shown() -> None:
    story = Story().starts().runs().says(EVALUATING, message="a\x1b[2Jb\n" + "x" * 100)
    assert told(story).shown == "a[2Jb" + "x" * 59


def test_the_metric_is_shown_as_it_was_last_measured_and_then_before_and_after() -> None:
    story = trains().says(EVALUATING, eval_loss=0.4, eval_f1=0.8712, eval_accuracy=0.9)
    assert story.status.summary == "f1 0.871"
    assert [(m.name, m.value) for m in told(story).metrics or []] == [
        ("eval_loss", 0.4),
        ("eval_f1", 0.8712),
        ("eval_accuracy", 0.9),
    ]
    assert story.ends(0, TUNED).status.summary == "f1 0.512 → 0.874"


def test_a_trainer_without_last_words_leaves_the_metric_that_it_told_last() -> None:
    story = trains().says(EVALUATING, eval_f1=0.8712).ends(0, "no result of ours")
    assert (story.status.phase, story.status.summary, story.status.metrics) == ("Succeeded", "f1 0.871", None)
    assert "its metrics are only as it last told them while it trained (f1 0.871)" in (story.status.message or "")


def test_numbers_that_json_has_no_word_for_are_left_out() -> None:
    story = Story().starts().runs()
    story.world.say(
        story.key, foreign(loss="nan", eval_f1="inf", grad_norm="-Infinity", note="hello", current_step="1e300")
    )
    progress = told(story.looks())
    assert (progress.loss, progress.metrics, progress.step) == (None, None, None)


def test_transformers_own_names_are_understood() -> None:
    story = Story().starts().runs()
    story.world.say(
        story.key, foreign(40, 90, current_step=4, total_steps=10, current_epoch=0.5, loss=0.25, grad_norm=2.0)
    )
    progress = told(story.looks())
    assert (progress.shown, progress.remaining, progress.epoch) == ("40 % (4/10)", "1m", 0.5)
    assert [m.name for m in progress.metrics or []] == ["grad_norm"]
    story.world.say(story.key, foreign(100, 0, loss=0.25))  # its last report has no steps
    assert told(story.looks()).shown == "100 %"


def test_at_most_16_metrics_are_told_those_of_evaluations_first() -> None:
    story = Story().starts().runs()
    story.world.say(story.key, foreign(1, **{f"m{n}": n for n in range(20)}, eval_f1=0.5, **{"x" * 65: 1}))
    names = [m.name for m in told(story.looks()).metrics or []]
    assert names == ["eval_f1", *(f"m{n}" for n in range(15))]


# -------------------------------------------------------------------------------------------------- when it is written


def test_a_report_that_says_nothing_new_is_not_written() -> None:
    story = trains()
    writes, before = story.writes, told(story)
    story.waits(30).says(
        TRAINING, percent=59, remaining=371, step=820, total_steps=1377, epoch=1.786492374, loss=0.51234567
    )
    assert (story.writes, told(story)) == (writes, before)


def test_when_it_advanced_is_told_apart_from_when_it_spoke() -> None:
    story = trains()
    began = told(story).advanced_at
    story.waits(60).says(TRAINING, step=820, total_steps=1377, loss=0.4)
    assert (told(story).advanced_at, told(story).updated_at) == (began, story.now)
    story.waits(60).says(TRAINING, step=821, total_steps=1377, loss=0.4)
    assert told(story).advanced_at == told(story).updated_at == story.now


def test_when_a_checkpoint_was_first_told_of_is_kept() -> None:
    story = trains().says(TRAINING, step=830, checkpoint_step=800)
    saved = story.now
    story.waits(60).says(TRAINING, step=840, checkpoint_step=800)
    assert (told(story).checkpoint_step, told(story).checkpoint_time) == (800, saved)
    story.waits(60).says(TRAINING, step=940, checkpoint_step=900)
    assert told(story).checkpoint_time == story.now


def test_phases_of_the_trainer_are_no_events() -> None:
    story = Story().starts().runs()
    events = len(story.events)
    story.says(TrainerPhase.DOWNLOADING).says(EVALUATING).says(TRAINING, step=1).says(EVALUATING).says(TRAINING, step=2)
    assert len(story.events) == events


# --------------------------------------------------------------------------------------------------- ends and restarts


def test_a_job_that_has_succeeded_is_all_done_and_nothing_remains() -> None:
    progress = told(trains().ends(0, TUNED))
    assert (progress.phase, progress.percent, progress.shown, progress.remaining) == (
        "Done",
        100,
        "100 % (820/1377)",
        None,
    )


def test_of_a_job_that_has_failed_it_stays_how_far_it_got() -> None:
    story = trains().ends(11, result_message("failed"))
    assert story.status.phase == "Failed"
    assert (told(story).shown, told(story).remaining) == ("59 % (820/1377)", None)


def test_the_last_words_of_an_attempt_are_heard_with_its_end() -> None:
    story = trains()
    story.world.say(story.key, Progress.now(TRAINING, story.now, percent=60, step=830, total_steps=1377))
    assert told(story.ends(1)).shown == "60 % (830/1377)"


def test_a_finished_job_hears_no_report_any_more() -> None:
    story = trains().ends(0, TUNED)
    before = story.status
    assert story.says(TRAINING, percent=10, step=137, total_steps=1377).status == before


def test_whoever_writes_another_progress_of_a_finished_run_is_refused() -> None:
    story = trains().ends(0, TUNED)
    later = told(story).model_copy(update={"percent": 10})
    assert may_follow(story.status, story.status)
    assert not may_follow(story.status, story.status.model_copy(update={"progress": later}))
    assert not may_follow(story.status, story.status.model_copy(update={"progress": None}))


def test_a_suspended_job_shows_how_far_it_got_and_that_nothing_goes_on() -> None:
    story = trains().is_edited(suspend=True)
    assert story.status.reason == "Suspending"
    assert (told(story).shown, told(story).remaining) == ("59 % (820/1377)", None)
    story.ends(30, result_message("preempted"))
    assert story.status.reason == "Suspended"
    assert (told(story).shown, told(story).remaining) == ("59 % (820/1377)", None)


def test_after_a_restart_it_shows_where_the_run_is_until_the_next_attempt_gets_there() -> None:
    story = trains().ends(30, result_message("preempted")).runs().says(TrainerPhase.DOWNLOADING)
    assert story.state() == ("Running", "Downloading")
    progress = told(story)
    assert (progress.attempt, progress.shown, progress.loss) == (2, "59 % (820/1377)", None)
    story.says(TrainerPhase.RESUMING, message="from step 800").says(TRAINING, percent=58, step=801, total_steps=1377)
    assert told(story).shown == "58 % (801/1377)"


def test_what_an_attempt_before_the_latest_says_is_not_heard() -> None:
    story = trains()
    late = story.world.heard[story.key]
    story.ends(30, result_message("preempted")).runs().says(TRAINING, percent=60, step=827, total_steps=1377)
    before = told(story)
    decision = story.decision(report=replace(late, at=story.now + timedelta(seconds=1)))
    assert decision.status is not None
    assert decision.status.progress == before


def test_another_run_begins_without_the_progress_of_the_last_one() -> None:
    story = trains().ends(0, TUNED).is_edited(runId="again")
    assert story.status.progress is None


@pytest.mark.parametrize("phase", ["Quantizing", None, 7, ["Done"], {"a": 1}], ids=str)
def test_a_phase_that_only_a_later_trainer_knows_is_training(phase: object) -> None:
    document = Progress.now(TRAINING, datetime.now(UTC)).wire() | {"phase": phase}
    assert Progress.model_validate(document).phase is TRAINING
