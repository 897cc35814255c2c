"""What counts as how much, where the spec, the record or the cluster's count have changed meanwhile."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from finetune_api.failures import FailureReason
from finetune_operator.worlds.protocol import ChangeLimits, Ending, StartTraining
from tests.unit.operator.story import Story


def fails(story: Story, times: int) -> Story:
    for _ in range(times):
        story.runs().ends(1, "boom")
    return story


def backoff_limit(story: Story) -> int:
    training = next(iter(story.world.trainings.values()))[1]
    return training.limits.backoff_limit


def test_a_lower_backoff_limit_ends_no_attempt_that_is_under_way_but_lets_no_other_follow() -> None:
    story = fails(Story(runId="r", backoffLimit=5).starts(), 2).runs().is_edited(backoffLimit=0)
    # The Job controller ends a Job with more failures than that, and what runs.
    assert (story.status.phase, backoff_limit(story)) == ("Running", 2)
    done = len(story.actions)
    assert len(story.looks().actions) == done
    story.ends(1, "boom")
    assert story.state() == ("Failed", "BackoffLimitExceeded")
    assert "3 attempts failed, and spec.backoffLimit allows 0" in (story.status.message or "")


def test_a_lower_backoff_limit_counts_as_it_reads_once_nothing_is_under_way() -> None:
    story = fails(Story(runId="r", backoffLimit=5).starts(), 2).runs().is_edited(suspend=True, backoffLimit=2)
    story.loses_its_training().is_edited(suspend=False)
    [*_, last] = [a for a in story.actions if isinstance(a, StartTraining)]
    assert last.limits.backoff_limit == 0


def test_a_higher_backoff_limit_is_asked_for_as_it_reads() -> None:
    story = fails(Story(runId="r", backoffLimit=5).starts(), 2).runs().is_edited(backoffLimit=9)
    [change] = [a for a in story.actions if isinstance(a, ChangeLimits)]
    assert change.limits.backoff_limit == 9


def test_more_failures_than_the_record_holds_are_told_in_full() -> None:
    story = fails(Story(runId="r", backoffLimit=40).starts(), 41)
    assert len(story.status.attempts or []) == 32
    assert "41 attempts failed, and spec.backoffLimit allows 40" in (story.status.message or "")


@pytest.mark.parametrize(("codes", "known"), [([], "none of them is"), ([1], "only 1 of them is"), ([30, 30], "none")])
def test_a_count_of_the_cluster_that_nobody_can_follow_is_not_told_as_ones_own(codes: list[int], known: str) -> None:
    """Its policy took the failure policy off the Job, or somebody deleted pods."""
    story = Story(runId="r", backoffLimit=3).starts()
    for code in codes:
        story.runs().ends(code)
    story.world.attempts[story.key] = story.world.attempts[story.key][: len(codes)]
    story.world.end_training(story.key, Ending.BACKOFF_LIMIT_EXCEEDED)
    story.looks().waits(30)
    assert story.state() == ("Failed", "BackoffLimitExceeded")
    assert f"than its Job's backoffLimit of 3 allows, and {known}" in (story.status.message or "")
    assert "attempts failed, and" not in (story.status.message or "")


def test_a_start_that_was_not_reported_is_told_with_its_own_image_and_replaced_by_the_present_one() -> None:
    story = Story(runId="r")
    report: Any = story.world.report

    async def crashes(*_: Any) -> None:
        raise InterruptedError

    story.world.report = crashes  # type: ignore[method-assign]
    with pytest.raises(InterruptedError):
        story.looks()
    story.world.report = report  # type: ignore[method-assign]
    story.gets_the_default_image("trainer:new")
    assert story.status.run is not None
    assert story.status.run.image == "trainer:test"
    story.looks().looks()
    assert [a.image for a in story.world.attempts[story.key]] == ["trainer:new"]
    assert story.status.run is not None
    assert story.status.run.image == "trainer:new"
    done = len(story.actions)
    assert len(story.is_held(FailureReason.IMAGE_PULL_FAILED, "The image cannot be pulled: no").actions) == done


def test_a_clock_that_was_set_back_does_not_make_a_start_wait_for_the_time_of_then() -> None:
    story = Story(runId="r").starts()
    while story.trainings:
        story.loses_its_training()
    story.world.now -= timedelta(days=1)
    assert story.looks().trainings == ["demo-r"]


def test_a_node_whose_clock_is_hours_ahead_keeps_no_status_back() -> None:
    """Its end of the last attempt says that the training ends, and a policy of the cluster keeps it from ending."""
    story = Story(runId="r", backoffLimit=0).starts().runs()
    story.world.nodes_ahead = timedelta(hours=3)
    story.world.end_attempt(story.key, 1, "boom")
    [(place, (owner, training))] = story.world.trainings.items()
    story.world.trainings[place] = owner, replace(training, ending=None)
    assert story.looks().state() == ("Starting", "Restarting")


def test_an_attempt_that_was_told_to_stop_before_its_first_save_is_not_said_to_have_saved() -> None:
    story = Story(runId="r").starts()
    for _ in range(6):
        story.runs().ends(30)
    assert story.state() == ("Failed", "NoProgress")
    assert "was told to stop." in (story.status.message or "")
    assert "saved its work" not in (story.status.message or "")
