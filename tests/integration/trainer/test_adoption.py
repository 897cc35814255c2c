"""Applying a finished run's manifest again costs nothing, also when its inputs are out of reach."""

from __future__ import annotations

import shutil

import pytest

from finetune_api.exit_codes import ExitCode
from finetune_api.run import fingerprint_in_0_1_0
from tests.training.attempts import Job
from tests.training.tiny import tiny_inputs

QUICK = {"epochs": 1, "batchSize": 8, "precision": "fp32"}


@pytest.fixture
def job(tmp_path):
    """A job with a finished run, and its inputs below `inputs`."""
    made = Job(tmp_path, **tiny_inputs(tmp_path / "inputs"), training=QUICK)
    made.complete()
    return made


def test_the_result_is_adopted_when_data_or_model_are_gone_and_the_log_says_that_they_were_not_compared(job, tmp_path):
    for gone in ("data", "model"):
        shutil.rmtree(tmp_path / "inputs" / gone)

        attempt = job.start()

        assert attempt.wait() == ExitCode.DONE, attempt.log
        assert attempt.result.adopted
        assert "could not be compared with those of the finished run: there is no file at" in attempt.log


def test_inputs_that_were_copied_again_are_compared_by_their_contents(job, tmp_path):
    shutil.copytree(tmp_path / "inputs", tmp_path / "copy")
    shutil.rmtree(tmp_path / "inputs")
    (tmp_path / "copy").rename(tmp_path / "inputs")

    attempt = job.start()

    assert attempt.wait() == ExitCode.DONE, attempt.log
    assert attempt.result.adopted
    assert "could not be compared" not in attempt.log


def test_a_result_of_version_0_1_0_is_adopted_though_a_default_written_out_was_another_input_then(tmp_path):
    job = Job(tmp_path, **tiny_inputs(tmp_path / "inputs"), training=QUICK, method={"freeze": {}}, runId="named")
    now = job.run
    then = fingerprint_in_0_1_0(now.spec)
    assert then != now.run.fingerprint
    job.run = now.model_copy(update={"run": now.run.model_copy(update={"fingerprint": then})})
    job.complete()
    job.run = now

    attempt = job.complete()

    assert attempt.result.adopted
    assert attempt.result.fingerprint == then


def test_an_attempt_that_was_killed_between_its_result_and_the_cleaning_is_cleaned_up_after(job):
    assert not (job.results / "checkpoints").exists()
    assert not (job.results / "best").exists()
    left = job.results / "checkpoints/step-5-attempt-1/weights.bin"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"left")

    attempt = job.start()

    assert attempt.wait() == ExitCode.DONE, attempt.log
    assert not (job.results / "checkpoints").exists()
