"""spec.pendingDeadlineSeconds counts while the Job itself cannot be made: what was asked for and refused, and nothing else.

All that is known of it stands in the status, so that every look here may be that of another operator.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from finetune_api.failures import REMEDIES, FailureReason
from finetune_operator.decide.ending import FINAL_REFUSALS
from finetune_operator.worlds.protocol import Refusal, StartTraining
from tests.unit.operator.story import NO_GPU, Story, result_message

LIMIT = 600
REFUSED: dict[str, Refusal] = {
    "a quota of Jobs": Refusal(FailureReason.QUOTA_EXCEEDED, "The namespace has no room for it: used: count/jobs.batch=1"),
    "a quota with a remedy": Refusal(FailureReason.QUOTA_EXCEEDED, "no room", remedy="Ask for a larger quota."),
    "a policy": Refusal(FailureReason.ADMISSION_DENIED, "The cluster does not admit the pod: denied"),
    "a reference": Refusal(FailureReason.REFERENCE_MISSING, "There is no ServiceAccount x", "spec.pod.serviceAccountName"),
    "certificates": Refusal(FailureReason.TRUSTED_CA_INVALID, "There is no ConfigMap trust"),
    "a Job of somebody else's": Refusal(FailureReason.NAME_CONFLICT, "A Job named demo-r is there already"),
    "a Job that is being deleted": Refusal(FailureReason.NAME_CONFLICT, "still being deleted", passing=True),
    "a webhook that is down": Refusal(FailureReason.CLUSTER_UNAVAILABLE, "The API server answers 500", passing=True),
}  # fmt: skip


def refused(refusal: Refusal = REFUSED["a quota of Jobs"], **changes: Any) -> Story:
    story = Story(**{"pendingDeadlineSeconds": LIMIT, **changes})
    story.world.refuses[StartTraining] = refusal
    return story.looks()


def keeps_trying(story: Story, seconds: float) -> Story:
    """For so long, each time when the operator has asked to."""
    end = story.now + timedelta(seconds=seconds)
    while story.now < end and story.status.phase != "Failed":
        step = min(story.recheck or 0.5, (end - story.now).total_seconds())
        story.waits(step)
    return story


@pytest.mark.parametrize("kind", REFUSED)
def test_what_cannot_be_made_for_too_long_fails_in_the_same_words_as_a_pod_that_waits(kind: str) -> None:
    refusal = REFUSED[kind]
    story = keeps_trying(refused(refusal), LIMIT - 1)
    assert story.state() == ("Pending", refusal.reason)
    assert story.recheck == 1
    assert story.waits(1).state() == ("Failed", refusal.reason)
    failure, status = story.status.failure, story.status
    assert failure is not None
    said = refusal.message.rstrip(".")
    assert failure.message == (
        f"No attempt ran within the 600 seconds of spec.pendingDeadlineSeconds; it waited for: {said}."
    )
    assert failure.remedy.startswith((refusal.remedy or REMEDIES[refusal.reason]).rstrip("."))
    assert "set another spec.runId" in failure.remedy
    assert (failure.field, failure.attempt, status.waited) == (refusal.field, None, None)
    assert story.conditions()["Finished"] == "True"
    assert [e.reason for e in story.events] == [refusal.reason] * 2, "once that it waits, once that it ends"


@pytest.mark.parametrize("reason", sorted(FINAL_REFUSALS))
def test_what_never_heals_by_waiting_still_fails_at_once(reason: FailureReason) -> None:
    story = refused(Refusal(reason, "no"))
    assert story.state() == ("Failed", reason)
    assert story.status.failure is not None
    assert "pendingDeadlineSeconds" not in story.status.failure.message


def test_what_a_person_has_to_mend_in_the_manifest_waits_for_that_person() -> None:
    story = Story(pendingDeadlineSeconds=60, pod={"labels": {"kueue.x-k8s.io/priority-class": "high"}})
    story.world.allowed_pod_keys = ()
    assert story.looks().state() == ("Pending", "AdmissionDenied")
    assert story.waits(3600).state() == ("Pending", "AdmissionDenied")
    assert story.conditions()["Stalled"] == "True"


def test_a_run_that_could_not_be_made_in_time_is_over_until_another_is_asked_for() -> None:
    story = keeps_trying(refused(), LIMIT)
    assert story.status.phase == "Failed"
    story.world.refuses.clear()
    assert story.waits(3600).status.phase == "Failed"
    assert story.is_edited(pendingDeadlineSeconds=10**6).status.phase == "Failed"
    assert story.is_edited(ttlSecondsAfterFinished=5).status.phase == "Failed"
    assert story.trainings == []
    assert story.is_edited(runId="again").state() == ("Starting", "Starting")


@pytest.mark.parametrize("limit", [1, 5, 20, 37, LIMIT, 709, 7200])
def test_it_is_kept_to_the_second_and_written_ten_times_however_long_it_is(limit: int) -> None:
    story = keeps_trying(refused(pendingDeadlineSeconds=limit), limit - 1)
    assert story.status.phase == "Pending"
    assert story.waits(1).status.phase == "Failed"
    assert story.writes <= 12


def test_without_a_limit_nothing_is_written() -> None:
    story = keeps_trying(refused(pendingDeadlineSeconds=None), 3600)
    assert (story.status.waited, story.recheck, story.writes) == (None, 30, 1)


def test_a_short_limit_is_kept_by_trying_more_often() -> None:
    story = refused(pendingDeadlineSeconds=20)
    assert story.recheck == 2
    assert keeps_trying(story, 19).status.phase == "Pending"
    assert story.waits(1).status.phase == "Failed"


@pytest.mark.parametrize("away", [3600, 10**7])
def test_time_in_which_no_operator_was_there_to_try_does_not_count(away: float) -> None:
    story = keeps_trying(refused(), 300).waits(away)
    assert story.status.phase == "Pending"
    assert story.recheck is not None
    left = LIMIT - 300 - LIMIT / 10 - 2  # what may lie between two tries
    assert keeps_trying(story, left - 1).status.phase == "Pending"
    assert keeps_trying(story, 61).status.phase == "Failed"


def test_it_is_tried_once_more_before_it_is_given_up() -> None:
    story = keeps_trying(refused(), LIMIT - 1)
    story.world.refuses.clear()
    assert story.waits(1).state() == ("Starting", "Starting")


def test_what_could_be_made_at_last_has_what_is_left_of_the_time_and_nothing_counts_twice() -> None:
    story = keeps_trying(refused(), 400)
    story.world.refuses.clear()
    story.waits(10).is_held(FailureReason.UNSCHEDULABLE, NO_GPU)
    assert story.state() == ("Starting", "Unschedulable")
    assert story.waits(LIMIT - 411).status.phase == "Starting"
    assert story.recheck == 1
    assert story.waits(1).state() == ("Failed", "Unschedulable")
    assert "it waited for: 0/1 nodes" in (story.status.message or "")


ENDS: dict[str, Any] = {
    "an attempt that ran": lambda s: s.waits(1).runs().ends(30, result_message("preempted", step=1)),
    "a queue": lambda s: (
        s.looks()
        .changes_training(queue="gpus", queued=True, started=None)
        .waits(3600)
        .changes_training(queued=False, started=s.now)
    ),
    "somebody who holds it": lambda s: (
        s.looks()
        .changes_training(held="The Job is held.", started=None)
        .waits(3600)
        .changes_training(held="", started=s.now)
    ),
}


@pytest.mark.parametrize("end", ENDS)
def test_it_is_over_and_counted_anew_after(end: str) -> None:
    story = keeps_trying(refused(), 500)
    story.world.refuses.clear()
    ENDS[end](story)
    assert story.status.phase == "Starting"
    assert story.status.waited is None
    assert story.waits(LIMIT - 1).status.phase == "Starting"
    assert story.waits(1).status.phase == "Failed"


def test_a_suspension_does_not_count_and_begins_it_anew() -> None:
    story = keeps_trying(refused(), 500).is_edited(suspend=True)
    assert story.state() == ("Suspended", "Suspended")
    assert story.status.waited is None
    story.waits(10**6).is_edited(suspend=False)
    assert keeps_trying(story, LIMIT - 1).status.phase == "Pending"
    assert keeps_trying(story, 1).status.phase == "Failed"


EDITS: dict[str, tuple[dict[str, Any], bool]] = {
    "what a pod asks for": ({"pod": {"serviceAccountName": "trainer"}}, True),
    "another run": ({"runId": "another"}, True),
    "how often it is tried": ({"backoffLimit": 9}, False),
    "the limit, which is raised": ({"pendingDeadlineSeconds": LIMIT + 1}, False),
}


@pytest.mark.parametrize("edit", EDITS)
def test_who_corrects_what_was_refused_gets_the_whole_time_again(edit: str) -> None:
    changes, anew = EDITS[edit]
    story = keeps_trying(refused(), 590).is_edited(**changes)
    assert (keeps_trying(story, 20).status.phase == "Pending") == anew


def test_a_limit_that_is_set_late_counts_from_then_and_one_that_is_taken_away_from_when_it_is_set_again() -> None:
    story = keeps_trying(refused(pendingDeadlineSeconds=None), 3600).is_edited(pendingDeadlineSeconds=LIMIT)
    assert keeps_trying(story, LIMIT - 1).status.phase == "Pending"
    story.is_edited(pendingDeadlineSeconds=None)
    assert (story.status.phase, story.status.waited) == ("Pending", None)
    story.is_edited(pendingDeadlineSeconds=LIMIT)
    assert keeps_trying(story, LIMIT - 1).status.phase == "Pending"
    assert keeps_trying(story, 1).status.phase == "Failed"


@pytest.mark.parametrize("jump", [-(10**6), -1, 10**6])
def test_a_clock_that_was_set_makes_it_neither_end_nor_wait_for_ever(jump: float) -> None:
    story = keeps_trying(refused(), 300).waits(jump)
    assert story.status.phase == "Pending"
    assert keeps_trying(story, LIMIT - 300 - 63).status.phase == "Pending"
    assert keeps_trying(story, 63 + 61).status.phase == "Failed"


def test_a_run_that_has_trained_and_cannot_be_made_again_is_counted_from_its_refusal() -> None:
    story = Story(pendingDeadlineSeconds=LIMIT).starts().runs().waits(3600)
    story.ends(30, result_message("preempted", step=7))
    began = story.status.start_time
    story.world.refuses[StartTraining] = REFUSED["a quota of Jobs"]
    story.loses_its_training()
    assert story.state() == ("Pending", "QuotaExceeded")
    assert keeps_trying(story, LIMIT - 1).status.phase == "Pending"
    assert story.waits(1).state() == ("Failed", "QuotaExceeded")
    assert story.status.start_time == began
    assert [a.step for a in story.status.attempts or []] == [7]


def test_a_training_that_somebody_removes_each_time_before_it_runs_is_not_made_for_ever() -> None:
    story = Story(pendingDeadlineSeconds=LIMIT).starts()
    for _ in range(200):
        if story.status.phase == "Failed":
            break
        if story.trainings:
            story.loses_its_training()
        else:
            story.waits(story.recheck or 1)
    assert story.state() == ("Failed", "DeadlineExceeded")
    failure = story.status.failure
    assert failure is not None
    assert "times before an attempt ran" in failure.message
    assert "what removes the Job" in failure.remedy


def test_a_job_that_was_made_although_nobody_heard_of_it_is_stopped_once_its_end_is_written() -> None:
    story = keeps_trying(refused(REFUSED["a webhook that is down"]), LIMIT)
    assert story.status.phase == "Failed"
    other = Story(pendingDeadlineSeconds=LIMIT).starts()
    [(place, (_, training))] = other.world.trainings.items()
    story.world.trainings[place] = story.key, training
    story.world.attempts[story.key] = other.world.attempts[other.key]
    assert story.looks().trainings == []
    assert story.status.phase == "Failed"


def test_a_note_that_an_earlier_version_let_lie_is_not_believed_once_an_attempt_ran() -> None:
    story = keeps_trying(refused(), 500)
    note = story.status.waited
    story.world.refuses.clear()
    story.waits(60).runs().ends(30, result_message("preempted", step=1))
    job = story.world.jobs[story.key]
    story.world.jobs[story.key] = replace(job, status=job.status.model_copy(update={"waited": note}))
    story.world.refuses[StartTraining] = REFUSED["a quota of Jobs"]
    story.loses_its_training()
    assert keeps_trying(story, LIMIT - 1).status.phase == "Pending"
