"""Training that is told to stop, or killed, at seeded moments. The same with a real model: tests/e2e/test_interruptions.py."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests.training.attempts import Job
from tests.training.interruptions import assert_equal_ends, interrupt
from tests.training.tiny import tiny_inputs

pytestmark = pytest.mark.timeout(900)  # five processes one after the other, most of whose time is spent on imports


def tiny_job(folder: Path, inputs: dict[str, object]) -> Job:
    return Job(
        folder,
        **inputs,
        training={"epochs": 20, "batchSize": 4, "learningRate": 1e-3, "precision": "fp32", "warmupRatio": 0.1},
        checkpoints={"everySteps": 7, "keep": 2},
    )


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    return tiny_inputs(tmp_path_factory.mktemp("inputs"))


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, inputs) -> Job:
    job = tiny_job(tmp_path_factory.mktemp("undisturbed"), inputs)
    job.complete()
    return job


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=lambda number: number.name)
def test_three_interruptions_change_neither_weights_nor_metrics_and_repeat_no_saved_step(
    tmp_path, inputs, undisturbed, number
):
    job = tiny_job(tmp_path, inputs)

    saved = interrupt(job, number, moments=3, seed=20, total_steps=200)

    assert_equal_ends(job, undisturbed)
    assert saved == sorted(saved)
    assert saved[-1] > 0, "no interruption came after the first save, so none of them showed anything"


@pytest.mark.soak
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=lambda number: number.name)
def test_six_interruptions_at_other_moments_change_nothing_either(tmp_path, inputs, undisturbed, number, seed):
    job = tiny_job(tmp_path, inputs)

    interrupt(job, number, moments=6, seed=seed, total_steps=200)

    assert_equal_ends(job, undisturbed)
