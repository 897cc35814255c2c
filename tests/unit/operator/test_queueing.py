"""A queue is named by the spec or by the label that Kueue knows, and what is asked of it reaches the Job."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from finetune_api.failures import FailureReason
from finetune_operator.worlds.kube import names
from finetune_operator.worlds.kube.manifest import training_job
from finetune_operator.worlds.kube.queueing import read_queueing
from finetune_operator.worlds.protocol import Queueing, Refusal, StartTraining, StopTraining
from tests.unit.operator.story import Story

GPUS = Queueing(queue="gpus")


def labelled(story: Story, queueing: Queueing) -> Story:
    """Its user has changed labels and annotations, of which no generation tells."""
    story.world.jobs[story.key] = replace(story.world.jobs[story.key], queueing=queueing)
    return story


def job_of(story: Story) -> dict[str, Any]:
    start = next(action for action in reversed(story.actions) if isinstance(action, StartTraining))
    return training_job(story.key, "uid", start)


def kinds(story: Story) -> list[str]:
    return [type(action).__name__ for action in story.actions]


def test_the_spec_and_the_label_name_a_queue_in_the_same_way() -> None:
    by_spec, by_label, by_both = Story(queue="gpus"), labelled(Story(), GPUS), labelled(Story(queue="gpus"), GPUS)
    jobs = [job_of(story.starts()) for story in (by_spec, by_label, by_both)]
    assert [job["metadata"]["labels"][names.QUEUE_LABEL] for job in jobs] == ["gpus"] * 3
    placements = {job["metadata"]["annotations"][names.PLACEMENT_ANNOTATION] for job in jobs}
    assert len(placements) == 1, "so that moving it from one to the other replaces nothing"


def test_the_class_of_priority_and_the_topology_reach_the_job_and_its_pod() -> None:
    required, other = names.TOPOLOGY_ANNOTATIONS[0], "kueue.x-k8s.io/other"
    wish = read_queueing(
        {names.QUEUE_LABEL: "gpus", names.QUEUE_PRIORITY_LABEL: "high", "team": "a"}, {required: "rack", other: "x"}
    )
    job = job_of(labelled(Story(pod={"annotations": {"example.org/cost": "4"}}), wish).starts())
    assert job["metadata"]["labels"][names.QUEUE_PRIORITY_LABEL] == "high"
    assert job["spec"]["template"]["metadata"]["annotations"] == {"example.org/cost": "4", required: "rack"}
    assert "team" not in job["metadata"]["labels"]
    plain = job_of(Story().starts())
    assert names.QUEUE_LABEL not in plain["metadata"]["labels"]
    assert "annotations" not in plain["spec"]["template"]["metadata"]


def test_two_different_queues_are_no_queue_until_one_is_removed() -> None:
    story = labelled(Story(queue="gpus"), Queueing(queue="cpus")).looks()
    assert story.state() == ("Pending", "InvalidSpec")
    assert story.status.message == (
        "spec.queue is gpus, and the label kueue.x-k8s.io/queue-name names cpus. Remove one of the two."
    )
    assert story.conditions()["Stalled"] == "True"
    assert story.actions == []
    assert labelled(story, Queueing()).looks().state() == ("Starting", "Starting")


def test_another_queue_in_the_label_than_in_the_spec_moves_nothing_that_has_begun_and_is_said() -> None:
    for story in (Story(queue="gpus").starts(), Story(queue="gpus").starts().runs()):
        labelled(story, Queueing(queue="cpus")).looks()
        assert kinds(story) == ["StartTraining"]
        assert "names the queue cpus, which is not obeyed, as spec.queue is gpus" in (story.status.message or "")


def test_a_corrected_queue_is_obeyed_while_it_waits_and_not_while_it_runs() -> None:
    story = labelled(Story(), Queueing(queue="gpu")).starts().changes_training(queued=True)
    labelled(story, GPUS).looks()
    assert kinds(story) == ["StartTraining", "StopTraining"]
    assert job_of(story.looks())["metadata"]["labels"][names.QUEUE_LABEL] == "gpus"
    running = labelled(labelled(Story(), Queueing(queue="gpu")).starts().runs(), GPUS).looks()
    assert kinds(running) == ["StartTraining"]


def test_another_class_of_priority_is_obeyed_while_it_waits_with_and_without_a_queue() -> None:
    for queue in ("", "gpus"):
        story = labelled(Story(), Queueing(queue=queue)).starts()
        labelled(story, Queueing(queue=queue, priority="high")).looks()
        assert isinstance(story.actions[-1], StopTraining)


def made_by_an_earlier_version(story: Story) -> Story:
    """Which left the label out of the digest."""
    placement = Story().starts().world.trainings["default", Story().starts().trainings[0]][1].placement
    job = story.world.jobs[story.key]
    training = job.status.training
    assert training is not None
    status = job.status.model_copy(update={"training": training.model_copy(update={"placement": placement})})
    story.world.jobs[story.key] = replace(job, status=status)
    return story.changes_training(placement=placement)


def test_a_job_of_an_earlier_version_keeps_its_place_in_the_queue_until_its_label_changes() -> None:
    story = made_by_an_earlier_version(labelled(Story(), GPUS).starts().changes_training(queued=True))
    assert kinds(story.waits(60)) == ["StartTraining"]
    labelled(story, Queueing(queue="others")).looks()
    assert isinstance(story.actions[-1], StopTraining)


def test_a_queue_that_a_policy_gives_a_job_which_asks_for_none_is_not_fought_over() -> None:
    """As Kueue's own default queue of a namespace does."""
    story = Story()
    story.world.policy = lambda training: replace(training, queue="default", queued=True)
    story.starts().waits(60).waits(60)
    assert kinds(story) == ["StartTraining"]
    assert story.state() == ("Pending", "Queued")


NO_QUOTA = "couldn't assign flavors to pod set main: insufficient unused quota for nvidia.com/gpu in flavor spot, 1 more needed"


def test_what_the_queue_says_is_told_in_its_own_words_and_is_no_problem() -> None:
    story = Story(queue="gpus").starts().changes_training(queued=True, queue_says=NO_QUOTA)
    assert story.state() == ("Pending", "Queued")
    assert story.status.message == f"Waits for its queue to admit it. It says: {NO_QUOTA}."
    assert "Warning" not in [event.type for event in story.events]
    story.changes_training(queue_says="")
    assert story.status.message == "Waits for its queue to admit it."
    assert story.changes_training(queued=False).state() == ("Starting", "Starting")


def test_a_queue_that_is_not_there_is_told_with_what_to_do_until_it_is() -> None:
    refusal = Refusal(FailureReason.REFERENCE_MISSING, "There is no queue gpu here", "spec.queue", "Name another.")
    story = Story(queue="gpu").starts().changes_training(queued=True, refusal=refusal)
    assert story.state() == ("Pending", "ReferenceMissing")
    assert story.status.message == "There is no queue gpu here. Name another."
    assert story.events[-1].type == "Warning"
    assert story.changes_training(refusal=None).state() == ("Pending", "Queued")
    story.changes_training(refusal=refusal).is_edited(queue="gpus")
    assert kinds(story) == ["StartTraining", "StopTraining"]
