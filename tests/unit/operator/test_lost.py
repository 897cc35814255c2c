"""An attempt that hangs is ended, and one that is lost with its node is given up, where that is safe."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from finetune_api.failures import FailureReason
from finetune_api.progress import TrainerPhase
from finetune_operator.worlds.protocol import ForgetAttempt, Refusal, StartTraining, StopAttempt, StopTraining
from tests.unit.operator.story import TUNED, Story, at_once, result_message

GRACE = 120


def done(story: Story) -> list[str]:
    return [type(action).__name__ for action in story.actions]


# ------------------------------------------------------------------------------------------------------------- stalled


def heard(**changes: Any) -> Story:
    story = Story(runId="r", **({"progressDeadlineSeconds": 100} | changes)).starts().runs()
    return story.says(TrainerPhase.TRAINING, percent=50, step=5, total_steps=10)


def test_a_trainer_that_says_nothing_for_half_as_long_again_as_it_may_is_ended_and_another_follows() -> None:
    story = heard().waits(149)
    assert (story.state(), story.recheck) == (("Running", "Training"), 1)
    story.waits(1)
    assert story.state() == ("Running", "TrainingStalled")
    assert done(story) == ["StartTraining"], "why is written first"
    assert story.looks().state() == ("Running", "TrainingStalled")
    [attempt] = story.world.attempts[story.key]
    assert story.actions[-1] == StopAttempt(attempt.name, attempt.uid)
    assert story.status.message == (
        f"{attempt.name} on node node-1 has said nothing for 150 seconds, and spec.progressDeadlineSeconds allows 100. "
        "It is ended, and the next attempt goes on from the last checkpoint."
    )
    assert story.waits(10).state() == ("Running", "TrainingStalled")
    assert "saves its work" not in (story.status.message or "")
    assert (story.status.message or "").endswith(
        "It was told to stop, and the next attempt goes on from the last checkpoint."
    )
    story.ends(137, deleting=True)
    [ended] = story.status.attempts or []
    assert (ended.reason, ended.counts_as, ended.exit_code) == ("TrainingStalled", "Failure", 137)
    assert (ended.message or "").endswith("and spec.progressDeadlineSeconds allows 100.")
    assert story.state() == ("Starting", "Restarting")
    assert done(story) == ["StartTraining", "StopAttempt"]


def test_a_trainer_that_goes_on_saying_the_same_lives() -> None:
    story = heard()
    for _ in range(10):
        story.waits(140).says(TrainerPhase.TRAINING, percent=50, step=5, total_steps=10)
    assert done(story) == ["StartTraining"]


@pytest.mark.parametrize(
    "facts",
    [
        {"deleting": True},  # it has time to save
        {"exit_code": 0},  # its trainer has ended
        {"out_of_touch": Story().now},  # its node is gone, which is another story
    ],
)
def test_silence_that_something_else_explains_is_left_to_that(facts: dict[str, Any]) -> None:
    story = heard()
    story.world.change_latest(story.key, **facts)
    story.waits(1000)
    assert "StopAttempt" not in done(story)


def test_who_never_said_anything_or_has_no_deadline_may_be_silent() -> None:
    silent = Story(progressDeadlineSeconds=100).starts().runs().waits(10_000)
    free = heard(progressDeadlineSeconds=None).waits(10_000)
    assert done(silent) == done(free) == ["StartTraining"]


def test_one_that_saves_after_all_is_no_failure() -> None:
    story = heard().waits(150).ends(30, result_message("preempted", step=7), deleting=True)
    [ended] = story.status.attempts or []
    assert (ended.reason, ended.counts_as, ended.step) == ("Preempted", "Stop", 7)


def test_a_deadline_that_comes_while_it_is_silent_counts_from_when_it_fell_silent() -> None:
    story = heard(progressDeadlineSeconds=None).waits(140).is_edited(progressDeadlineSeconds=100)
    assert story.state() == ("Running", "Training")
    assert story.waits(10).state() == ("Running", "TrainingStalled")


def test_the_end_of_a_trainer_that_found_out_itself_counts_and_points_at_the_stacks() -> None:
    story = heard(backoffLimit=0).ends(22, error=(FailureReason.TRAINING_STALLED, "there was no sign of progress"))
    [ended] = story.status.attempts or []
    assert (ended.reason, ended.counts_as, ended.message) == (
        "TrainingStalled",
        "Failure",
        "there was no sign of progress",
    )
    assert story.state() == ("Failed", "BackoffLimitExceeded")
    assert "Look at the stacks at the end of the attempt's log" in (story.status.message or "")


def test_what_is_about_to_be_ended_is_not_counted_before_it_has_ended() -> None:
    story = heard(backoffLimit=0).waits(150).looks()
    assert [limits.limits.backoff_limit for _, limits in story.world.trainings.values()] == [0]
    assert story.looks().looks().state() == ("Running", "TrainingStalled")
    assert done(story) == ["StartTraining", "StopAttempt"]


# ---------------------------------------------------------------------------------------------------------------- lost


def on_a_dead_node(**changes: Any) -> Story:
    """Its node was out of touch for a minute when the cluster told the pod to stop."""
    story = Story(runId="r", **changes).starts().runs()
    story.world.change_latest(story.key, out_of_touch=story.now)
    story.waits(60)
    story.world.change_latest(story.key, deleting=True, gone_by=story.now + timedelta(seconds=GRACE))
    return story.looks()


def test_a_pod_of_a_dead_node_is_given_up_five_minutes_after_it_should_be_gone_and_the_next_one_goes_on() -> None:
    story = on_a_dead_node()
    assert story.state() == ("Running", "NodeLost")
    story.waits(GRACE + 30)
    assert story.state() == ("Running", "NodeLost")
    assert "Else it is given up at 00:08:05 UTC." in (story.status.message or "")
    assert story.waits(269).state() == ("Running", "NodeLost")
    assert (done(story), story.recheck) == (["StartTraining"], 1)
    [attempt] = story.world.attempts[story.key]
    story.waits(1)
    assert [(a.reason, a.end_time) for a in story.status.attempts or []] == [("NodeLost", None)]
    assert done(story) == ["StartTraining"], "why is written first"
    story.looks()
    assert done(story)[:3] == ["StartTraining", "StopTraining", "ForgetAttempt"]
    assert ForgetAttempt(attempt.name, attempt.uid) in story.actions
    assert "is given up. The next attempt goes on from the last checkpoint." in (story.status.message or "")
    story.looks()
    assert done(story) == ["StartTraining", "StopTraining", "ForgetAttempt", "StartTraining"]
    story.runs().ends(0, TUNED)
    first, last = story.status.attempts or []
    assert (first.reason, first.counts_as, first.exit_code) == ("NodeLost", "Disruption", None)
    assert "should be gone since 00:03:05 UTC" in (first.message or "")
    assert (last.number, last.reason) == (2, "Completed")
    assert story.state() == ("Succeeded", "Succeeded")


def test_a_node_that_comes_back_in_time_ends_its_pod_itself() -> None:
    story = on_a_dead_node().waits(GRACE + 299)
    story.world.change_latest(story.key, out_of_touch=None)
    assert "ForgetAttempt" not in done(story.waits(60))
    story.ends(30, result_message("preempted", step=5), deleting=True, disruption="NodeLost")
    assert story.status.phase == "Starting"


@pytest.mark.parametrize(
    ("image", "given_up"),
    [("trainer:test", True), ("docker.io/library/trainer@sha256:" + "0" * 64, True), ("trainer:0.1.0", True), ("somebody/trainer:test", False)],
)  # fmt: skip
def test_only_a_trainer_that_holds_the_claim_is_given_up(image: str, given_up: bool) -> None:
    story = on_a_dead_node()
    story.world.change_latest(story.key, image=image)
    story.waits(GRACE + 3600).looks()
    assert ("ForgetAttempt" in done(story)) == given_up
    if not given_up:
        assert story.state() == ("Running", "NodeLost")
        assert "kubectl delete job" in (story.status.message or "")
        assert "given up" not in (story.status.message or "")


def test_a_job_that_is_suspended_meanwhile_is_suspended_once_its_lost_pod_is_given_up() -> None:
    story = on_a_dead_node().is_edited(suspend=True)
    assert story.state() == ("Suspended", "NodeLost")
    story.waits(GRACE + 300).looks()
    assert done(story) == ["StartTraining", "StopTraining", "ForgetAttempt"]
    assert story.looks().state() == ("Suspended", "Suspended")
    assert story.is_edited(suspend=False).runs().state() == ("Running", "Training")


def test_another_run_begins_once_the_lost_pod_of_the_one_before_is_given_up() -> None:
    story = on_a_dead_node().is_edited(runId="another")
    assert story.state() == ("Pending", "Replacing")
    story.waits(GRACE + 300).looks()
    assert done(story) == ["StartTraining", "StopTraining", "ForgetAttempt", "StartTraining"]
    assert story.trainings == ["demo-another"]


@pytest.mark.parametrize("refused", [StopTraining, ForgetAttempt])
def test_what_is_refused_is_said_and_tried_again_and_no_pod_is_forgotten_while_its_training_stays(refused: Any) -> None:
    story = on_a_dead_node()
    story.world.refuses[refused] = Refusal(FailureReason.ADMISSION_DENIED, "the policy says no")
    story.waits(GRACE + 300).looks()
    assert "ForgetAttempt" not in done(story)
    assert "could not be stopped: the policy says no" in (story.status.message or "")
    del story.world.refuses[refused]
    story.waits(30).looks()
    assert done(story) == ["StartTraining", "StopTraining", "ForgetAttempt", "StartTraining"]


def test_to_forget_a_pod_whose_training_is_there_frees_nothing() -> None:
    """As it is in a cluster, or nobody would have to stop the training first."""
    story = on_a_dead_node()
    [attempt] = story.world.attempts[story.key]
    at_once(story.world.act(story.key, ForgetAttempt(attempt.name, attempt.uid)))
    assert story.world.attempts[story.key] == [attempt]
    assert isinstance(story.actions[0], StartTraining)
