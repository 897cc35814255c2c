"""An operator that starts asks anew what pods wait for. Until it is told, what another one was told stands."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from finetune_api.failures import FailureReason
from finetune_operator.worlds.protocol import Awaited, OnItsWay
from tests.unit.operator.story import NO_GPU, Story

SAID = "no scheduler has said anything about it yet"
COMING = OnItsWay(Awaited.NODE, "A node is being added for the pod", datetime(2026, 1, 1, tzinfo=UTC))


def starts_anew(story: Story) -> Story:
    """Another process, which knows of the pod but not what events say of it."""
    story.world.change_latest(story.key, untold=True, initializing="", on_its_way=None)
    return story.looks().waits(20)


@pytest.mark.parametrize(
    "facts", [{"initializing": SAID}, {"on_its_way": COMING}], ids=["silence", "a node that is coming"]
)
def test_what_was_said_stands_until_it_is_told_again(facts: dict[str, object]) -> None:
    story = Story(runId="r").starts()
    story.world.change_latest(story.key, **facts)
    story.waits(20)
    said, writes = story.status, story.writes
    starts_anew(story)
    assert (story.status, story.writes) == (said, writes)
    story.world.change_latest(story.key, untold=False, **facts)
    story.looks()
    assert (story.status, story.writes) == (said, writes)
    story.world.change_latest(story.key, untold=False, initializing="", on_its_way=None)
    assert story.looks().status.message == "demo-r was created."


def test_a_node_that_was_coming_is_no_problem_of_the_pod_until_that_is_told_again() -> None:
    story = Story(runId="r").starts()
    story.world.change_latest(story.key, on_its_way=COMING)
    assert story.is_held(FailureReason.UNSCHEDULABLE, NO_GPU).state() == ("Starting", "ScalingUp")
    writes, events = story.writes, len(story.events)
    assert starts_anew(story).state() == ("Starting", "ScalingUp")
    assert (story.writes, len(story.events)) == (writes, events)


def test_it_stands_for_no_other_spec_and_for_nothing_that_has_begun() -> None:
    story = Story(runId="r").starts()
    story.world.change_latest(story.key, initializing=SAID)
    story.waits(20)
    starts_anew(story)
    assert story.is_edited(backoffLimit=5).status.observed_generation == 2
    assert story.runs().state() == ("Running", "Training")


def test_what_the_pod_itself_says_is_told_at_once() -> None:
    story = starts_anew(Story(runId="r").starts())
    assert story.is_held(FailureReason.UNSCHEDULABLE, NO_GPU).state() == ("Starting", "Unschedulable")
    story.waits(timedelta(minutes=1).total_seconds())
    assert NO_GPU in (story.status.message or "")
