"""What has started is authoritative, whatever this operator can read of its spec and whoever has changed its training."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from finetune_api.failures import FailureReason
from finetune_api.run import RunIdentity
from finetune_api.status import FineTuneJobStatus, RunStatus
from finetune_operator.decide import case as decide_case
from finetune_operator.reconcile import reconcile
from finetune_operator.worlds.protocol import (
    AttemptPhase,
    Cause,
    ChangeLimits,
    Ending,
    Limits,
    Refusal,
    StartTraining,
    StopTraining,
    Training,
)
from tests.unit.operator.story import NO_GPU, TUNED, Story, result_message

STALLED = {"Ready": "False", "Reconciling": "False", "Stalled": "True", "Finished": "False"}

NEWER: dict[str, dict[str, Any]] = {
    "another value of an enum": {"task": "text-to-speech"},
    "another kind of address": {"output": {"uri": "oci://models/out"}},
    "a number out of today's bounds": {"training": {"epochs": 10**9}},
    "another type": {"resources": {"limits": ["gpu"]}},
    "a rule over fields that fell": {"training": {"batchSize": 1, "microBatchSize": 2}},
}
unreadable = pytest.mark.parametrize("newer", NEWER.values(), ids=NEWER)

STATES: dict[str, Callable[[Story], Story]] = {
    "starting": lambda story: story.starts(),
    "unschedulable": lambda story: story.starts().is_held(FailureReason.UNSCHEDULABLE, NO_GPU),
    "running": lambda story: story.starts().runs(),
    "restarting": lambda story: story.starts().runs().ends(20),
    "queued": lambda story: story.starts().changes_training(queued=True),
}
in_each_state = pytest.mark.parametrize("reach", STATES.values(), ids=STATES)


# ---------------------------------------------------------------------------------------- a spec that cannot be read


@in_each_state
@unreadable
def test_a_run_goes_on_although_its_spec_cannot_be_read_any_more(
    reach: Callable[[Story], Story], newer: dict[str, Any]
) -> None:
    story = reach(Story())
    before, acted = story.status, len(story.actions)
    story.is_edited(**newer).waits(3600)
    assert len(story.actions) == acted
    assert (story.status.phase, story.status.reason) == (before.phase, "InvalidSpec")
    assert story.conditions() == STALLED
    assert story.status.run == before.run
    message = story.status.message or ""
    assert "This operator cannot read the spec: spec" in message
    assert "The run goes on as it was started; correct the field, or install the version" in message
    assert story.is_edited(**{field: Story().spec.get(field) for field in newer}).state() == (
        before.phase,
        before.reason,
    )


@unreadable
def test_an_operator_that_cannot_read_any_spec_at_once_stops_nothing(newer: dict[str, Any]) -> None:
    """Rolled back: the generation is the one that the newer operator has seen."""
    story = Story().starts().runs()
    job = story.world.jobs[story.key]
    decision = story.decision(job=replace(job, spec={**job.spec, **newer}))
    assert decision.actions == ()
    assert decision.status is not None
    assert decision.status.phase == "Running"


@pytest.mark.parametrize(("exit_code", "phase"), [(0, "Succeeded"), (11, "Failed")])
@unreadable
def test_a_run_whose_spec_cannot_be_read_ends_as_any_other(newer: dict[str, Any], exit_code: int, phase: str) -> None:
    story = Story(runId="r").starts().runs().is_edited(**newer).ends(exit_code, TUNED)
    assert story.status.phase == phase
    assert story.conditions()["Finished"] == "True"
    assert story.status.run is not None
    assert story.status.run.uri == "s3://models/out/r"
    writes = story.writes
    assert story.waits(3600).writes == writes


@pytest.mark.parametrize("ending", [Ending.DEADLINE_EXCEEDED, Ending.BACKOFF_LIMIT_EXCEEDED, Ending.OTHER])
@unreadable
def test_every_ending_is_told_without_the_spec(newer: dict[str, Any], ending: Ending) -> None:
    story = Story(activeDeadlineSeconds=600).starts().runs().is_edited(**newer)
    story.world.end_attempt(story.key, 20)
    story.world.end_training(story.key, ending, "gave up")
    story.looks().waits(20)
    assert story.status.phase == "Failed"
    assert "None" not in (story.status.message or "")


@unreadable
def test_a_run_that_lost_its_training_waits_for_whoever_can_read_its_spec(newer: dict[str, Any]) -> None:
    story = Story(runId="r").starts().runs().is_edited(**newer)
    acted = len(story.actions)
    story.loses_its_training()
    assert story.state() == ("Pending", "InvalidSpec")
    assert story.conditions() == STALLED
    message = story.status.message or ""
    assert message.startswith("Run r is not training. This operator cannot read the spec: ")
    assert "The run can go on only when it can be read" in message
    writes = story.writes
    story.waits(3600)
    assert (story.writes, len(story.actions)) == (writes, acted)
    story.is_edited(**{field: Story().spec.get(field) for field in newer})
    assert story.state() == ("Starting", "Restarting")
    assert story.trainings == ["demo-r"]


@unreadable
def test_a_suspension_is_obeyed_whatever_else_cannot_be_read(newer: dict[str, Any]) -> None:
    story = Story(runId="r").starts().runs().is_edited(suspend=True, **newer)
    assert isinstance(story.actions[-1], StopTraining)
    story.ends(30)
    assert story.state() == ("Suspended", "InvalidSpec")
    assert story.trainings == []


@unreadable
def test_what_never_started_fails_for_a_spec_that_cannot_be_read_until_an_operator_can(newer: dict[str, Any]) -> None:
    story = Story(**newer).looks()
    assert story.state() == ("Failed", "InvalidSpec")
    job = story.world.jobs[story.key]
    story.world.jobs[story.key] = replace(job, spec=Story().spec)  # the same generation, read by a newer operator
    assert story.looks().state() == ("Starting", "Starting")


@unreadable
def test_a_run_goes_on_when_its_successor_cannot_be_read_and_ends_before_that_is_refused(newer: dict[str, Any]) -> None:
    story = Story(runId="one").starts().runs().is_edited(runId="two", **newer)
    assert story.state() == ("Running", "InvalidSpec")
    assert story.trainings == ["demo-one"]
    story.ends(0, TUNED)
    assert story.status.metrics
    assert story.looks().state() == ("Failed", "InvalidSpec")


@unreadable
def test_a_training_whose_start_could_not_be_reported_goes_on(newer: dict[str, Any]) -> None:
    story = Story(runId="r").starts().runs()
    job = story.world.jobs[story.key]
    story.world.jobs[story.key] = replace(job, status=FineTuneJobStatus(), spec={**job.spec, **newer})
    acted = len(story.actions)
    assert story.looks().state() == ("Running", "InvalidSpec")
    assert len(story.actions) == acted
    assert story.ends(0, TUNED).status.phase == "Succeeded"


# ------------------------------------------------------------------------------------------------- the run's name


def hashes_otherwise(spec: Any) -> RunIdentity:
    digest = hashlib.sha256(f"another version: {spec}".encode()).hexdigest()
    run_id = spec.run_id or digest[:12]
    return RunIdentity(id=run_id, uri=f"{spec.output.uri}/runs/{run_id}", fingerprint=digest)


ENDS: dict[str, Callable[[Story], Story]] = {
    **STATES,
    "suspended": lambda story: story.starts().runs().is_edited(suspend=True).ends(30),
    "succeeded": lambda story: story.starts().runs().ends(0, TUNED),
    "failed": lambda story: story.starts().runs().ends(11),
}


@pytest.mark.parametrize("noted", [True, False], ids=["noted", "by 0.1.0"])
@pytest.mark.parametrize("run_id", [{}, {"runId": "r"}])
@pytest.mark.parametrize("reach", ENDS.values(), ids=ENDS)
def test_a_version_that_names_runs_otherwise_leaves_those_that_have_started(
    monkeypatch: pytest.MonkeyPatch, reach: Callable[[Story], Story], run_id: dict[str, str], noted: bool
) -> None:
    story = reach(Story(**run_id))
    if not noted:
        forgets_what_was_written(story)
    before, writes, acted = story.status, story.writes, len(story.actions)
    monkeypatch.setattr(decide_case, "identify", hashes_otherwise)
    story.waits(3600)
    assert (story.status, story.writes, len(story.actions)) == (before, writes, acted)


@pytest.mark.parametrize("noted", [True, False], ids=["noted", "by 0.1.0"])
def test_a_training_made_again_by_another_version_is_the_same_run(monkeypatch: pytest.MonkeyPatch, noted: bool) -> None:
    story = Story().starts().runs()
    if not noted:
        forgets_what_was_written(story)
    run, name = story.status.run, story.trainings
    monkeypatch.setattr(decide_case, "identify", hashes_otherwise)
    story.loses_its_training()
    assert (story.status.run, story.trainings) == (run, name)


def forgets_what_was_written(story: Story) -> None:
    job = story.world.jobs[story.key]
    assert job.status.run is not None
    run = job.status.run.model_copy(update={"written": None})
    story.world.jobs[story.key] = replace(job, status=job.status.model_copy(update={"run": run}))


@pytest.mark.parametrize("noted", [True, False], ids=["noted", "by 0.1.0"])
@pytest.mark.parametrize(
    ("was", "becomes"),
    [({}, {"runId": "two"}), ({"runId": "one"}, {"runId": "two"}), ({"runId": "one"}, {"runId": None})],
)
def test_another_run_id_is_another_run(was: dict[str, Any], becomes: dict[str, Any], noted: bool) -> None:
    story = Story(**was).starts().runs()
    if not noted:
        forgets_what_was_written(story)
    assert story.is_edited(**becomes).state() == ("Pending", "Replacing")


def test_the_run_id_that_a_run_has_anyway_is_the_same_run_when_written_out_and_when_left_out_again() -> None:
    story = Story().starts().runs()
    assert story.status.run is not None
    assert story.is_edited(runId=story.status.run.id).state() == ("Running", "Training")
    assert story.is_edited(runId=None).state() == ("Running", "Training")


# ---------------------------------------------------------------------------------------- what newer versions wrote


def newer_status(story: Story, **changes: Any) -> None:
    job = story.world.jobs[story.key]
    written = FineTuneJobStatus.model_validate(job.status.wire() | changes)
    story.world.jobs[story.key] = replace(job, status=written)


@pytest.mark.parametrize("exit_code", [0, 11])
@pytest.mark.parametrize("edited", [False, True])
def test_an_end_in_words_of_a_newer_version_stays_as_it_is(exit_code: int, edited: bool) -> None:
    story = Story().starts().runs().ends(exit_code)
    conditions = story.status.wire()["conditions"]
    more = {"type": "Accepted", "status": "Unknown", "reason": "New", "lastTransitionTime": "2026-01-01T00:00:00Z"}
    newer_status(
        story,
        phase="Certified",
        reason="Signed",
        failure={"reason": "NotSigned", "message": "m", "remedy": "r"},
        conditions=[*conditions, more | {"observedGeneration": 1}],
    )
    before, writes = story.status, story.writes
    if edited:
        story.is_edited(backoffLimit=7)
        assert story.status.observed_generation == 2
    else:
        assert story.looks().writes == writes
    for name in ("phase", "reason", "failure", "message", "completion_time"):
        assert getattr(story.status, name) == getattr(before, name)
    assert {c.type: c.status for c in story.status.conditions or []} == {
        c.type: c.status for c in before.conditions or []
    }


def test_conditions_and_notes_of_a_newer_version_are_kept_while_the_run_goes_on() -> None:
    story = Story().starts().runs()
    wire = story.status.wire()
    condition = {"type": "Accepted", "status": "Unknown", "reason": "New", "lastTransitionTime": "2026-01-01T00:00:00Z"}
    condition |= {"observedGeneration": 1, "message": ""}
    newer_status(
        story,
        phase="Evaluating",
        conditions=[*wire["conditions"], condition],
        attempts=[{**wire["attempts"][0], "joules": 7}],
    )
    story.ends(20).runs()
    assert story.state() == ("Running", "Training")
    assert condition in story.status.wire()["conditions"]
    assert story.status.wire()["attempts"][0]["joules"] == 7


# ---------------------------------------------------------------------------- what others make of a training and its notes

FORGETFUL: dict[str, Callable[[Training], Training]] = {
    "forgotten": lambda t: replace(t, placement=None, asked=None),
    "forgotten, and other limits": lambda t: replace(
        t, placement=None, asked=None, limits=Limits(9, 10**6, ttl_seconds_after_finished=10**6)
    ),
    "other limits": lambda t: replace(t, limits=Limits(9, 10**6, ttl_seconds_after_finished=10**6)),
    "the placement of another": lambda t: replace(t, placement="0123456789abcdef"),
    "a foreign run in its labels": lambda t: replace(t, run_id="other"),
    "no run in its labels": lambda t: replace(t, run_id=""),
}
by_each_policy = pytest.mark.parametrize("policy", FORGETFUL.values(), ids=FORGETFUL)


@by_each_policy
def test_what_a_policy_makes_of_every_training_starts_it_no_second_time(
    policy: Callable[[Training], Training],
) -> None:
    story = Story()
    story.world.policy = policy
    story.looks().is_held(FailureReason.UNSCHEDULABLE, NO_GPU)
    for _ in range(100):
        story.waits(40)
    starts = sum(isinstance(action, StartTraining) for action in story.actions)
    assert starts == 1
    assert sum(isinstance(action, ChangeLimits) for action in story.actions) == 0


@by_each_policy
def test_a_life_under_each_policy_ends_with_its_true_status(policy: Callable[[Training], Training]) -> None:
    story = Story(backoffLimit=0)
    story.world.policy = policy
    story.looks()
    story.runs()
    assert story.state() == ("Running", "Training")
    story.world.end_attempt(story.key, 0, TUNED)
    assert story.looks().state() == ("Succeeded", "Succeeded")
    writes, acted = story.writes, len(story.actions)
    assert story.waits(3600).waits(3600).writes == writes
    assert len(story.actions) == acted


def test_trainings_that_somebody_removes_before_they_run_are_made_again_ever_later() -> None:
    story = Story(runId="r").starts()
    for _ in range(900):
        if story.trainings:
            story.world.remove_training(story.key)
        story.waits(1)
    assert 8 <= sum(isinstance(action, StartTraining) for action in story.actions) <= 12
    assert "times before an attempt ran; it is created again at" in (story.status.message or "")
    story.waits(600).runs().loses_its_training()
    assert story.trainings == ["demo-r"], "what has run is made again at once"


@pytest.mark.parametrize("policy", [FORGETFUL["forgotten"], FORGETFUL["the placement of another"]])
def test_a_correction_reaches_a_waiting_training_at_once_although_nobody_remembers(
    policy: Callable[[Training], Training],
) -> None:
    story = Story(pod={"nodeSelector": {"gpu": "none"}})
    story.world.policy = policy
    story.looks().waits(60).looks()
    acted = len(story.actions)
    story.is_edited(pod={}, backoffLimit=5).looks()
    assert [type(action) for action in story.actions[acted:]] == [StopTraining, StartTraining]


def test_limits_reach_a_training_that_nobody_remembers_those_of_once() -> None:
    story = Story()
    story.world.policy = FORGETFUL["forgotten, and other limits"]
    story.looks().runs()
    story.world.refuses[ChangeLimits] = Refusal(FailureReason.ADMISSION_DENIED, "no")  # as if it had no effect
    story.is_edited(backoffLimit=5)
    assert "stay as they are" in (story.status.message or "")
    assert "stay as they are" not in (story.looks().status.message or "")


def test_a_training_that_does_not_end_as_its_attempts_say_is_not_waited_for_in_silence() -> None:
    """A policy has raised the limit that is in force."""
    story = Story(backoffLimit=0).starts()
    story.runs()
    story.world.change_training(story.key, limits=Limits(0))
    story.world.change_latest(story.key, phase=AttemptPhase.ENDED, exit_code=20, ended=story.now)
    story.looks()
    assert (story.state(), story.recheck) == (("Running", "Training"), 15)
    story.waits(15)
    assert story.state() == ("Starting", "Restarting")


@pytest.mark.parametrize(("exit_code", "limit"), [(20, 0), (20, 1)])
def test_failures_are_told_with_the_limit_that_was_in_force(exit_code: int, limit: int) -> None:
    story = Story(backoffLimit=3)
    story.world.policy = lambda training: replace(training, limits=Limits(limit))
    story.looks()
    for _ in range(limit + 1):
        story.runs()
        story.world.end_attempt(story.key, exit_code)
        story.looks()
    assert story.state() == ("Failed", "BackoffLimitExceeded")
    assert f"the cluster has set the Job's backoffLimit to {limit}" in (story.status.message or "")


def test_a_deadline_that_only_the_cluster_has_set_is_told_as_its_own() -> None:
    story = Story()
    story.world.policy = lambda training: replace(training, limits=Limits(3, 60))
    story.looks().runs().exceeds_its_deadline().waits(11)
    assert "within 60 seconds, a deadline that the cluster gave its Job; the spec asks for none" in (
        story.status.message or ""
    )


def test_a_held_training_says_by_what_and_goes_on_when_that_is_over() -> None:
    story = Story().starts().changes_training(held="its spec.parallelism is 0")
    assert story.state() == ("Pending", "Held")
    assert story.status.message == "its spec.parallelism is 0."
    assert story.changes_training(held="").state() == ("Starting", "Starting")


def test_an_attempt_that_a_policy_hides_is_said_to_run() -> None:
    story = Story().starts()
    story.world.attempts[story.key].clear()
    assert story.waits(60).changes_training(active=1).waits(14).state() == (
        "Starting",
        "Starting",
    )  # its news may be late
    assert story.waits(1).state() == ("Running", "OutOfSight")
    assert story.conditions()["Reconciling"] == "True"
    assert "lacks the labels finetune.dev/uid" in (story.status.message or "")


def test_a_training_of_which_no_watch_tells_is_looked_at() -> None:
    story = Story().starts().runs().changes_training(unwatched=True)
    assert story.recheck == 10


# ------------------------------------------------------------------------------------------------- refused actions

NO = Refusal(FailureReason.ADMISSION_DENIED, "the policy says no")
AWAY = Refusal(FailureReason.CLUSTER_UNAVAILABLE, "the webhook is down", passing=True)


@pytest.mark.parametrize("refusal", [NO, AWAY])
@pytest.mark.parametrize("kind", [StartTraining, StopTraining, ChangeLimits])
def test_whatever_is_refused_is_said_beside_the_truth_and_tried_again(
    refusal: Refusal, kind: type[StartTraining | StopTraining | ChangeLimits]
) -> None:
    story = Story(runId="r")
    story.world.refuses[kind] = refusal
    story.looks()
    if kind is StartTraining:
        assert story.state() == ("Pending", refusal.reason)
    else:
        story.runs()
        change: dict[str, Any] = {"suspend": True} if kind is StopTraining else {"backoffLimit": 9}
        story.is_edited(**change)
        phase = "Suspended" if kind is StopTraining else "Running"
        assert story.status.phase == phase
    assert refusal.message in (story.status.message or "")
    writes = story.writes
    assert story.looks().writes == writes
    assert asyncio.run(backs_off(story)) or refusal is NO
    story.world.refuses.clear()
    story.looks()
    assert isinstance(story.actions[-1], kind)
    assert refusal.message not in (story.status.message or "")


async def backs_off(story: Story) -> bool:
    return (await reconcile(story.world, story.key, story.now)).backs_off


def test_a_second_refusal_in_one_look_is_taken_in_like_the_first() -> None:
    """Two earlier runs are to be stopped, and neither may be."""
    story = Story(runId="one").starts()
    other = next(iter(story.world.trainings.values()))[1]
    story.world.trainings["default", "demo-two"] = story.key, replace(other, name="demo-two", run_id="two", uid="u2")
    story.world.refuses[StopTraining] = NO
    story.is_edited(runId="three")
    message = story.status.message or ""
    assert "demo-one could not be stopped: the policy says no" in message
    assert "demo-two could not be stopped: the policy says no" in message


@pytest.mark.parametrize(
    "change", [{"suspend": True}, {"runId": "other"}, {"resources": {"requests": {"cpu": "2"}}}], ids=str
)
def test_a_stop_that_is_refused_is_not_told_as_one_that_happens(change: dict[str, Any]) -> None:
    story = Story(runId="r").starts()
    story.world.refuses[StopTraining] = NO
    story.is_edited(**change)
    assert story.status.message == f"demo-r could not be stopped: {NO.message}."
    assert (story.conditions()["Stalled"], story.conditions()["Reconciling"]) == ("True", "False")
    story.world.refuses.clear()
    assert story.looks().looks().conditions()["Stalled"] == "False"


def test_what_keeps_the_pod_is_told_beside_the_stop_that_is_refused() -> None:
    story = Story(runId="r").starts().runs()
    story.world.refuses[StopTraining] = NO
    message = story.trainer_ends(1, "mesh").waits(11).waits(200).status.message or ""
    assert message.startswith("Attempt 1 ended with Internal, but container mesh keeps the pod.")
    assert f"demo-r could not be stopped: {NO.message}." in message


def test_a_run_that_is_suspended_is_not_said_to_go_on_because_its_spec_cannot_be_read() -> None:
    story = Story(runId="r").starts().runs().is_edited(suspend=True, method={"type": "of-tomorrow"})
    assert story.status.phase == "Suspended"
    assert "The run can go on only when it can be read" in (story.status.message or "")


# ------------------------------------------------------------------------------------------------------- the image


def test_a_run_that_never_ran_takes_the_present_default_image() -> None:
    story = Story(runId="r").starts().is_held(FailureReason.IMAGE_PULL_FAILED, "not found")
    story.gets_the_default_image("trainer:right")
    assert isinstance(story.actions[-1], StopTraining)
    assert story.state() == ("Starting", "Restarting")
    story.looks()
    assert isinstance(story.actions[-1], StartTraining)
    assert story.actions[-1].image == "trainer:right"
    assert story.status.run is not None
    assert story.status.run.image == "trainer:right"
    acted = len(story.actions)
    assert len(story.waits(3600).actions) == acted


def test_a_run_that_never_ran_takes_another_image_of_its_spec() -> None:
    story = Story(runId="r", image="trainer:wrong").starts().is_edited(image="trainer:right").looks()
    assert isinstance(story.actions[-1], StartTraining)
    assert story.actions[-1].image == "trainer:right"


def test_attempts_that_their_nodes_rejected_have_run_nothing() -> None:
    story = (
        Story(runId="r")
        .starts()
        .ends(None, ended_by=Cause("Rejected", "OutOfcpu"))
        .gets_the_default_image("trainer:right")
        .looks()
    )
    assert isinstance(story.actions[-1], StartTraining)
    assert story.actions[-1].image == "trainer:right"


@pytest.mark.parametrize("digest", ["sha256:" + "a" * 64, None])
def test_the_image_of_the_first_attempt_that_ran_is_pinned_with_its_digest(digest: str | None) -> None:
    story = Story(runId="r").starts()
    story.world.change_latest(story.key, image="registry.example:5000/a/trainer:1", image_digest=digest)
    story.runs().gets_the_default_image("trainer:newer")
    run = story.status.run
    assert isinstance(run, RunStatus)
    assert (run.image, run.image_digest) == ("registry.example:5000/a/trainer:1", digest)
    story.loses_its_training().loses_its_training()
    assert isinstance(story.actions[-1], StartTraining)
    pinned = f"registry.example:5000/a/trainer@{digest}" if digest else "registry.example:5000/a/trainer:1"
    assert story.actions[-1].image == pinned
    story.world.change_latest(story.key, image=pinned, image_digest="sha256:" + "b" * 64)
    assert story.runs().status.run == run


def test_the_trainers_own_error_keeps_the_image_that_ran() -> None:
    story = Story(runId="r").starts().runs().gets_the_default_image("trainer:newer")
    story.ends(11, result_message("failed", error=(FailureReason.COLUMN_MISSING, "m")))
    assert story.status.run is not None
    assert story.status.run.image == "trainer:test"
