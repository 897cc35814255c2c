"""An attempt in which nothing goes on any more ends by itself, says where each thread hung, and is gone on from."""

from __future__ import annotations

import ctypes
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from finetune_api.exit_codes import ExitCode
from finetune_api.failures import FailureReason
from finetune_api.run import PROCESSES_ENV
from finetune_trainer import watchdog
from finetune_trainer.tasks.text_classification import TextClassification
from tests.training.attempts import Job
from tests.training.interruptions import assert_equal_ends
from tests.training.tiny import tiny_inputs

SPEC = {
    "training": {"epochs": 2, "batchSize": 8, "learningRate": 1e-3, "precision": "fp32"},
    "checkpoints": {"everySteps": 1},
    "progressDeadlineSeconds": 10,
}


def hang_after_some_batches(hang: Any) -> None:
    collate, batches = TextClassification.collate, []

    def collated(task: Any, features: Any) -> Any:
        batches.append(len(features))
        if task.model.training and len(batches) > LATE:
            hang()
        return collate(task, features)

    TextClassification.collate = collated  # type: ignore[method-assign]


LATE = 12
"""Batches, those of the evaluation before training included."""


def forget_to_wake() -> None:
    hang_after_some_batches(lambda: time.sleep(3600))


def keep_the_interpreter() -> None:
    """As a library does that waits without giving it back: no other thread of Python runs."""
    watchdog.LAST_RESORT = 3.0
    hang_after_some_batches(lambda: ctypes.PyDLL(None).sleep(3600))


def test_an_attempt_that_hangs_ends_with_the_stacks_of_its_threads_and_the_next_one_goes_on(tmp_path: Path) -> None:
    inputs = tiny_inputs(tmp_path / "inputs")
    asked, job, other = (Job(tmp_path / name, **inputs, **SPEC) for name in ("asked", "job", "other"))
    hung, kept = job.start(forget_to_wake), other.start(keep_the_interpreter)
    asked.complete()

    assert hung.wait() == ExitCode.NO_PROGRESS, hung.log
    error = hung.result.error
    assert error is not None
    assert (error.reason, error.field) == (FailureReason.TRAINING_STALLED, "spec.progressDeadlineSeconds")
    assert "and spec.progressDeadlineSeconds allows 10" in error.message
    assert hung.result.step == job.saved_step() > 0
    for log in (hung.log, (job.results / "attempts/1/log.txt").read_text()):
        assert "No sign of progress for 1" in log
        assert "test_hanging.py" in log
        assert "in collated" in log
    assert kept.wait() == ExitCode.INTERNAL, kept.log
    assert "in collated" in (kept.folder / "workspace" / "log.txt").read_text()

    last = job.complete()
    assert last.first_step == hung.result.step
    assert_equal_ends(job, asked)


@pytest.mark.soak
def test_where_one_of_two_processes_stands_still_both_end_and_say_so(tmp_path: Path) -> None:
    job = Job(
        tmp_path / "job", **tiny_inputs(tmp_path / "inputs"), **{**SPEC, "training": {"epochs": 2000, "batchSize": 8}}
    )
    attempt = job.start_from_nothing(**{PROCESSES_ENV: "2"})
    assert attempt.wait_until(lambda: job.saved_step() > 0, "a step is saved"), attempt.log
    stop_one_of(attempt.process.pid)
    assert attempt.wait() == ExitCode.NO_PROGRESS, attempt.log
    error = attempt.result.error
    assert error is not None
    assert error.reason is FailureReason.TRAINING_STALLED
    assert "all_gather" in attempt.log or "all_reduce" in attempt.log, attempt.log


def stop_one_of(parent: int) -> None:
    """Of the processes that this one has started, that of rank 1."""
    for pid in Path(f"/proc/{parent}/task/{parent}/children").read_text().split():
        if b"RANK=1\0" in Path(f"/proc/{pid}/environ").read_bytes().replace(b"LOCAL_RANK", b""):
            os.kill(int(pid), signal.SIGSTOP)
            return
    raise AssertionError("there is no such process")
