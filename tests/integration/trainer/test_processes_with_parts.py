"""Several processes that have a part of the model each, as one attempt: the same numbers as of one that has all of it, whatever stops them."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from finetune_api.exit_codes import ExitCode
from tests.integration.trainer.test_processes import (
    TRAINING,
    assert_same_end,
    doing,
    inputs,
    last_words,
    of_one,
    with_signal,
)
from tests.training.attempts import Job
from tests.training.cases import CASES
from tests.training.doubled import in_float64

__all__ = ["inputs", "of_one"]  # fixtures

SHARDED = {"parallelism": "sharded", "resources": {"limits": {"nvidia.com/gpu": 2}}}
NO_ROOM = """
            from finetune_trainer.engine.steps import Steps
            collate = Steps._collate
            def within(steps, part):
                if len(part) > 2:
                    raise MemoryError("Unable to allocate 20.0 MiB for an array")
                return collate(steps, part)
            Steps._collate = within
"""


def job_in(folder: Path, inputs: dict[str, object], **more: object) -> Job:
    return Job(folder, **inputs, training=TRAINING, checkpoints={"everySteps": 4}, **SHARDED, **more)


def parts(job: Job) -> set[str]:
    """What each of two processes has stored of the newest checkpoint."""
    folder = job.results / f"checkpoints/step-{job.saved_step()}-attempt-1"
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["worldSize"] == 2
    return {file["path"] for file in manifest["files"] if "/" in file["path"]}


def test_two_with_a_part_each_are_as_one_though_memory_runs_out_in_one(of_one, inputs, tmp_path):
    job = job_in(tmp_path / "job", inputs)

    attempt = job.complete(**doing(tmp_path, NO_ROOM.strip(), of=0, at=9))

    assert_same_end(job, of_one)
    assert attempt.log.count("all begin again, with 2 examples at once") == 1
    assert "Going on from step 8, saved by attempt 1." in attempt.log
    assert attempt.log.count("Training for 24 steps") == 2
    assert "Each of 2 processes has a part of the model" in attempt.log
    assert attempt.result.attempt == 2


@pytest.mark.soak
@pytest.mark.parametrize("processes", ["1", "2", "3"])
def test_what_two_saved_in_parts_any_number_go_on_from(of_one, inputs, tmp_path, processes):
    job = job_in(tmp_path / "job", inputs)

    attempt = job.start(**with_signal(tmp_path, signal.SIGTERM, "os.getpid()", of=1, at=6))

    assert attempt.wait() == ExitCode.PREEMPTED, attempt.log
    assert attempt.result.step == job.saved_step() in (6, 7)
    assert f"Stopped: step {job.saved_step()} is saved" in last_words(job, attempt)
    shards = {f"shard-0000{rank}-model-00001-of-00001.safetensors" for rank in (1, 2)}
    assert parts(job) == {f"{folder}/{shard}" for folder in ("optimizer", "weights") for shard in shards}
    again = job.complete(FINETUNE_PROCESSES=processes)
    assert again.first_step == attempt.result.step
    assert_same_end(job, of_one)


@pytest.mark.soak
def test_what_one_saved_two_go_on_from_in_parts(of_one, inputs, tmp_path):
    job = job_in(tmp_path / "job", inputs)

    first = {**with_signal(tmp_path, signal.SIGTERM, "os.getpid()", of=0, at=6), "FINETUNE_PROCESSES": "1", "RANK": "0"}
    attempt = job.start_from_nothing(**first)

    assert attempt.wait() == ExitCode.PREEMPTED, attempt.log
    assert job.complete(FINETUNE_PROCESSES="2").first_step == attempt.result.step
    assert_same_end(job, of_one)


@pytest.mark.soak
def test_one_that_is_killed_ends_the_attempt_and_two_go_on_from_the_parts_of_all(of_one, inputs, tmp_path):
    job = job_in(tmp_path / "job", inputs)

    attempt = job.start(**with_signal(tmp_path, signal.SIGKILL, "os.getpid()", of=1, at=10))

    assert attempt.wait() == ExitCode.INTERNAL, attempt.log
    assert attempt.result.error is not None
    assert attempt.result.error.message == "process 2 of 2 was killed by SIGKILL"
    assert job.complete(FINETUNE_PROCESSES="2").first_step in (4, 8)
    assert_same_end(job, of_one)


METHODS = {
    "full": {"type": "full"},
    "lora": {"type": "lora"},
    "unfreeze": {"type": "full", "unfreeze": {"layersPerEpoch": 1}},
}


def both(folder: Path, case: str, method: str, precision: str) -> tuple[Job, Job]:
    """A training of a case by one process, and by two that have a part of the model each."""
    (folder / "inputs").mkdir()
    given = {"task": CASES[case].task, **CASES[case].inputs(folder / "inputs", 0.0), "method": METHODS[method]}
    training = {**TRAINING, "epochs": 2, "learningRate": 2e-4, "precision": precision}
    one, two = (Job(folder / name, **given, training=training, **more) for name, more in (("1", {}), ("2", SHARDED)))
    return one, two


def assert_same_weights(job: Job, other: Job, within: float) -> None:
    files = list(other.results.rglob("*.safetensors"))
    assert files
    for file in files:
        found = load_file(job.results / file.relative_to(other.results))
        for name, wanted in load_file(file).items():
            assert found[name].dtype == wanted.dtype
            torch.testing.assert_close(found[name], wanted, rtol=within, atol=within, msg=f"{file.name}: {name}")


@pytest.mark.soak
@pytest.mark.parametrize(
    ("case", "method"),
    [
        ("text-classification", "lora"),
        ("text-classification", "unfreeze"),
        ("image-classification", "full"),
        ("text2text-generation", "full"),
        ("text-generation", "lora"),
        ("text-generation-by-preferences", "full"),
    ],
)
def test_two_with_a_part_each_end_as_one_whatever_is_trained(case, method, tmp_path):
    """In float64: the order of sums is nothing there, and whatever else differs is seen."""
    one, two = both(tmp_path, case, method, "fp32")
    environment = in_float64(tmp_path / "environment")

    one.start_from_nothing(**environment, FINETUNE_PROCESSES="1").succeed()
    two.complete(**environment, FINETUNE_PROCESSES="2")

    assert_same_end(two, one, within=1e-6)
    assert_same_weights(two, one, within=1e-8)


@pytest.mark.soak
@pytest.mark.parametrize("method", ["lora", "full"])
def test_two_with_a_part_each_end_near_one_in_bf16(method, tmp_path):
    """Which rounds otherwise where weights are gathered in it."""
    one, two = both(tmp_path, "text-generation", method, "bf16")

    one.complete()
    two.complete(FINETUNE_PROCESSES="2")

    values, others = (
        {metric["name"]: metric["value"] for metric in json.loads((job.results / "result.json").read_text())["metrics"]}
        for job in (two, one)
    )
    assert values["loss"] == pytest.approx(others["loss"], rel=0.02)
    assert_same_weights(two, one, within=5e-3)


@pytest.mark.soak
def test_memory_runs_out_in_an_evaluation_of_the_second(of_one, inputs, tmp_path):
    job = job_in(tmp_path / "job", inputs)
    no_room = """
            from finetune_trainer.engine import predict
            said = predict._said
            def within(task, batch, features, *rest):
                if len(features) > 3:
                    raise MemoryError("Unable to allocate 20.0 MiB for an array")
                return said(task, batch, features, *rest)
            predict._said = within
"""
    attempt = job.complete(**doing(tmp_path, no_room.strip(), of=1, at=3))
    assert_same_end(job, of_one)
    assert "of an evaluation" in attempt.log
