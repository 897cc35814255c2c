"""Each run has a training name of its own, and keeps the one that version 0.1.0 gave it wherever that was its own."""

from __future__ import annotations

import itertools
import re
from dataclasses import replace

import pytest

from finetune_operator.worlds.protocol import LONGEST_NAME, StopTraining, training_name
from tests.unit.operator.story import Story

LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")


def labels(longest: int) -> list[str]:
    """All labels of the letters a and b and of dashes."""
    texts = ("".join(letters) for size in range(1, longest + 1) for letters in itertools.product("ab-", repeat=size))
    return [text for text in texts if LABEL.fullmatch(text)]


def test_no_two_runs_share_a_name() -> None:
    pairs = list(itertools.product(labels(6), labels(5)))
    assert len({training_name(job, run) for job, run in pairs}) == len(pairs) > 20_000


def test_nor_do_two_whose_names_are_too_long_or_look_as_if_they_were() -> None:
    job = "j" * 40
    dashes = [f"{'-' * n}".join("rs") for n in range(1, 19)]
    looks = [training_name(job, run).removeprefix(f"{job}-")[:20] for run in dashes[-3:]]
    names = [training_name(job, run) for run in [*dashes, *looks, "r" * 20]]
    assert len(set(names)) == len(names)
    assert all(len(name) <= LONGEST_NAME and LABEL.fullmatch(name) for name in names)


@pytest.mark.parametrize("run", ["8270b7aa15", "first", "2", "r" * 20])
def test_a_run_id_without_a_dash_names_its_training_as_in_version_0_1_0(run: str) -> None:
    assert training_name("a-b", run) == f"a-b-{run}"


def test_a_run_id_with_a_dash_can_be_read_in_the_name() -> None:
    assert training_name("mrpc", "second-try") == "mrpc-second--try"


@pytest.mark.parametrize("label", ["b-c", "", "else"])
def test_a_training_that_version_0_1_0_named_is_neither_stopped_nor_doubled_whatever_its_label(label: str) -> None:
    story = Story(runId="b-c").starts()
    ((place, (owner, training)),) = story.world.trainings.items()
    del story.world.trainings[place]
    story.world.trainings[place[0], "demo-b-c"] = owner, replace(training, name="demo-b-c", run_id=label)
    done = len(story.actions)
    story.waits(60)
    assert (story.trainings, len(story.actions)) == (["demo-b-c"], done)
    assert story.is_edited(suspend=True).trainings == []


def test_a_label_outranks_a_name_that_version_0_1_0_gave_to_another_run() -> None:
    story = Story(runId="b-c").starts()
    [(_, mine)] = story.world.trainings.values()
    other = replace(mine, name="demo-b-c", run_id="other", uid="other", ending=None)
    stopped = story.decision(trainings=(other, mine)).actions
    assert [(type(action), action.name) for action in stopped] == [(StopTraining, "demo-b-c")]
