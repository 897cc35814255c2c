"""A run whose number of processes, and what each has of the model, changes from one attempt to the next, each of which is killed, also in the midst
of a checkpoint: it ends as one that a single process made without any of that."""

from __future__ import annotations

import json
from dataclasses import dataclass

import pytest
import torch
from safetensors.torch import load_file

from finetune_api.exit_codes import ExitCode
from tests.training.attempts import Job
from tests.training.blows import Blow, strike
from tests.training.struck import Runs

pytestmark = [pytest.mark.soak, pytest.mark.timeout(400)]

F = "finetune_trainer."


@dataclass(frozen=True)
class Turn:
    """An attempt, and the step that it goes on from."""

    processes: int
    sharded: bool
    blow: Blow
    begins: int = 0


def in_step(number: int, of: int = 0) -> Blow:
    """A kill after so many steps of the attempt, once what they saved is stored."""
    return Blow(F + "progress:Reporter.step", "kill", nth=number, of=of, to=of, pause=1.0)


BEFORE_ITS_WORD = Blow(F + "store.own_parts:write_part", "kill", given="checkpoints/step-8", of=1, to=1, pause=1.0)
BEFORE_ITS_FILES = Blow(
    F + "store.own_parts:OwnParts._upload", "kill", given="checkpoints/step-8", of=1, to=1, pause=1.0
)
BEFORE_THE_MANIFEST = Blow(F + "store.folder:Folder.write", "kill", given="checkpoints/step-8-attempt-1/manifest.json")

WAYS: dict[str, tuple[Turn, ...]] = {
    "whole, parts, alone": (
        Turn(2, False, in_step(5)),
        Turn(3, True, in_step(3, of=2), 4),
        Turn(1, False, in_step(99), 6),
    ),
    "parts, whole, fewer parts": (
        Turn(3, True, in_step(5, of=1)),
        Turn(2, False, in_step(3), 4),
        Turn(2, True, in_step(99), 6),
    ),
    "alone, parts, whole": (
        Turn(1, False, in_step(5)),
        Turn(2, True, in_step(3, of=1), 4),
        Turn(3, False, in_step(99), 6),
    ),
    "parts without the word of one, more parts": (Turn(2, True, BEFORE_ITS_WORD), Turn(3, True, in_step(99), 6)),
    "parts without the files of one, whole": (Turn(2, True, BEFORE_ITS_FILES), Turn(2, False, in_step(99), 6)),
    "parts without a manifest, alone": (Turn(2, True, BEFORE_THE_MANIFEST), Turn(1, False, in_step(99), 6)),
}
"""The last attempt is one that nobody disturbs."""


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    return Runs(tmp_path_factory.mktemp("runs"))


@pytest.mark.parametrize("kind", ["labels", "chats", "preferences", "liked"])
@pytest.mark.parametrize("way", WAYS)
def test_whoever_goes_on_ends_as_one_that_nobody_disturbed(runs: Runs, kind: str, way: str) -> None:
    undisturbed, begun = runs.undisturbed(kind, sharded=False, processes=1, doubled=True), None

    for turn in WAYS[way]:
        job = runs.job(kind, sharded=turn.sharded, goes_on=begun)
        begun = begun or job
        struck = strike(job, turn.blow, turn.processes, doubled=True)
        code = struck.attempt.wait()
        assert struck.attempt.first_step == turn.begins, struck.attempt.log

    assert not struck.fell
    assert code == ExitCode.DONE, struck.attempt.log
    assert_near(job, undisturbed)


def assert_near(job: Job, other: Job) -> None:
    """The same but for what is rounded to fp32 on the way."""
    for row, before in zip(job.rows(), other.rows(), strict=True):
        assert row == pytest.approx(before, rel=1e-6, abs=1e-6)
    metrics, others = (json.loads((one.results / "result.json").read_text())["metrics"] for one in (job, other))
    assert [one["value"] for one in metrics] == pytest.approx([one["value"] for one in others], rel=1e-6, abs=1e-6)
    files = list(other.results.rglob("*.safetensors"))
    assert files
    for file in files:
        found = load_file(job.results / file.relative_to(other.results))
        for name, wanted in load_file(file).items():
            torch.testing.assert_close(found[name], wanted, rtol=1e-7, atol=1e-7, msg=f"{file.name}: {name}")
