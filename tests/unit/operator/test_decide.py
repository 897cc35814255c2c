"""Each rule of `decide` as a claim about one job's life."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta

import pytest

from finetune_api.exit_codes import EXIT_CODES, NEVER_RETRIED, ExitCode
from finetune_api.failures import REMEDIES, FailureReason
from finetune_api.progress import TrainerPhase
from finetune_api.result import MetricResult, ModelResult
from finetune_api.status import Phase
from finetune_operator.decide import RULES
from finetune_operator.decide.diagnosis import AGAIN
from finetune_operator.worlds.protocol import (
    AttemptPhase,
    Awaited,
    Backoff,
    Cause,
    ChangeLimits,
    Ending,
    OnItsWay,
    Queueing,
    Refusal,
    Refused,
    StartTraining,
    StopTraining,
    Training,
)
from tests.unit.operator.story import NO_GPU, TUNED, Story, at_once, result_message

REJECTED = Cause(
    "Rejected", "demo was rejected by its node: OutOfcpu: Node didn't have enough resource: cpu", "Ask for less"
)
FULL = Cause(FailureReason.DISK_FULL, "demo was evicted: its disk is full", REMEDIES[FailureReason.DISK_FULL])
OUT_OF_TOUCH = result_message("failed", error=(FailureReason.HUB_UNREACHABLE, "no route"))
DEFECT = result_message("failed", error=(FailureReason.INTERNAL, "DataLoader worker exited unexpectedly"))
RUNNING = {"Ready": "False", "Reconciling": "True", "Stalled": "False", "Finished": "False"}


# -------------------------------------------------------------------------------------------------------------- start


def test_a_new_job_starts_one_training_named_after_its_run() -> None:
    story = Story(runId="first").starts()
    assert story.trainings == ["demo-first"]
    assert story.state() == ("Starting", "Starting")


def test_the_first_status_has_all_four_conditions_and_the_observed_generation() -> None:
    status = Story().starts().status
    assert {c.type: c.status for c in status.conditions or []} == RUNNING
    assert status.observed_generation == 1
    assert all(c.observed_generation == 1 for c in status.conditions or [])


def test_the_run_is_pinned_once_an_attempt_has_run_and_a_new_default_image_changes_nothing() -> None:
    story = Story(runId="r1").starts().runs()
    pinned = story.status.run
    assert pinned is not None
    assert (pinned.id, pinned.uri, pinned.image) == ("r1", "s3://models/out/r1", "trainer:test")
    story.gets_the_default_image("trainer:newer").loses_its_training()
    assert story.status.run == pinned
    assert isinstance(story.actions[-1], StartTraining)
    assert story.actions[-1].image == "trainer:test"


def test_an_image_in_the_spec_wins_over_the_default() -> None:
    story = Story(image="mine:1").starts()
    assert isinstance(story.actions[0], StartTraining)
    assert story.actions[0].image == "mine:1"


def test_the_trainer_is_told_who_owns_the_run() -> None:
    story = Story().starts()
    assert isinstance(story.actions[0], StartTraining)
    assert story.actions[0].run.owner == "default/demo/job-1"


def test_a_job_suspended_from_the_start_starts_nothing() -> None:
    story = Story(suspend=True).looks()
    assert story.trainings == []
    assert story.state() == ("Suspended", "Suspended")
    assert story.status.start_time is None


def test_a_deleted_job_is_left_alone() -> None:
    story = Story().starts()
    job = replace(story.world.jobs[story.key], deleting=True)
    decision = story.decision(job=job, trainings=())
    assert (decision.actions, decision.status) == ((), None)


def test_an_invalid_spec_fails_with_path_value_and_remedy() -> None:
    story = Story(training={"epochs": 0}).looks()
    assert story.state() == ("Failed", "InvalidSpec")
    failure = story.status.failure
    assert failure is not None
    assert failure.field == "spec.training.epochs"
    assert failure.message == "spec.training.epochs: 0 is too small, allowed: a whole number from 1 to 10000"
    assert failure.remedy == "Raise it."
    assert story.trainings == []


def test_a_spec_with_a_field_of_a_newer_version_starts() -> None:
    assert Story(flavour="new", training={"epochs": 1, "flavour": 2}).starts().state() == ("Starting", "Starting")


def test_a_field_of_a_newer_version_hides_no_wrong_value() -> None:
    story = Story(flavour="new", training={"epochs": 0, "flavour": 2}).looks()
    assert story.status.failure is not None
    assert story.status.failure.field == "spec.training.epochs"


def test_a_corrected_spec_starts_although_the_job_had_failed() -> None:
    story = Story(training={"epochs": 0}).looks().is_edited(training={"epochs": 1})
    assert story.state() == ("Starting", "Starting")
    assert story.status.failure is None


def test_a_spec_that_does_not_fit_a_pods_environment_is_invalid_and_says_what_to_shorten() -> None:
    labels = [f"{n:0100d}" for n in range(1000)]
    story = Story(dataset={"uri": "s3://data/topics", "labels": labels}).looks()
    assert story.state() == ("Failed", "InvalidSpec")
    assert story.trainings == []
    failure = story.status.failure
    assert failure is not None
    assert failure.message.endswith("at most 65536 fit in a pod's environment.")
    assert failure.remedy == "Shorten the longest part, usually dataset.labels or pod."
    assert story.is_edited(dataset={"uri": "s3://data/topics"}).state() == ("Starting", "Starting")


def test_a_foreign_training_of_the_same_name_stalls_the_job_until_somebody_deletes_it() -> None:
    story = Story(runId="r").is_refused(FailureReason.NAME_CONFLICT, "A Job named demo-r is there already")
    assert story.state() == ("Pending", "NameConflict")
    assert story.status.message == f"A Job named demo-r is there already. {REMEDIES[FailureReason.NAME_CONFLICT]}"
    assert story.conditions() == {"Ready": "False", "Reconciling": "False", "Stalled": "True", "Finished": "False"}
    assert (story.trainings, story.recheck) == ([], 30)
    writes = story.writes
    assert story.waits(30).writes == writes
    story.world.refuses.clear()
    assert story.waits(30).state() == ("Starting", "Starting")
    assert story.conditions() == RUNNING


def test_a_name_conflict_is_also_resolved_by_another_run_id() -> None:
    story = Story(runId="r")
    story.world.trainings["default", "demo-r"] = None, replace(_training(Story().starts()), name="demo-r")
    assert story.looks().state() == ("Pending", "NameConflict")
    assert story.is_edited(runId="s").state() == ("Starting", "Starting")
    assert story.trainings == ["demo-r", "demo-s"]


def _training(story: Story) -> Training:
    [(_, training)] = story.world.trainings.values()
    return training


def test_the_vanishing_training_of_an_earlier_job_of_that_name_is_waited_for() -> None:
    story = Story().is_refused(FailureReason.NAME_CONFLICT, "still being deleted", passing=True)
    assert story.state() == ("Pending", "NameConflict")
    assert story.conditions() == RUNNING
    assert REMEDIES[FailureReason.NAME_CONFLICT] not in (story.status.message or "")
    story.world.refuses.clear()
    assert story.waits(2).state() == ("Starting", "Starting")


@pytest.mark.parametrize("reason", [FailureReason.QUOTA_EXCEEDED, FailureReason.ADMISSION_DENIED])
def test_a_refused_start_shows_why_with_its_remedy_and_is_tried_again(reason: FailureReason) -> None:
    story = Story().is_refused(reason, "no room")
    assert story.state() == ("Pending", reason)
    assert story.status.message == f"no room. {REMEDIES[reason]}"
    assert story.conditions() == RUNNING
    assert story.recheck == 30
    assert story.status.start_time is None
    story.world.refuses.clear()
    assert story.waits(30).state() == ("Starting", "Starting")


# ------------------------------------------------------------------------------------------------------------ waiting


@pytest.mark.parametrize(
    ("reason", "message"),
    [
        (FailureReason.UNSCHEDULABLE, NO_GPU),
        (FailureReason.IMAGE_PULL_FAILED, "not found"),
        (FailureReason.SECRET_MISSING, 'secret "s3" not found'),
    ],
)
def test_an_attempt_that_cannot_start_shows_why_with_its_remedy_and_goes_on_waiting(
    reason: FailureReason, message: str
) -> None:
    story = Story().starts().is_held(reason, message)
    assert story.state() == ("Starting", reason)
    assert message in (story.status.message or "")
    assert REMEDIES[reason] in (story.status.message or "")
    assert story.conditions() == RUNNING
    assert story.runs().state() == ("Running", "Training")


def test_the_first_words_about_an_image_stand_while_the_kubelet_repeats_itself() -> None:
    story = Story().starts().is_held(FailureReason.IMAGE_PULL_FAILED, "The image trainer:x cannot be pulled: not found")
    writes = story.writes
    story.is_held(FailureReason.IMAGE_PULL_FAILED, "The image trainer:x cannot be pulled: Back-off")
    story.is_held(FailureReason.IMAGE_PULL_FAILED, "The image trainer:x cannot be pulled: not found")
    assert story.writes == writes
    story.is_held(FailureReason.IMAGE_PULL_FAILED, "The image trainer:y cannot be pulled: not found")
    assert "trainer:y" in (story.status.message or "")


def test_a_training_whose_attempts_are_refused_shows_why() -> None:
    story = Story().starts()
    refusal = Refusal(FailureReason.QUOTA_EXCEEDED, "exceeded quota: gpus")
    training = replace(story.world.trainings["default", story.trainings[0]][1], refusal=refusal)
    decision = story.decision(trainings=(training,), attempts=())
    assert decision.status is not None
    assert (decision.status.phase, decision.status.reason) == ("Starting", "QuotaExceeded")
    assert decision.recheck_after == 30


def test_a_training_held_by_a_queue_is_queued() -> None:
    story = Story().starts().changes_training(queued=True)
    assert story.state() == ("Pending", "Queued")
    assert story.changes_training(queued=False).state() == ("Starting", "Starting")


def test_a_pod_spec_that_changes_in_the_queue_replaces_the_training() -> None:
    story = Story(resources={"limits": {"nvidia.com/gpu": 8}}).starts().changes_training(queued=True)
    story.is_edited(resources={"limits": {"nvidia.com/gpu": 1}})
    assert isinstance(story.actions[-1], StopTraining)
    assert isinstance(story.looks().actions[-1], StartTraining)


def test_a_pod_spec_that_changes_while_nothing_runs_replaces_the_training() -> None:
    story = Story(resources={"limits": {"nvidia.com/gpu": 8}}).starts().is_held(FailureReason.UNSCHEDULABLE, NO_GPU)
    story.is_edited(resources={"limits": {"nvidia.com/gpu": 1}})
    assert isinstance(story.actions[-1], StopTraining)
    story.looks()
    assert isinstance(story.actions[-1], StartTraining)
    assert len(story.trainings) == 1


def test_a_pod_spec_that_changes_while_an_attempt_runs_is_left_to_the_next_pod() -> None:
    story = Story().starts().runs().is_edited(resources={"limits": {"memory": "1Gi"}})
    assert not any(isinstance(action, StopTraining) for action in story.actions)
    assert story.state() == ("Running", "Training")


def test_how_gpus_share_the_work_is_changed_for_the_next_pod_as_their_number_is() -> None:
    story = Story(resources={"limits": {"nvidia.com/gpu": 2}}).starts().is_held(FailureReason.UNSCHEDULABLE, NO_GPU)
    assert not story.is_edited(parallelism="auto").actions[1:], "a default that is written out is no change"
    story.is_edited(parallelism="replicated")
    assert isinstance(story.actions[-1], StopTraining)
    start = story.looks().actions[-1]
    assert isinstance(start, StartTraining)
    assert start.run.spec.parallelism == "replicated"
    story.runs().is_edited(parallelism="auto")
    assert story.actions[-1] is start
    assert story.state() == ("Running", "Training")


def test_limits_that_change_reach_the_training_without_a_restart() -> None:
    story = Story().starts().runs().is_edited(activeDeadlineSeconds=600, backoffLimit=9)
    change = story.actions[-1]
    assert isinstance(change, ChangeLimits)
    assert (change.limits.active_deadline_seconds, change.limits.backoff_limit) == (600, 9)
    assert story.looks().actions[-1] is change


def test_a_refused_change_of_limits_is_told_beside_everything_else() -> None:
    story = Story(runId="r").starts()
    story.world.run_attempt(story.key)
    story.world.apply("demo", {**story.spec, "backoffLimit": 9})
    story.world.refuses[ChangeLimits] = Refusal(FailureReason.ADMISSION_DENIED, "no")
    assert story.looks().state() == ("Running", "Training")
    assert (story.status.message or "").endswith("The limits of demo-r stay as they are: no.")
    story.world.refuses.clear()
    assert story.looks().status.message == "Attempt 1 is running on node node-1."
    assert isinstance(story.actions[-1], ChangeLimits)


def test_a_time_to_live_is_given_only_once_the_end_is_recorded() -> None:
    """From birth it would remove a training whose end nobody has seen yet, and that would start again."""
    story = Story(ttlSecondsAfterFinished=0).starts().runs().is_edited(ttlSecondsAfterFinished=5)
    [start] = story.actions
    assert isinstance(start, StartTraining)
    assert start.limits.ttl_seconds_after_finished is None
    story.ends(0, TUNED)
    assert story.state() == ("Succeeded", "Succeeded")
    story.looks()
    change = story.actions[-1]
    assert isinstance(change, ChangeLimits)
    assert change.limits.ttl_seconds_after_finished == 5
    assert story.looks().actions[-1] is change


# ------------------------------------------------------------------------------------------------------------ running


def test_a_running_attempt_is_named_with_its_node() -> None:
    story = Story().starts().runs()
    assert story.state() == ("Running", "Training")
    assert story.status.message == "Attempt 1 is running on node node-1."
    [attempt] = story.status.attempts or []
    assert (attempt.number, attempt.node, attempt.end_time) == (1, "node-1", None)


def test_a_failed_attempt_is_recorded_and_the_next_one_awaited() -> None:
    story = Story().starts().runs().ends(20, error=(FailureReason.STORAGE_UNAVAILABLE, "the bucket did not answer"))
    assert story.state() == ("Starting", "Restarting")
    assert "Attempt 1 ended with StorageUnavailable (exit code 20)" in (story.status.message or "")
    story.runs()
    assert [(a.number, a.reason) for a in story.status.attempts or []] == [(1, "StorageUnavailable"), (2, None)]


@pytest.mark.parametrize(
    ("facts", "reason"),
    [
        ({"exit_code": 137, "out_of_memory": True}, "OutOfMemory"),
        ({"exit_code": 137}, "OutOfMemory"),
        ({"exit_code": 137, "deleting": True}, "Deleted"),
        ({"exit_code": 30}, "Preempted"),
        ({"exit_code": 30, "disruption": "Evicted"}, "Evicted"),
        ({"exit_code": None, "disruption": "NodeLost"}, "NodeLost"),
        ({"exit_code": None}, "Internal"),
        ({"exit_code": None, "ended_by": REJECTED}, "Rejected"),
        ({"exit_code": None, "ended_by": REJECTED, "deleting": True}, "Rejected"),
        ({"exit_code": 137, "ended_by": FULL}, "DiskFull"),
        ({"exit_code": 30, "ended_by": FULL}, "DiskFull"),
        ({"exit_code": 1, "message": OUT_OF_TOUCH, "ended_by": FULL}, "DiskFull"),
        ({"exit_code": 137, "message": OUT_OF_TOUCH}, "HubUnreachable"),
        ({"exit_code": 137, "message": OUT_OF_TOUCH, "out_of_memory": True}, "HubUnreachable"),
        ({"exit_code": 1, "message": DEFECT, "out_of_memory": True}, "OutOfMemory"),
        ({"exit_code": 30, "out_of_memory": True}, "Preempted"),
        ({"exit_code": 143, "deleting": True}, "Deleted"),
        ({"exit_code": 1}, "Internal"),
        ({"exit_code": 21}, "OutOfMemory"),
    ],
)
def test_an_attempt_is_recorded_by_who_ended_it(facts: dict[str, object], reason: str) -> None:
    story = Story().starts().runs().ends(**facts)  # type: ignore[arg-type]
    assert [a.reason for a in story.status.attempts or []] == [reason]
    assert story.status.phase == Phase.STARTING


def test_the_trainers_own_words_win_over_its_exit_code() -> None:
    story = Story(backoffLimit=0).starts().runs().ends(1, error=(FailureReason.HUB_UNREACHABLE, "no route"))
    assert "HubUnreachable: no route" in (story.status.message or "")


def test_a_disrupted_attempt_never_counts() -> None:
    story = Story(backoffLimit=0).starts()
    for _ in range(5):
        story.runs().ends(143, disruption="Preempted")
    assert story.status.phase == Phase.STARTING
    assert len(story.status.attempts or []) == 5


@pytest.mark.parametrize("by", [None, REJECTED, FULL], ids=lambda by: by.reason if by else "nobody knows")
def test_an_attempt_that_ended_without_an_exit_code_counts_as_the_job_controller_counts_it(by: Cause | None) -> None:
    story = Story(backoffLimit=0).starts().ends(None, ended_by=by)
    assert story.state() == ("Failed", "BackoffLimitExceeded")
    message = story.status.message or ""
    assert message.startswith("1 attempt failed, and spec.backoffLimit allows 0. The last one: ")
    assert by is None or f"{by.reason}: {by.message}. {by.remedy}" in message


@pytest.mark.parametrize(
    ("facts", "counts_as"),
    [
        ({"exit_code": 0}, None),
        ({"exit_code": 1}, "Failure"),
        ({"exit_code": 137, "ended_by": FULL}, "Failure"),
        ({"exit_code": 137, "ended_by": FULL, "disruption": "DiskFull"}, "Disruption"),
        ({"exit_code": 30, "ended_by": FULL}, "Disruption"),
        ({"exit_code": 30}, "Disruption"),
        ({"exit_code": 30, "deleting": True}, "Stop"),
        ({"exit_code": 30, "deleting": True, "disruption": "Preempted"}, "Disruption"),
        ({"exit_code": None, "disruption": "NodeLost"}, "Disruption"),
        ({"exit_code": 143, "deleting": True}, "Failure"),  # without a DisruptionTarget the Job controller counts it
        ({"exit_code": None, "deleting": True}, "Failure"),
    ],
)
def test_an_end_counts_as_the_job_controller_counts_it_whatever_its_reason(
    facts: dict[str, object], counts_as: str | None
) -> None:
    story = Story(backoffLimit=0).starts().runs().ends(**facts)  # type: ignore[arg-type]
    assert [a.counts_as for a in story.status.attempts or []] == [counts_as]
    assert (story.status.phase == "Failed") == (counts_as == "Failure")
    if counts_as == "Failure":
        assert (story.status.message or "").startswith(
            "1 attempt failed, and spec.backoffLimit allows 0. The last one: "
        )


def test_an_attempt_killed_while_its_training_is_stopped_counts_for_nothing() -> None:
    story = Story(backoffLimit=0).starts().runs().is_edited(suspend=True)
    story.world.pass_time(60)
    story.world.change_latest(story.key, phase=AttemptPhase.ENDED, ended=story.now, exit_code=137, deleting=True)
    story.looks().loses_its_training().is_edited(suspend=False)
    assert [(a.reason, a.counts_as) for a in story.status.attempts or []] == [("Deleted", "Stop")]
    start = story.actions[-1]
    assert isinstance(start, StartTraining)
    assert start.limits.backoff_limit == 0


@pytest.mark.parametrize("exit_code", sorted(NEVER_RETRIED))
def test_a_trainer_that_is_never_retried_is_heard_although_its_node_has_more_to_say(exit_code: int) -> None:
    """The Job controller ends the Job by the exit code, whatever befell the pod besides."""
    story = (
        Story().starts().runs().ends(exit_code, error=(FailureReason.LABEL_INVALID, "no such label"), ended_by=REJECTED)
    )
    assert story.state() == ("Failed", "LabelInvalid")


def test_the_latest_32_attempts_are_kept_and_numbers_go_on() -> None:
    story = Story().starts()
    step = 0
    for _ in range(40):
        step += 10
        story.runs().ends(30, result_message("preempted", step=step))
    attempts = story.status.attempts or []
    assert (len(attempts), attempts[0].number, attempts[-1].number) == (32, 9, 40)


def test_the_record_says_how_many_gpus_trained() -> None:
    """Their number may change between two attempts of a run."""
    story = Story().starts()
    story.runs().ends(30, result_message("preempted", step=10, processes=4))
    story.runs().ends(30, result_message("preempted", step=20, processes=2))
    story.runs().ends(30, result_message("preempted"))
    assert [attempt.processes for attempt in story.status.attempts or []] == [4, 2, None]


def test_a_training_deleted_by_hand_comes_back_as_a_disruption() -> None:
    story = Story(runId="r").starts().runs()
    started = story.status.start_time
    story.world.pass_time(30)
    story.loses_its_training()
    assert story.trainings == ["demo-r"]
    assert story.state() == ("Starting", "Restarting")
    assert [a.reason for a in story.status.attempts or []] == ["Deleted"]
    assert story.status.start_time == started


def test_no_training_starts_while_a_pod_of_the_last_one_still_writes() -> None:
    story = Story().starts().runs()
    attempt = story.world.attempts[story.key][0]
    decision = story.decision(trainings=(), attempts=(attempt,))
    assert decision.actions == ()
    assert decision.status is not None
    assert (
        decision.status.message == f"{attempt.name} on node node-1 is still ending; training goes on when it is gone."
    )


def is_told_to_stop(story: Story) -> Story:
    """Its running attempt has two minutes to save."""
    story.world.change_latest(story.key, deleting=True, gone_by=story.now + timedelta(seconds=120))
    return story.looks()


def test_an_attempt_that_was_told_to_stop_saves_until_its_time_is_over() -> None:
    story = is_told_to_stop(Story().starts().runs())
    assert story.state() == ("Running", "Stopping")
    assert story.recheck == 150
    writes = story.writes
    assert story.waits(149).writes == writes


def test_an_attempt_that_outstays_its_time_is_on_a_node_that_does_not_answer() -> None:
    story = is_told_to_stop(Story().starts().runs()).waits(150)
    assert story.state() == ("Running", "NodeLost")
    name = story.world.attempts[story.key][-1].name
    assert story.status.message == (
        f"{name} on node node-1 should be gone since 00:02:05 UTC, and its node does not say so. "
        f"Bring the node back. If it is gone for good: `kubectl delete job {story.trainings[0]} -n default --cascade=foreground "
        f"--wait=false && kubectl delete pod {name} -n default --force --ignore-not-found`, or with the right to change nodes: "
        "`kubectl taint node node-1 node.kubernetes.io/out-of-service=nodeshutdown:NoExecute`."
    )
    writes = story.writes
    assert story.waits(3600).writes == writes


def test_a_suspension_that_waits_for_a_node_that_does_not_answer_says_so() -> None:
    story = is_told_to_stop(Story().starts().runs().is_edited(suspend=True))
    assert story.state() == ("Suspended", "Suspending")
    assert story.waits(150).state() == ("Suspended", "NodeLost")
    name = story.world.attempts[story.key][-1].name
    assert f": `kubectl delete pod {name} -n default --force --ignore-not-found`, or" in (
        story.status.message or ""
    )  # its Job is going already


def test_a_start_that_waits_for_a_node_that_does_not_answer_says_so() -> None:
    story = is_told_to_stop(Story().starts().runs())
    story.world.pass_time(150)
    decision = story.decision(trainings=())
    assert decision.actions == ()
    assert decision.status is not None
    assert (decision.status.phase, decision.status.reason) == ("Starting", "NodeLost")
    assert ": `kubectl delete pod" in (decision.status.message or "")


def test_a_training_that_is_being_deleted_is_waited_for() -> None:
    story = Story().starts().runs().changes_training(deleting=True)
    assert story.state() == ("Starting", "Restarting")
    assert len(story.actions) == 1


# ---------------------------------------------------------------------------------------------------------- suspension


def test_suspend_stops_the_training_and_lets_it_save() -> None:
    story = Story(runId="r").starts().runs().is_edited(suspend=True)
    assert isinstance(story.actions[-1], StopTraining)
    assert story.state() == ("Suspended", "Suspending")
    story.ends(30)
    assert story.trainings == []
    assert story.state() == ("Suspended", "Suspended")
    assert story.conditions() == {"Ready": "False", "Reconciling": "False", "Stalled": "False", "Finished": "False"}
    assert [a.reason for a in story.status.attempts or []] == ["Preempted"]


def test_resume_goes_on_with_the_same_run() -> None:
    story = Story(runId="r").starts().runs().is_edited(suspend=True).ends(30)
    run = story.status.run
    story.is_edited(suspend=False)
    assert story.trainings == ["demo-r"]
    assert story.status.run == run
    assert story.state() == ("Starting", "Restarting")


def test_time_before_a_suspension_counts_and_time_in_it_does_not() -> None:
    story = Story(activeDeadlineSeconds=1000).starts().runs()
    story.is_edited(suspend=True).ends(30)  # 60 seconds of training
    story.world.pass_time(86400)
    story.is_edited(suspend=False)
    start = story.actions[-1]
    assert isinstance(start, StartTraining)
    assert start.limits.active_deadline_seconds == 940


def test_failures_before_a_suspension_count() -> None:
    story = (
        Story(backoffLimit=3).starts().runs().ends(20).runs().is_edited(suspend=True).ends(30).is_edited(suspend=False)
    )
    start = story.actions[-1]
    assert isinstance(start, StartTraining)
    assert start.limits.backoff_limit == 2


# ----------------------------------------------------------------------------------------------------------- success


def test_a_finished_run_reports_metrics_before_and_after_and_where_the_model_is() -> None:
    story = Story(runId="r").starts().runs().ends(0, TUNED)
    status = story.status
    assert story.state() == ("Succeeded", "Succeeded")
    assert status.summary == "f1 0.512 → 0.874"
    assert [(m.name, m.baseline, m.value) for m in status.metrics or []] == [
        ("f1", 0.512, 0.874),
        ("accuracy", 0.5, 0.9),
    ]
    assert status.message == "f1 0.512 → 0.874. The model is in s3://models/out/r/model."
    assert status.artifacts is not None
    assert status.artifacts.model_uri == "s3://models/out/r/model"
    assert status.run is not None
    assert status.run.data_fingerprint == "d" * 64
    assert status.completion_time == story.now
    assert story.conditions() == {"Ready": "True", "Reconciling": "False", "Stalled": "False", "Finished": "True"}


@pytest.mark.parametrize(
    ("saved", "uris", "where"),
    [
        (ModelResult(folder="model"), ("s3://models/out/r/model", None), "The model is in s3://models/out/r/model."),
        (
            ModelResult(folder="model", adapter="adapter"),
            ("s3://models/out/r/model", "s3://models/out/r/adapter"),
            "The model is in s3://models/out/r/model.",
        ),
        (
            ModelResult(adapter="adapter", base="hf://a/b"),
            (None, "s3://models/out/r/adapter"),
            "The adapters are in s3://models/out/r/adapter.",
        ),
    ],
)
def test_where_only_adapters_were_kept_no_model_is_said_to_be(
    saved: ModelResult, uris: tuple[str | None, str | None], where: str
) -> None:
    status = Story(runId="r").starts().runs().ends(0, result_message(model=saved)).status
    assert status.artifacts is not None
    assert (status.artifacts.model_uri, status.artifacts.adapter_uri) == uris
    assert status.message is not None and where in status.message


def test_a_run_that_ended_without_a_message_succeeded_with_unknown_metrics() -> None:
    story = Story(runId="r").starts().runs().ends(0, "Killed")
    assert story.state() == ("Succeeded", "Succeeded")
    assert story.status.metrics is None
    assert "metrics are unknown" in (story.status.message or "")
    assert "s3://models/out/r" in (story.status.message or "")


def test_an_adopted_result_says_that_nothing_was_trained() -> None:
    story = Story().starts().runs().ends(0, result_message(adopted=True))
    assert "nothing had to be trained" in (story.status.message or "")


@pytest.mark.parametrize(
    "message",
    [
        "null",
        "[]",
        '{"outcome": "succeeded"}',
        "\x00\x01",
        result_message(model_revision="r" * 4000),
        result_message(metrics=[MetricResult(name="n" * 300, split="test", value=1)]),
        result_message(metrics=[MetricResult(name="f1", split="test", value=0.5)]).replace("0.5", "NaN"),
    ],
)
def test_what_a_trainer_writes_never_keeps_a_finished_job_from_being_finished(message: str) -> None:
    story = Story().starts().runs().ends(0, message)
    assert story.state() == ("Succeeded", "Succeeded")
    json.dumps(story.status.wire(), allow_nan=False)


def test_a_metric_that_is_no_number_is_left_out() -> None:
    metrics = [
        MetricResult(name="f1", split="test", value=0.5),
        MetricResult(name="loss", split="test", baseline=0.5, value=0.25),
    ]
    story = Story().starts().runs().ends(0, result_message(metrics=metrics).replace("0.5", "NaN"))
    assert story.status.summary == "loss 0.250"


def test_the_verdict_waits_ten_seconds_for_the_last_words_of_the_attempt() -> None:
    story = Story().starts().runs()
    writes = story.writes
    story.changes_training(ending=Ending.COMPLETE, ended=story.now)
    assert story.recheck == 1
    assert story.writes == writes
    assert story.waits(11).state() == ("Succeeded", "Succeeded")


def test_nothing_is_said_between_the_last_attempt_and_the_verdict() -> None:
    story = Story().starts().runs()
    [attempt] = story.world.attempts[story.key]
    decision = story.decision(attempts=(replace(attempt, phase=AttemptPhase.ENDED, exit_code=11, ended=story.now),))
    assert (decision.actions, decision.status, decision.rule) == ((), None, "verdict_is_due")


def test_a_trainer_that_is_done_needs_no_verdict() -> None:
    """Whoever would give it may be away, or be elected just then."""
    story = Story().starts().runs()
    story.world.controller_away = True
    assert story.ends(0, TUNED).state() == ("Succeeded", "Succeeded")
    writes, acted = story.writes, len(story.actions)
    story.world.controller_returns()
    assert story.looks().state() == ("Succeeded", "Succeeded")
    assert (story.writes, len(story.actions)) == (writes, acted)


def test_while_nobody_gives_the_verdict_no_other_attempt_is_told_of() -> None:
    story = Story().starts().runs()
    story.world.controller_away = True
    story.ends(11, error=(FailureReason.COLUMN_MISSING, "column label is not there")).waits(20)
    assert story.status.message == (
        "Attempt 1 ended with ColumnMissing (exit code 11); the cluster has yet to end the training for that."
    )
    story.world.controller_returns()
    assert story.looks().state() == ("Failed", "ColumnMissing")


@pytest.mark.parametrize("end", [0, 11])
def test_a_finished_run_is_not_blamed_for_another_one_that_cannot_be_read(end: int) -> None:
    """Its verdict stands in no status that is about the other, as the API server would not take that back."""
    story = (
        Story(runId="one")
        .starts()
        .runs()
        .is_edited(runId="two", task="read-minds")
        .ends(end, TUNED if end == 0 else "")
        .looks()
    )
    assert story.state() == ("Failed", "InvalidSpec")
    assert (story.status.run, story.status.start_time, story.status.attempts) == (None, None, None)
    assert story.is_edited(task="text-classification").state() == ("Starting", "Starting")
    assert story.status.run is not None
    assert story.status.run.id == "two"


# ----------------------------------------------------------------------------------------------------------- failure


@pytest.mark.parametrize("reason", sorted(reason for reason, code in EXIT_CODES.items() if code in NEVER_RETRIED))
def test_what_the_user_must_correct_ends_the_job_with_the_trainers_reason_and_remedy(reason: FailureReason) -> None:
    story = Story(runId="r").starts().runs().ends(EXIT_CODES[reason], error=(reason, "it is so"))
    assert story.state() == ("Failed", reason)
    failure = story.status.failure
    assert failure is not None
    remedy = REMEDIES[reason] if "runId" in REMEDIES[reason] else f"{REMEDIES[reason]} {AGAIN}"
    assert (failure.message, failure.remedy) == ("it is so.", remedy)
    assert failure.exit_code == EXIT_CODES[reason]
    assert failure.attempt == 1
    assert failure.log_uri == "s3://models/out/r/attempts/1/log.txt"
    assert story.status.message == f"it is so. {remedy}"
    assert story.conditions() == {"Ready": "False", "Reconciling": "False", "Stalled": "True", "Finished": "True"}


@pytest.mark.parametrize("reason", sorted(EXIT_CODES))
def test_what_is_final_for_a_run_says_that_it_takes_another_run_id_to_run_again(reason: FailureReason) -> None:
    story = Story(backoffLimit=0).starts().runs().ends(EXIT_CODES[reason], error=(reason, "it is so"))
    assert story.status.failure is not None
    assert story.status.failure.remedy.count("spec.runId") == 1
    # And so it is: inputs that are corrected, or an edit of anything else, start nothing.
    assert story.is_edited(backoffLimit=9, resources={"limits": {"cpu": 1}}).state()[0] == "Failed"


def test_where_a_job_is_forgotten_with_its_world_it_takes_no_other_run_id_to_run_again() -> None:
    story = Story().starts().runs()
    [attempt], training = story.world.attempts[story.key], next(iter(story.world.trainings.values()))[1]
    message = result_message("failed", error=(FailureReason.DATA_INVALID, "it is so"))
    ended = replace(attempt, phase=AttemptPhase.ENDED, exit_code=11, termination_message=message, ended=story.now)
    over = replace(training, ending=Ending.NEVER_RETRIED, ended=story.now)
    for remembers in (True, False):
        said = story.decision(trainings=(over,), attempts=(ended,), remembers=remembers).status
        assert said is not None and said.failure is not None
        assert ("spec.runId" in said.failure.remedy) == remembers


@pytest.mark.parametrize(
    ("code", "reason"), [(ExitCode.DATA_ERROR, "DataInvalid"), (ExitCode.USER_ERROR, "InvalidSpec")]
)
def test_a_never_retried_exit_without_a_message_has_a_reason_and_a_remedy_that_names_nothing(
    code: ExitCode, reason: str
) -> None:
    story = Story().starts().runs().ends(code, "Traceback:\n  line 1\nValueError: boom\n")
    assert story.state() == ("Failed", reason)
    message = story.status.message or ""
    assert f"exit code {code}; the last line of its log: ValueError: boom. Read the log of the attempt" in message
    assert "named" not in message


def test_too_many_failures_name_the_cause_of_the_last_one_and_its_remedy() -> None:
    story = Story(backoffLimit=1).starts().runs().ends(137, out_of_memory=True).runs().ends(137, out_of_memory=True)
    assert story.state() == ("Failed", "BackoffLimitExceeded")
    message = story.status.message or ""
    assert message.startswith("2 attempts failed, and spec.backoffLimit allows 1. The last one: OutOfMemory: ")
    assert REMEDIES[FailureReason.OUT_OF_MEMORY] in message
    assert story.status.failure is not None
    assert story.status.failure.exit_code == 137


def test_a_missed_deadline_says_which() -> None:
    story = Story(activeDeadlineSeconds=60).starts().runs().exceeds_its_deadline().waits(11)
    assert story.state() == ("Failed", "DeadlineExceeded")
    assert "within 60 seconds" in (story.status.message or "")


def test_a_missed_deadline_waits_ten_seconds_for_the_end_of_its_attempt() -> None:
    story = Story(activeDeadlineSeconds=60).starts().runs()
    writes = story.writes
    story.exceeds_its_deadline()
    assert (story.recheck, story.writes) == (1, writes)
    story.world.change_latest(story.key, phase=AttemptPhase.ENDED, exit_code=30, ended=story.now)
    assert story.waits(1).state() == ("Failed", "DeadlineExceeded")
    [attempt] = story.status.attempts or []
    assert (attempt.end_time, attempt.reason) == (story.now - timedelta(seconds=1), "Preempted")


def test_an_unknown_ending_is_internal_in_the_worlds_own_words() -> None:
    story = Story().starts().changes_training(ending=Ending.OTHER, ended=None, message="The controller gave up")
    assert story.waits(11).state() == ("Failed", "Internal")
    assert (story.status.message or "").startswith("The controller gave up.")


@pytest.mark.parametrize("ending", [Ending.OTHER, Ending.DEADLINE_EXCEEDED])
def test_an_ending_that_needs_no_attempt_waits_for_none(ending: Ending) -> None:
    story = Story(activeDeadlineSeconds=60).starts()
    [training] = at_once(story.world.observe(story.key)).trainings
    decision = story.decision(trainings=(replace(training, ending=ending, ended=story.now),), attempts=())
    assert decision.status is not None
    assert decision.status.phase == "Failed"


# -------------------------------------------------------------------------------------------------- finished is finished


@pytest.mark.parametrize("exit_code", [0, 11])
def test_a_finished_job_stays_finished_whatever_happens_to_its_training(exit_code: int) -> None:
    story = Story().starts().runs().ends(exit_code)
    before, writes, acted = story.status, story.writes, len(story.actions)
    story.loses_its_training().waits(86400)
    assert story.status == before
    assert (story.writes, len(story.actions)) == (writes, acted)


def test_a_new_run_id_runs_a_finished_job_again_from_an_empty_record() -> None:
    story = Story(runId="one").starts().runs().ends(11).is_edited(runId="two")
    story.looks()
    assert "demo-two" in story.trainings
    assert story.state() == ("Starting", "Starting")
    assert story.status.failure is None
    assert story.status.attempts is None
    assert story.status.run is not None
    assert story.status.run.id == "two"


def test_a_new_run_id_ends_the_running_run_first() -> None:
    story = Story(runId="one").starts().runs().is_edited(runId="two")
    assert story.state() == ("Pending", "Replacing")
    assert story.trainings == ["demo-one"]
    story.ends(30)
    assert story.trainings == ["demo-two"]


@pytest.mark.parametrize("changes", [{"resources": {"limits": {"cpu": "many"}}}, {"training": {"epochs": 0}}])
@pytest.mark.parametrize("run_id", [{}, {"runId": "r"}])
@pytest.mark.parametrize("exit_code", [0, 11])
def test_an_edit_that_went_wrong_does_not_undo_the_end_of_a_run(
    exit_code: int, run_id: dict[str, str], changes: dict[str, object]
) -> None:
    story = Story(**run_id).starts().runs().ends(exit_code, TUNED)
    before = story.status
    story.is_edited(**changes)
    assert story.status.observed_generation == 2
    for name in ("phase", "reason", "message", "metrics", "artifacts", "failure", "completion_time"):
        assert getattr(story.status, name) == getattr(before, name)
    assert story.is_edited(resources={}, training={}).status.phase == before.phase


def test_an_invalid_spec_for_another_run_id_is_said() -> None:
    story = Story(runId="one").starts().runs().ends(0, TUNED).is_edited(runId="two", training={"epochs": 0})
    assert story.state() == ("Failed", "InvalidSpec")


def test_an_edit_after_the_end_is_acknowledged_and_nothing_else() -> None:
    story = Story().starts().runs().ends(0, TUNED)
    before = story.status
    story.is_edited(ttlSecondsAfterFinished=60)
    assert story.status.observed_generation == 2
    assert story.status.phase == before.phase
    assert story.status.completion_time == before.completion_time
    assert [c.last_transition_time for c in story.status.conditions or []] == [
        c.last_transition_time for c in before.conditions or []
    ]
    assert isinstance(story.actions[-1], ChangeLimits)


# ------------------------------------------------------------------------------------------------------------- writing


def lives() -> dict[str, Story]:
    """A job in every state it can rest in."""
    return {
        "pending": Story().is_refused(FailureReason.QUOTA_EXCEEDED, "full"),
        "starting": Story().starts(),
        "unschedulable": Story().starts().is_held(FailureReason.UNSCHEDULABLE, NO_GPU),
        "running": Story().starts().runs(),
        "restarting": Story().starts().runs().ends(20),
        "suspending": Story().starts().runs().is_edited(suspend=True),
        "suspended": Story().starts().runs().is_edited(suspend=True).ends(30),
        "queued": Story().starts().changes_training(queued=True),
        "succeeded": Story().starts().runs().ends(0, TUNED),
        "failed": Story().starts().runs().ends(11),
        "invalid": Story(training={"epochs": 0}).looks(),
        "too large": Story(dataset={"uri": "s3://data", "labels": [f"{n:0100d}" for n in range(1000)]}).looks(),
    }


@pytest.mark.parametrize("state", sorted(lives()))
def test_looking_again_later_writes_and_does_nothing(state: str) -> None:
    story = lives()[state]
    writes, acted = story.writes, len(story.actions)
    story.waits(3600).waits(3600)
    assert (story.writes, len(story.actions)) == (writes, acted)


def test_conditions_keep_the_time_of_their_last_change() -> None:
    story = Story().starts()
    began = story.now
    story.runs().ends(0, TUNED)
    times = {c.type: c.last_transition_time for c in story.status.conditions or []}
    assert times["Stalled"] == began
    assert times["Ready"] == story.now


def test_each_transition_is_announced_once() -> None:
    story = Story().starts().runs().looks().ends(11, error=(FailureReason.COLUMN_MISSING, "no column label")).looks()
    assert [(e.type, e.reason) for e in story.events] == [("Normal", "Training"), ("Warning", "ColumnMissing")]


def test_that_a_job_starts_is_an_event_only_where_it_did_not_at_once() -> None:
    story = Story().starts()
    assert story.events == []
    story = Story(suspend=True).looks().is_edited(suspend=False)
    assert [e.reason for e in story.events] == ["Suspended", "Starting"]


def test_an_ordinary_life_takes_three_status_writes() -> None:
    assert Story().starts().runs().ends(0, TUNED).writes == 3


def test_a_crash_between_the_start_and_its_report_changes_nothing_in_the_end() -> None:
    story = Story(runId="r")
    for action in story.decision().actions:
        at_once(story.world.act(story.key, action))
    story.looks()
    assert story.trainings == ["demo-r"]
    assert story.status.run is not None
    assert story.status.start_time == story.now
    assert len(story.actions) == 1


def test_every_rule_speaks_in_some_life_of_a_job() -> None:
    """A rule that never speaks is dead code, or hidden behind another."""
    Story.rules_that_spoke.clear()
    for story in lives().values():
        story.looks()
    Story(runId="one").starts().runs().is_edited(runId="two").ends(30)
    Story().starts().is_held(FailureReason.UNSCHEDULABLE, NO_GPU).is_edited(resources={"limits": {"cpu": 1}})
    Story().starts().runs().changes_training(deleting=True)
    Story().starts().runs().trainer_ends(0, "proxy").waits(10)
    Story().starts().runs().trainer_ends(30, "proxy").waits(10)
    in_vain = Story().starts()
    for _ in range(6):
        in_vain.runs().ends(30)
    Story().starts().runs().ends(21).runs().ends(21)
    punished = Story()
    punished.world.backoff = Backoff(timedelta(minutes=5), timedelta(minutes=5))
    punished.starts().runs().ends(30, result_message("preempted", step=1))
    Story(pod={"labels": {"istio.io/rev": "canary"}}).looks()
    named_twice = Story(queue="gpus")
    named = named_twice.world.jobs[named_twice.key]
    named_twice.world.jobs[named_twice.key] = replace(named, queueing=Queueing(queue="cpus"))
    named_twice.looks()
    Story().starts().gets_the_default_image("trainer:newer")
    removed = Story().starts()
    for _ in range(3):
        removed.loses_its_training()
    Story().starts().changes_training(outdated=True)
    Story().starts().runs().ends(0, TUNED).is_edited(acceptance={"min": 0.9})
    for what in Awaited:
        comes = Story().starts()
        comes.world.change_latest(comes.key, on_its_way=OnItsWay(what, "It comes", comes.now))
        comes.looks()
    Story(pendingDeadlineSeconds=1).starts().waits(1)
    Story(pendingDeadlineSeconds=1).is_refused(FailureReason.QUOTA_EXCEEDED, "no room").waits(1)
    anew = Story().starts()
    anew.world.change_latest(anew.key, untold=True)
    anew.looks()
    silent = Story().starts().runs()
    silent.world.change_latest(silent.key, out_of_touch=silent.now)
    silent.looks()
    late = {"deleting": True, "gone_by": silent.now}
    silent.world.change_latest(silent.key, **late)
    silent.waits(300)
    Story(progressDeadlineSeconds=10).starts().runs().says(TrainerPhase.TRAINING, step=1).waits(15)
    others = Story().starts().runs()
    [attempt], training = others.world.attempts[others.key], next(iter(others.world.trainings.values()))[1]
    refusal, [start] = Refusal(FailureReason.ADMISSION_DENIED, "no"), others.actions
    ended = replace(attempt, phase=AttemptPhase.ENDED, exit_code=11)
    spoke = Story.rules_that_spoke | {
        others.decision(job=None).rule,
        others.decision(trainings=()).rule,
        others.decision(trainings=(), refused=(Refused(start, refusal),)).rule,
        others.decision(trainings=(replace(training, held="parallelism is 0"),), attempts=()).rule,
        others.decision(trainings=(replace(training, active=1, unseen_for=15.0),), attempts=()).rule,
        others.decision(trainings=(replace(training, queued=True, refusal=refusal),), attempts=()).rule,
        others.decision(job=replace(others.world.jobs[others.key], spec={}), trainings=(), attempts=()).rule,
        others.decision(trainings=(replace(training, refusal=refusal),), attempts=()).rule,
        others.decision(attempts=(ended,)).rule,
    }
    assert spoke == {rule.__name__ for rule in RULES}
