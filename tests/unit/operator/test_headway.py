"""A run that gets nowhere ends, however innocent its ends; one that gets on is never punished for what is nobody's fault."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from finetune_api.failures import REMEDIES, FailureReason
from finetune_api.progress import TrainerPhase
from finetune_operator.worlds.kube.facts import BACKOFF, read_attempt
from finetune_operator.worlds.protocol import Cause, StartTraining, StopTraining
from tests.unit.operator.story import Story, result_message
from tests.unit.operator.test_ends import KILLED, pod, terminated

FULL = Cause(FailureReason.DISK_FULL, "demo was evicted: its disk is full", REMEDIES[FailureReason.DISK_FULL])


def saved(step: int | None) -> str:
    return result_message("preempted", step=step)


def on_a_cluster(**changes: Any) -> Story:
    story = Story(runId="r", **changes)
    story.world.backoff = BACKOFF
    return story.starts()


def next_runs(story: Story) -> Story:
    """After the time that the Job controller lets pass, or at once where a new training has begun."""
    if story.world.attempts[story.key][-1:] and story.world.attempts[story.key][-1].phase == "Ended":
        story.waits(600)
    return story.runs()


def stops(story: Story) -> int:
    return sum(isinstance(action, StopTraining) for action in story.actions)


# --------------------------------------------------------------------------------------------------------- no progress

ENDS: dict[str, dict[str, Any]] = {
    "preempted without a word": {"exit_code": 30},
    "preempted at the step it began with": {"exit_code": 30, "message": saved(0)},
    "evicted": {"exit_code": 137, "disruption": "Evicted"},
    "evicted for a full disk": {"exit_code": 137, "disruption": "DiskFull", "ended_by": FULL},
    "node lost": {"exit_code": None, "disruption": "NodeLost"},
}


@pytest.mark.parametrize("facts", ENDS.values(), ids=ENDS)
def test_six_uncounted_ends_in_a_row_that_saved_nothing_new_are_the_last(facts: dict[str, Any]) -> None:
    story = Story(runId="r", backoffLimit=0).starts()
    for _ in range(5):
        story.runs().ends(**facts)
        assert story.status.phase == "Starting"
    story.runs().ends(**facts)
    assert story.state() == ("Failed", "NoProgress")
    failure = story.status.failure
    assert failure is not None
    assert failure.attempt == 6
    assert failure.message.startswith("The last 6 attempts ended without having saved anything new. The last one: ")
    assert REMEDIES[FailureReason.NO_PROGRESS] in failure.remedy
    assert (FULL.remedy in failure.remedy) == ("ended_by" in facts)
    assert isinstance(story.looks().actions[-1], StopTraining)
    assert story.waits(3600).state() == ("Failed", "NoProgress")


def test_the_same_step_again_and_again_is_no_progress_and_a_higher_one_begins_the_count_anew() -> None:
    story = Story().starts()
    for step in (40, 40, 40, 40, 40, 41, 41, 41, 41, 41, 41):
        assert story.status.phase == "Starting"
        story.runs().ends(30, saved(step))
    assert story.status.phase == "Starting"
    assert story.runs().ends(30, saved(41)).state() == ("Failed", "NoProgress")


def test_a_run_that_saves_something_new_each_time_may_be_preempted_for_ever() -> None:
    story = Story(backoffLimit=0).starts()
    for step in range(1, 60):
        story.runs().ends(30, saved(step))
    assert story.status.phase == "Starting"


@pytest.mark.parametrize(
    ("checkpoints", "minutes", "phase"),
    [({}, 19, "Failed"), ({}, 20, "Starting"), ({"interval": "1h"}, 119, "Failed"), ({"interval": "1h"}, 120, "Starting")],
)  # fmt: skip
def test_an_attempt_that_was_killed_is_taken_to_have_saved_once_it_ran_for_two_saves(
    checkpoints: dict[str, str], minutes: int, phase: str
) -> None:
    story = Story(checkpoints=checkpoints).starts()
    for _ in range(6):
        story.runs()
        story.world.pass_time(minutes * 60 - 60)
        story.ends(None, disruption="NodeLost")
    assert story.status.phase == phase


def test_an_attempt_that_never_came_to_train_got_nowhere_however_long_it_took() -> None:
    """Such as one that is preempted each time before its model is fetched: it could say so, and did."""
    story = Story().starts()
    for _ in range(6):
        story.runs()
        story.world.pass_time(7200)
        story.ends(30, saved(None))
    assert story.state() == ("Failed", "NoProgress")


def test_a_trainer_of_somebodys_own_that_says_nothing_is_judged_by_its_time_alone() -> None:
    story = Story().starts()
    for _ in range(10):
        story.runs()
        story.world.pass_time(7200)
        story.ends(30, "saved")
    assert story.status.phase == "Starting"


def test_ends_that_somebody_asked_for_are_no_sign_of_a_run_that_gets_nowhere() -> None:
    story = Story().starts()
    for _ in range(8):
        story.runs().ends(30, deleting=True)  # by kubectl delete pod, or by Kueue, which suspends the Job
    for _ in range(8):
        story.runs().is_edited(suspend=True).ends(30).is_edited(suspend=False)
    assert story.status.phase == "Starting"
    assert {a.counts_as for a in story.status.attempts or []} == {"Stop"}
    for _ in range(6):
        story.runs().ends(30)
    assert story.state() == ("Failed", "NoProgress")


def test_pods_that_are_taken_away_before_they_run_are_no_sign_of_a_run_that_gets_nowhere() -> None:
    story = Story().starts()
    for _ in range(8):
        story.ends(None, disruption="Preempted")
    assert story.status.phase == "Starting"


def test_eight_preemptions_in_a_row_cost_less_than_a_minute_each_however_the_job_controller_counts() -> None:
    story, cost = on_a_cluster(backoffLimit=0).runs(), []
    for step in range(1, 9):
        story.ends(30, saved(step))
        ended = story.now
        while not any(attempt.phase == "Waiting" for attempt in story.world.attempts[story.key]):
            story.waits(1)
        cost.append((story.now - ended).total_seconds())
        story.runs()
    assert max(cost) < 60, cost
    assert [a.counts_as for a in story.status.attempts or []] == ["Disruption"] * 8 + [None]
    assert story.status.phase == "Running"


OUT_OF_MEMORY: dict[str, dict[str, Any]] = {
    "killed by the kernel": {"exit_code": 137, "out_of_memory": True},
    "killed, most likely by the kernel": {"exit_code": 137},
    "as it says itself": {"exit_code": 21, "message": result_message("failed", error=(FailureReason.OUT_OF_MEMORY, "memory ran out"))},
}  # fmt: skip


@pytest.mark.parametrize("facts", OUT_OF_MEMORY.values(), ids=OUT_OF_MEMORY)
def test_who_runs_out_of_memory_twice_and_saved_nothing_between_does_so_no_third_time(facts: dict[str, Any]) -> None:
    story = Story(runId="r", backoffLimit=6).starts().runs().ends(**facts)
    assert story.state() == ("Starting", "Restarting")
    story.runs().ends(**facts)
    assert story.state() == ("Failed", "OutOfMemory")
    failure = story.status.failure
    assert failure is not None
    assert failure.message.startswith(
        "Attempts 1 and 2 ran out of memory, and nothing new was saved between their ends. "
    )
    assert failure.remedy.startswith(REMEDIES[FailureReason.OUT_OF_MEMORY])
    assert (failure.attempt, failure.exit_code) == (2, facts["exit_code"])
    assert isinstance(story.looks().actions[-1], StopTraining)


def ends_of(story: Story, *ends: Any) -> Story:
    """One attempt after the other: a step that it told to be saved before the kernel killed it for memory, None for one that told none, and
    else the exit code and step with which it ended."""
    for end in ends:
        assert story.status.phase == "Starting", end
        story.runs()
        if isinstance(end, tuple):
            story.ends(end[0], saved(end[1]))
        else:
            if end is not None:
                story.says(TrainerPhase.TRAINING, checkpoint_step=end)
            story.ends(137, out_of_memory=True)
    return story


@pytest.mark.parametrize(
    "ends",
    [
        (10, 20, 30, 40, 50),  # each saved something new
        (None, (30, 5), None),  # another one did between them
        (None, (1, 7), None),
        (10, 10 + 1, (30, 12), None),
    ],
)
def test_memory_that_runs_out_ever_later_is_no_reason_to_give_up(ends: tuple[Any, ...]) -> None:
    story = ends_of(Story(runId="r", backoffLimit=9).starts(), *ends)
    assert story.status.phase == "Starting"


@pytest.mark.parametrize(
    "ends",
    [
        (10, 10),
        (10, None),  # and nothing was heard of the second one
        (10, 20, 20),
        (None, (30, 0), None),  # what ended between them saved nothing either
        ((30, 40), 40, 40),
        ((30, 40), 30, 35),  # it began again from an older checkpoint, and came less far
    ],
)
def test_memory_that_runs_out_where_it_did_before_is(ends: tuple[Any, ...]) -> None:
    assert ends_of(Story(runId="r", backoffLimit=9).starts(), *ends).state() == ("Failed", "OutOfMemory")


def test_more_memory_begins_the_count_anew() -> None:
    story = ends_of(Story(runId="r", backoffLimit=9).starts(), None).waits(5)
    story.is_edited(resources={"limits": {"memory": "64Gi"}})
    assert isinstance(story.actions[-1], StopTraining)
    ends_of(story.looks(), None)
    assert story.status.phase == "Starting"
    assert ends_of(story, None).state() == ("Failed", "OutOfMemory")


def test_more_memory_that_is_given_while_an_attempt_runs_is_given_to_the_next_one() -> None:
    story = ends_of(Story(runId="r", backoffLimit=9).starts(), None).runs()
    story.is_edited(resources={"limits": {"memory": "64Gi"}}).ends(137, out_of_memory=True)
    assert any(isinstance(action, StopTraining) for action in story.actions)
    assert story.looks().status.phase == "Starting"
    assert [a.reason for a in story.status.attempts or []] == ["OutOfMemory", "OutOfMemory"]
    assert ends_of(story, None).status.phase == "Starting"
    assert ends_of(story, None).state() == ("Failed", "OutOfMemory")


def test_other_nodes_that_are_chosen_while_the_last_attempt_runs_are_tried() -> None:
    story = Story(runId="r").starts()
    for _ in range(5):
        story.runs().ends(None, disruption="Preempted")
    story.runs().is_edited(pod={"nodeSelector": {"disk": "ssd"}}).ends(None, disruption="Preempted")
    assert story.state() == ("Starting", "Restarting")
    assert story.looks().runs().status.phase == "Running"
    assert story.ends(None, disruption="Preempted").state() == ("Failed", "NoProgress")


def test_an_attempt_that_began_before_anybody_looked_is_not_taken_from_its_gpu() -> None:
    story = Story(runId="r", backoffLimit=9).starts().runs()
    for _ in range(2):
        story.world.pass_time(60)
        story.world.end_attempt(story.key, 137, out_of_memory=True)
        story.world.run_attempt(story.key)
    assert story.looks().status.phase == "Running"
    assert story.ends(137).state() == ("Failed", "OutOfMemory")


def test_a_backoff_limit_that_is_reached_first_says_so() -> None:
    story = ends_of(Story(runId="r", backoffLimit=1).starts(), None, None)
    assert story.state() == ("Failed", "BackoffLimitExceeded")


def test_a_counted_failure_breaks_the_row() -> None:
    story = Story(backoffLimit=9).starts()
    for _ in range(2):
        for _ in range(5):
            story.runs().ends(30)
        story.runs().ends(1)
    assert story.status.phase == "Starting"


def test_a_seventh_attempt_that_runs_already_is_let_run() -> None:
    story = Story().starts()
    for _ in range(5):
        story.runs().ends(30)
    story.runs()
    story.world.pass_time(60)
    story.world.end_attempt(story.key, 30)
    story.world.run_attempt(story.key)
    assert story.looks().state() == ("Running", "Training")
    assert story.ends(30, saved(7)).status.phase == "Starting"


def test_what_an_older_version_recorded_is_not_held_against_a_run() -> None:
    story = Story().starts()
    for _ in range(5):
        story.runs().ends(30)
    job = story.world.jobs[story.key]
    old = [a.model_copy(update={"counts_as": None}) for a in job.status.attempts or []]
    decision = story.decision(job=replace(job, status=job.status.model_copy(update={"attempts": old})))
    assert decision.status is not None
    assert decision.status.phase == "Starting"
    assert decision.rule != "run_makes_no_progress"


# ---------------------------------------------------------------------------------------------------- waiting for nothing


def test_a_run_that_got_on_gets_a_new_training_instead_of_a_long_wait() -> None:
    story = on_a_cluster()
    for step in (10, 20, 30):
        next_runs(story).ends(30, saved(step))
        assert stops(story) == 0  # 10, 20 and 40 seconds are no long wait
    next_runs(story).ends(30, saved(40))
    assert story.state() == ("Starting", "Restarting")
    assert "demo-r is created again, because the cluster would wait until" in (story.status.message or "")
    assert stops(story) == 0  # what the pods said is written down first
    story.looks()
    assert stops(story) == 1
    story.looks()
    assert isinstance(story.actions[-1], StartTraining)
    story.runs()
    assert [(a.number, a.step) for a in story.status.attempts or []] == [(1, 10), (2, 20), (3, 30), (4, 40), (5, None)]


def test_counted_failures_numbers_and_used_time_outlive_the_trainings_they_belong_to() -> None:
    story = on_a_cluster(backoffLimit=3, activeDeadlineSeconds=3600)
    next_runs(story).ends(20)
    for step in (10, 20, 30):
        next_runs(story).ends(30, saved(step))
    assert stops(story.looks()) == 1
    story.looks()
    start = story.actions[-1]
    assert isinstance(start, StartTraining)
    assert (start.limits.backoff_limit, start.limits.active_deadline_seconds) == (2, 3600 - 4 * 60)
    for exit_code in (20, 20):
        next_runs(story).ends(exit_code)
    assert next_runs(story).ends(20).state() == ("Failed", "BackoffLimitExceeded")
    assert (story.status.message or "").startswith("4 attempts failed, and spec.backoffLimit allows 3.")
    assert story.status.failure is not None
    assert story.status.failure.attempt == 7


@pytest.mark.parametrize(
    "last",
    [
        {"exit_code": 30, "message": saved(30)},  # nothing new
        {
            "exit_code": 20,
            "message": result_message("failed", error=(FailureReason.STORAGE_UNAVAILABLE, "no"), step=40),
        },
    ],
    ids=["nothing new", "a failure"],
)
def test_a_run_that_did_not_get_on_waits_as_long_as_the_cluster_wants_and_says_until_when(last: dict[str, Any]) -> None:
    story = on_a_cluster()
    for step in (10, 20, 30):
        next_runs(story).ends(30, saved(step))
    next_runs(story).ends(**last).looks()
    assert stops(story) == 0
    due = story.now + timedelta(seconds=80)
    assert f"The cluster waits until {due:%H:%M:%S} UTC before it, longer after each end." in (
        story.status.message or ""
    )
    writes = story.writes
    assert story.waits(5).writes == writes


def test_in_a_queue_a_long_wait_is_only_said() -> None:
    story = Story()
    story.world.backoff, story.world.queue = BACKOFF, "gpus"
    story.starts()
    for step in (10, 20, 30, 40):
        next_runs(story).ends(30, saved(step))
    assert stops(story.looks()) == 0
    assert "The cluster waits until" in (story.status.message or "")


def test_pods_that_are_gone_are_still_in_the_memory_of_the_job_controller() -> None:
    story = on_a_cluster()
    for step in (10, 20, 30, 40):
        next_runs(story).ends(30, saved(step))
    decision = story.decision(attempts=(story.world.attempts[story.key][-1],))
    assert (decision.rule, len(decision.actions)) == ("restart_is_held_back", 1)


@pytest.mark.parametrize(("ended", "wait"), [(0, 0), (1, 10), (2, 20), (4, 80), (6, 320), (7, 600), (1000, 600)])
def test_the_wait_doubles_with_each_end_up_to_ten_minutes(ended: int, wait: int) -> None:
    assert BACKOFF.delay(ended).total_seconds() == wait


@pytest.mark.parametrize(
    ("status", "deleting", "finished"),
    [
        (terminated(KILLED), False, "00:01:00"),
        (terminated(KILLED | {"finishedAt": None}) | {"conditions": [{"type": "Ready", "status": "False", "lastTransitionTime": "2026-01-01T00:01:30Z"}]}, False, "00:01:30"),
        (terminated(KILLED | {"finishedAt": "0001-01-01T00:00:00Z"}), True, "00:02:00"),
        ({"containerStatuses": [{"name": "trainer", "state": {"terminated": KILLED}}, {"name": "proxy", "state": {"terminated": KILLED | {"finishedAt": "2026-01-01T00:01:20Z"}}}]}, False, "00:01:20"),
        ({}, False, None),
    ],
)  # fmt: skip
def test_a_pod_finished_when_the_job_controller_says_so(
    status: dict[str, Any], deleting: bool, finished: str | None
) -> None:
    obj = pod(status, deleting=deleting)
    obj["spec"]["containers"].append({"name": "proxy"})
    child = read_attempt(obj)
    assert child is not None
    assert (f"{child.fact.finished:%H:%M:%S}" if child.fact.finished else None) == finished


# ------------------------------------------------------------------------------------- what this operator cannot read


def unreadable(story: Story) -> Story:
    """As after a rollback of the operator, which the run outlives."""
    story.spec = {**story.spec, "training": {"epochs": 0}}
    story.world.apply("demo", story.spec)
    return story


def test_a_run_whose_spec_cannot_be_read_is_neither_ended_for_lack_of_progress_nor_started_anew() -> None:
    story = unreadable(Story(runId="r").starts().runs())
    for _ in range(7):
        story.ends(30).runs()
    assert story.status.phase == "Running"
    story = on_a_cluster()
    for step in (10, 20, 30):
        next_runs(story).ends(30, saved(step))
    unreadable(next_runs(story)).ends(30, saved(40)).looks()
    assert stops(story) == 0


def test_a_pod_that_outlives_its_trainer_stays_while_the_spec_cannot_be_read() -> None:
    story = unreadable(Story(runId="r").starts().runs()).trainer_ends(30, "istio-proxy").waits(10).looks()
    assert stops(story) == 0
    story.spec = {**story.spec, "training": {"epochs": 1}}
    story.world.apply("demo", story.spec)
    assert stops(story.looks().looks()) == 1


def test_a_verdict_about_what_was_not_to_be_started_stops_nothing_that_goes_on() -> None:
    story = Story(runId="r").starts().runs()
    job = story.world.jobs[story.key]
    refused = Story(runId="r", training={"epochs": 0}).looks().status
    wrong = replace(job, status=refused.model_copy(update={"run": job.status.run, "start_time": job.status.start_time}))
    assert not any(isinstance(action, StopTraining) for action in story.decision(job=wrong).actions)
