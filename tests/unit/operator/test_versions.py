"""A run is told what to train in the version of the contract that it began with."""

from __future__ import annotations

from dataclasses import replace

import pytest

from finetune_api.run import RUN_VERSION, Run
from finetune_operator.worlds.protocol import StartTraining
from tests.unit.operator.story import Story


def told(story: Story) -> Run:
    action = story.actions[-1]
    assert isinstance(action, StartTraining)
    return action.run


def pinned(contract: int | None) -> Story:
    """A run that began so, whose Job is gone."""
    story = Story(training={"seed": 7}).starts().runs()
    job = story.world.jobs[story.key]
    assert job.status.run is not None
    run = job.status.run.model_copy(update={"contract": contract})
    story.world.jobs[story.key] = replace(job, status=job.status.model_copy(update={"run": run}))
    return story.loses_its_training()


def test_a_new_run_is_told_in_the_latest_version_and_that_is_kept() -> None:
    story = Story(training={"seed": 7}).starts()
    assert story.status.run is not None
    assert story.status.run.contract == told(story).version == RUN_VERSION
    assert "training.seed" in told(story).written
    assert told(story).trainer_image == "trainer:test"


@pytest.mark.parametrize(("began_with", "then"), [(None, 1), (1, 1), (2, 2), (9, RUN_VERSION)])
def test_a_run_is_told_in_the_version_that_it_began_with_as_far_as_this_operator_knows_it(
    began_with: int | None, then: int
) -> None:
    story = pinned(began_with)
    assert told(story).version == then
    assert ("written" in told(story).wire()) == (then >= 2)
    assert story.status.run is not None
    assert story.status.run.contract == began_with
