"""What a job waits for is said whoever ends it: a problem with what to do about it, and what comes by itself without a warning."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from finetune_api.failures import REMEDIES, FailureReason
from finetune_operator.worlds.kube import names
from finetune_operator.worlds.kube.facts import read_attempt
from finetune_operator.worlds.protocol import AttemptSeen, Awaited, Backoff, OnItsWay, Refusal
from tests.unit.operator.story import NO_GPU, Story, result_message

MIDNIGHT = datetime(2026, 1, 1, tzinfo=UTC)
NO_NODE = f"No node can take the pod: {NO_GPU}"


def waits_for(what: Awaited, message: str, **facts: Any) -> Story:
    story = Story(activeDeadlineSeconds=7200).starts()
    story.world.change_latest(story.key, on_its_way=OnItsWay(what, message, story.now), **facts)
    return story.waits(20)


def test_a_node_that_is_being_added_is_said_without_a_warning_until_it_is_there() -> None:
    story = waits_for(Awaited.NODE, "A node is being added for the pod (gpu 0->1 (max: 2))")
    assert story.state() == ("Starting", "ScalingUp")
    assert story.status.message == "A node is being added for the pod (gpu 0->1 (max: 2)), since 00:00:00 UTC."
    assert story.conditions()["Stalled"] == "False"
    assert [(e.type, e.reason) for e in story.events] == [("Normal", "ScalingUp")]
    assert story.runs().state() == ("Running", "Training")


def test_a_node_that_does_not_come_is_no_node() -> None:
    story = waits_for(Awaited.NODE, "A node is being added").is_held(FailureReason.UNSCHEDULABLE, NO_NODE)
    assert story.state() == ("Starting", "ScalingUp"), "what no node can take is no problem while one comes"
    assert story.recheck == 20 * 60 - 20
    assert story.waits(20 * 60 - 20).state() == ("Starting", "Unschedulable")
    assert REMEDIES[FailureReason.UNSCHEDULABLE] in (story.status.message or "")


def test_an_image_that_is_being_pulled_is_said_without_a_warning_and_once() -> None:
    story = waits_for(Awaited.IMAGE, "The node n pulls the image trainer:1")
    assert story.state() == ("Starting", "PullingImage")
    assert story.status.message == "The node n pulls the image trainer:1, since 00:00:00 UTC."
    writes = story.writes
    assert story.waits(600).writes == writes
    assert "Warning" not in [e.type for e in story.events]


def test_a_problem_comes_before_an_image_that_is_being_pulled() -> None:
    story = waits_for(Awaited.IMAGE, "…").is_held(FailureReason.VOLUME_UNAVAILABLE, "A volume of the pod is not there")
    assert story.state() == ("Starting", "VolumeUnavailable")


@pytest.mark.parametrize("reason", [FailureReason.VOLUME_UNAVAILABLE, FailureReason.SANDBOX_FAILED])
def test_a_volume_or_a_sandbox_is_waited_for_with_what_to_do(reason: FailureReason) -> None:
    story = Story().starts().is_held(reason, "Not there.")
    assert story.state() == ("Starting", reason)
    assert story.status.message == f"Not there. {REMEDIES[reason]}"
    assert story.events[-1].type == "Warning"


def test_a_deadline_missed_while_an_image_was_pulled_says_so() -> None:
    story = waits_for(Awaited.IMAGE, "The node n pulls the image trainer:1").exceeds_its_deadline().waits(11)
    assert story.state() == ("Failed", "DeadlineExceeded")
    assert "; it waited for: The node n pulls the image trainer:1. " in (story.status.message or "")


# --------------------------------------------------------------------------------------- for longer than it may wait

PENDING: dict[str, tuple[dict[str, Any], dict[str, Any], str, str, str]] = {
    "for a node": (
        {"waiting": Refusal(FailureReason.UNSCHEDULABLE, NO_NODE)}, {},
        "Unschedulable", NO_NODE, REMEDIES[FailureReason.UNSCHEDULABLE],
    ),
    "for a node that is coming": (
        {
            "waiting": Refusal(FailureReason.UNSCHEDULABLE, NO_NODE),
            "on_its_way": OnItsWay(Awaited.NODE, "A node is being added for the pod (gpu 0->1)", MIDNIGHT),
        }, {},
        "Unschedulable", f"{NO_NODE} A node is being added for the pod (gpu 0->1).", REMEDIES[FailureReason.UNSCHEDULABLE],
    ),
    "for a volume": (
        {"waiting": Refusal(FailureReason.VOLUME_UNAVAILABLE, "no disk")}, {},
        "VolumeUnavailable", "no disk.", REMEDIES[FailureReason.VOLUME_UNAVAILABLE],
    ),
    "for a gate": (
        {"waiting": Refusal(FailureReason.UNSCHEDULABLE, "a gate", remedy="Take it off.")}, {},
        "Unschedulable", "a gate.", "Take it off.",
    ),
    "for its image": (
        {"on_its_way": OnItsWay(Awaited.IMAGE, "The node n pulls the image x", MIDNIGHT)}, {},
        "DeadlineExceeded", "The node n pulls the image x.", "Raise spec.pendingDeadlineSeconds",
    ),
    "for a quota": (
        {}, {"refusal": Refusal(FailureReason.QUOTA_EXCEEDED, "exceeded quota: gpus")},
        "QuotaExceeded", "exceeded quota: gpus.", REMEDIES[FailureReason.QUOTA_EXCEEDED],
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", PENDING)
def test_what_waits_for_too_long_fails_with_what_it_waited_for_and_frees_what_it_had_got(case: str) -> None:
    attempt, training, reason, message, remedy = PENDING[case]
    story = Story(pendingDeadlineSeconds=600).starts()
    story.world.change_latest(story.key, **attempt)
    if training:
        story.world.attempts[story.key].clear()
    story.changes_training(**training).waits(599)
    assert story.status.phase == "Starting"
    assert story.recheck == 1
    assert story.waits(1).state() == ("Failed", reason)
    failure = story.status.failure
    assert failure is not None
    assert failure.message == (
        f"No attempt ran within the 600 seconds of spec.pendingDeadlineSeconds; it waited for: {message}"
    )
    assert failure.remedy.startswith(remedy)
    assert "set another spec.runId" in failure.remedy
    assert story.conditions()["Finished"] == "True"
    assert story.trainings, "first its end is written"
    assert story.looks().trainings == []
    assert story.waits(3600).state() == ("Failed", reason)


def test_what_waits_too_long_for_nobody_knows_what_says_that_no_attempt_ran() -> None:
    story = Story(pendingDeadlineSeconds=60).starts().waits(60)
    assert story.state() == ("Failed", "DeadlineExceeded")
    assert "No attempt ran within the 60 seconds of spec.pendingDeadlineSeconds. Raise" in (story.status.message or "")


def test_without_a_limit_it_waits_for_ever_and_one_may_be_set_or_taken_away_meanwhile() -> None:
    story = Story().starts().waits(10**6)
    assert story.status.phase == "Starting"
    story.is_edited(pendingDeadlineSeconds=2 * 10**6)
    assert len(story.actions) == 1, "no new pod for that"
    story.waits(10**6 - 1)
    assert story.is_edited(pendingDeadlineSeconds=None).waits(10**6).status.phase == "Starting"
    assert story.is_edited(pendingDeadlineSeconds=1).status.phase == "Failed"


def test_time_in_a_queue_does_not_count_also_when_it_goes_back_there() -> None:
    story = Story(pendingDeadlineSeconds=60).starts().changes_training(queued=True, started=None)
    assert story.waits(3600).state() == ("Pending", "Queued")
    story.changes_training(queued=False, started=story.now).waits(59)
    assert story.state() == ("Starting", "Starting")
    story.changes_training(queued=True, started=None).waits(3600)
    story.changes_training(queued=False, started=story.now)
    assert story.waits(59).status.phase == "Starting"
    assert story.waits(1).status.phase == "Failed"


def test_a_running_attempt_stops_the_clock_and_its_end_begins_it_anew() -> None:
    story = Story(pendingDeadlineSeconds=60).starts().waits(50).runs().waits(3600)
    assert story.state() == ("Running", "Training")
    story.ends(30, result_message("preempted", step=1)).waits(59)
    assert story.state() == ("Starting", "Restarting")
    assert story.waits(1).status.phase == "Failed"


def test_the_time_that_the_cluster_lets_pass_between_attempts_does_not_count() -> None:
    story = Story(pendingDeadlineSeconds=60)
    story.world.backoff = Backoff(timedelta(seconds=40), timedelta(minutes=10))
    story.starts().runs().ends(20).waits(70)
    assert story.state() == ("Starting", "Restarting")
    assert story.waits(29).status.phase == "Starting"
    assert story.waits(1).status.phase == "Failed"


def test_an_attempt_that_nobody_sees_may_run() -> None:
    story = Story(pendingDeadlineSeconds=60).starts()
    story.world.attempts[story.key].clear()
    assert story.changes_training(active=1).waits(3600).state() == ("Running", "OutOfSight")


# ------------------------------------------------------------------------------------------------------- out of touch


def test_a_node_out_of_touch_is_said_and_that_it_is_back_as_well() -> None:
    story = Story().starts().runs()
    story.world.change_latest(story.key, out_of_touch=story.now)
    assert story.looks().state() == ("Running", "NodeLost")
    assert (story.status.message or "").startswith(
        f"{story.world.attempts[story.key][-1].name} on node node-1 has not been heard of since 00:00:05 UTC, because its node is out of touch."
    )
    assert story.events[-1].type == "Warning"
    writes = story.writes
    assert story.waits(120).writes == writes
    story.world.change_latest(story.key, out_of_touch=None)
    assert story.looks().state() == ("Running", "Training")


@pytest.mark.parametrize(
    ("by", "phase"),
    [
        ("the cluster", "Running"),
        ("a suspension", "Suspended"),
        ("somebody who deleted its training", "Starting"),
        ("somebody who deleted its training without a word to it", "Starting"),
    ],
)
def test_nobody_says_of_a_pod_on_a_node_out_of_touch_that_it_saves_and_stops(by: str, phase: str) -> None:
    story = Story().starts().runs()
    gone_by = story.now + timedelta(seconds=60)
    story.world.change_latest(story.key, out_of_touch=story.now, deleting=True, gone_by=gone_by)
    match by:
        case "a suspension":
            story.is_edited(suspend=True)
        case "somebody who deleted its training":
            story.changes_training(deleting=True)
        case "somebody who deleted its training without a word to it":
            story.world.trainings.clear()
    assert story.looks().state() == (phase, "NodeLost")
    name = story.world.attempts[story.key][-1].name
    assert story.status.message == (
        f"{name} on node node-1 has not been heard of since 00:00:05 UTC, because its node is out of touch. "
        "It was told to stop and to be gone by 00:01:05 UTC, and may not have heard that."
    )
    assert story.waits(91).state() == (phase, "NodeLost")
    assert "should be gone since" in (story.status.message or "")


CONDITIONS: dict[str, tuple[list[tuple[str, str]], dict[str, Any], bool]] = {
    "runs": ([("Ready", "True"), ("ContainersReady", "True")], {}, False),
    "the node controller took its readiness": ([("Ready", "False"), ("ContainersReady", "True")], {}, True),
    "the kubelet took it": ([("Ready", "False"), ("ContainersReady", "False")], {}, False),
    "a readiness gate is not there": (
        [("Ready", "False"), ("ContainersReady", "True")],
        {"readinessGates": [{"conditionType": "example.com/ready"}]},
        False,
    ),
    "nothing is said of containers": ([("Ready", "False")], {}, False),
    "nothing is said": ([], {}, False),
}


@pytest.mark.parametrize("case", CONDITIONS)
def test_a_pod_is_out_of_touch_where_the_node_controller_alone_says_that_it_is_not_ready(case: str) -> None:
    conditions, spec, expected = CONDITIONS[case]
    running = {"running": {"startedAt": "2026-01-01T00:00:10Z"}}
    seen = attempt(conditions, spec, "Running", running)
    assert (seen.out_of_touch is not None) == expected
    assert attempt(conditions, spec, "Failed", {"terminated": {"exitCode": 1}}).out_of_touch is None


def attempt(conditions: list[tuple[str, str]], spec: dict[str, Any], phase: str, state: dict[str, Any]) -> AttemptSeen:
    time = "2026-01-01T00:05:00Z"
    status = {
        "phase": phase,
        "conditions": [{"type": t, "status": s, "lastTransitionTime": time} for t, s in conditions],
        "containerStatuses": [{"name": names.CONTAINER, "state": state}],
    }
    meta = {"namespace": "ml", "name": "demo-r-x", "uid": "u", "resourceVersion": "1", "creationTimestamp": time}
    labels = {names.JOB_LABEL: "demo", names.UID_LABEL: "job"}
    child = read_attempt({"metadata": {**meta, "labels": labels}, "spec": {"nodeName": "n", **spec}, "status": status})
    assert child is not None
    return child.fact
