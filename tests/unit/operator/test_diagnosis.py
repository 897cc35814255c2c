"""A verdict that comes later never hides what a run waited for or failed with, and nothing else is said in between."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from finetune_api.failures import REMEDIES, FailureReason
from finetune_operator.worlds.kube.facts import read_training
from finetune_operator.worlds.kube.manifest import limits, limits_asked
from finetune_operator.worlds.protocol import AttemptPhase, Ending, Limits, Refusal
from tests.unit.operator.story import NO_GPU, Story, at_once

PULL = "The image trainer:x cannot be pulled: not found"
WAITS = {
    FailureReason.IMAGE_PULL_FAILED: PULL,
    FailureReason.UNSCHEDULABLE: f"No node can take the pod: {NO_GPU}",
    FailureReason.SECRET_MISSING: 'The pod cannot start: secret "s3" not found, which spec.storage.secretRef names',
    FailureReason.SIDECAR_FAILED: "The init container istio-init, which is not the trainer's, ends again and again (exit code 1)",
}


def held(reason: FailureReason) -> Story:
    return Story(activeDeadlineSeconds=60).starts().is_held(reason, WAITS[reason])


def gone(story: Story) -> Story:
    """What the Job controller deletes at the deadline is gone before it says why."""
    story.world.attempts[story.key].clear()
    return story


@pytest.mark.parametrize("reason", WAITS)
@pytest.mark.parametrize("pod", ["there", "gone", "ended"])
def test_a_deadline_missed_while_waiting_says_for_what_and_what_to_do_about_that(
    reason: FailureReason, pod: str
) -> None:
    story = held(reason)
    if pod == "gone":
        gone(story)
    if pod == "ended":
        story.world.change_latest(story.key, phase=AttemptPhase.ENDED, waiting=None, deleting=True, exit_code=None)
    story.waits(60).exceeds_its_deadline().waits(11)
    assert story.state() == ("Failed", "DeadlineExceeded")
    failure = story.status.failure
    assert failure is not None
    assert failure.message == f"The run did not finish within 60 seconds; it waited for: {WAITS[reason].rstrip('.')}."
    assert failure.remedy == f"{REMEDIES[reason]} To run again, set another spec.runId."


def test_a_deadline_missed_while_no_pod_could_be_created_says_why() -> None:
    story = Story(activeDeadlineSeconds=60).starts()
    refusal = Refusal(FailureReason.QUOTA_EXCEEDED, "exceeded quota: gpus")
    gone(story).changes_training(refusal=refusal)
    assert story.state() == ("Starting", "QuotaExceeded")
    story.changes_training(refusal=None, ending=Ending.DEADLINE_EXCEEDED, ended=story.now).waits(11)
    assert "; it waited for: exceeded quota: gpus. " in (story.status.message or "")
    assert REMEDIES[FailureReason.QUOTA_EXCEEDED] in (story.status.message or "")


def test_a_deadline_missed_between_two_attempts_says_how_the_last_one_ended() -> None:
    story = Story(activeDeadlineSeconds=600).starts().runs()
    story.ends(20, error=(FailureReason.STORAGE_UNAVAILABLE, "the bucket did not answer"))
    story.world.attempts[story.key].pop()
    story.looks().waits(600).exceeds_its_deadline().waits(11)
    assert "; its last attempt ended with StorageUnavailable: the bucket did not answer. " in (
        story.status.message or ""
    )
    assert REMEDIES[FailureReason.STORAGE_UNAVAILABLE] in (story.status.message or "")


def test_a_deadline_missed_by_an_attempt_that_ran_says_to_raise_it() -> None:
    story = Story(activeDeadlineSeconds=60).starts().runs()
    story.world.change_latest(story.key, deleting=True)
    story.waits(60)
    assert story.status.message is not None
    assert story.status.message.endswith("and then the training ends: The run did not finish within 60 seconds.")
    story.world.end_attempt(story.key, 30)
    story.world.attempts[story.key].pop()
    story.looks().exceeds_its_deadline().waits(11)
    assert story.status.failure is not None
    assert story.status.failure.message == "The run did not finish within 60 seconds."
    assert story.status.failure.remedy == REMEDIES[FailureReason.DEADLINE_EXCEEDED]


def test_a_deadline_that_nobody_asked_for_is_not_told_as_the_specs() -> None:
    story = Story().starts().runs().exceeds_its_deadline().waits(11)
    assert "before a deadline that the cluster gave its Job" in (story.status.message or "")


def test_an_ending_that_nobody_expected_keeps_what_the_run_waited_for() -> None:
    story = held(FailureReason.IMAGE_PULL_FAILED)
    story.changes_training(ending=Ending.OTHER, ended=story.now, message="Too many failed indexes").waits(11)
    assert (story.status.message or "").startswith(
        f"Too many failed indexes; it waited for: {PULL}. {REMEDIES[FailureReason.IMAGE_PULL_FAILED]}"
    )


def test_the_limit_of_failures_names_the_last_one_although_its_pod_is_gone() -> None:
    story = Story(backoffLimit=1).starts().runs().ends(20).runs()
    story.world.end_attempt(story.key, 137, out_of_memory=True)
    training = at_once(story.world.observe(story.key)).trainings[0]
    decision = story.decision(attempts=(), trainings=(replace(training, ended_for=11),))
    assert decision.status is not None
    assert "The last one: StorageUnavailable" in (decision.status.message or "")


# ------------------------------------------------------------------------------------------- between the end and the word


@pytest.mark.parametrize("reason", WAITS)
def test_nothing_is_said_between_a_deadline_and_the_word_about_it(reason: FailureReason) -> None:
    story = held(reason).waits(59)
    before, writes = story.status, story.writes
    for seconds in (0, 1, 30):
        gone(story).waits(seconds)
        assert (story.status, story.writes) == (before, writes)
    assert story.decision().rule == "verdict_is_due"


def test_a_deadline_after_which_nothing_happens_holds_the_status_back_for_a_minute_only() -> None:
    story = gone(held(FailureReason.UNSCHEDULABLE)).waits(180)
    assert story.state() == ("Starting", "Starting")


@pytest.mark.parametrize("verdict", [e for e in Ending if e is not Ending.COMPLETE])
def test_nothing_is_said_between_the_job_controllers_mind_and_its_word(verdict: Ending) -> None:
    """A Job gets a FailureTarget first, and is Failed when the last of its pods is gone."""
    story = Story().starts().runs().ends(20)
    before, writes = story.status, story.writes
    gone(story).changes_training(verdict=verdict).waits(120)
    assert (story.status, story.writes) == (before, writes)


def test_a_queue_stops_the_clock_of_a_deadline() -> None:
    story = Story(activeDeadlineSeconds=60).starts().changes_training(queued=True, started=None).waits(60)
    assert story.state() == ("Pending", "Queued")


CONDITIONS: list[tuple[dict[str, str], Ending | None, Ending | None]] = [
    ({"type": "FailureTarget", "reason": "DeadlineExceeded"}, Ending.DEADLINE_EXCEEDED, None),
    ({"type": "FailureTarget", "reason": "BackoffLimitExceeded"}, Ending.BACKOFF_LIMIT_EXCEEDED, None),
    ({"type": "FailureTarget", "reason": "PodFailurePolicy"}, Ending.NEVER_RETRIED, None),
    ({"type": "SuccessCriteriaMet", "reason": "CompletionsReached"}, Ending.COMPLETE, None),
    ({"type": "Failed", "reason": "DeadlineExceeded"}, Ending.DEADLINE_EXCEEDED, Ending.DEADLINE_EXCEEDED),
    ({"type": "Suspended", "reason": "JobSuspended"}, None, None),
]


@pytest.mark.parametrize(("condition", "verdict", "ending"), CONDITIONS)
def test_a_job_says_what_it_will_come_to_before_it_does(
    condition: dict[str, str], verdict: Ending | None, ending: Ending | None
) -> None:
    asked = Limits(backoff_limit=3, active_deadline_seconds=600)
    job: dict[str, Any] = {
        "metadata": {
            "namespace": "ml",
            "name": "demo-r",
            "uid": "u",
            "resourceVersion": "1",
            "creationTimestamp": "2026-01-01T00:00:00Z",
            "annotations": limits_asked(asked),
            "ownerReferences": [{"kind": "FineTuneJob", "name": "demo", "uid": "job", "controller": True}],
        },
        "spec": limits(asked),
        "status": {
            "startTime": "2026-01-01T00:00:05Z",
            "conditions": [{**condition, "status": "True", "lastTransitionTime": "2026-01-01T00:10:00Z"}],
        },
    }
    child = read_training(job)
    assert child is not None
    assert (child.fact.verdict, child.fact.ending) == (verdict, ending)
    assert child.fact.started == datetime(2026, 1, 1, 0, 0, 5, tzinfo=UTC)
