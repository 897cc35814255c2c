"""How an attempt ends: every way has its exit code and, from the first moment on, its termination message."""

from __future__ import annotations

import errno
import os
import subprocess
import sys

import pytest

from finetune_api.exit_codes import ExitCode
from finetune_api.failures import FailureReason, JobError
from finetune_api.progress import TrainerPhase
from finetune_trainer.attempt import Attempt
from finetune_trainer.progress import NoSink, Reporter
from finetune_trainer.stop import Preempted, StopSignal
from tests.training.attempts import Job
from tests.training.inside import at_step, attempt_inside
from tests.training.tiny import tiny_inputs

QUICK = {"epochs": 3, "batchSize": 8, "learningRate": 1e-3, "precision": "fp32"}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    return tiny_inputs(tmp_path_factory.mktemp("inputs"))


@pytest.fixture
def job(inputs, tmp_path):
    return Job(tmp_path / "job", **inputs, training=QUICK)


SILENT = JobError(FailureReason.STORAGE_UNAVAILABLE, "the store does not answer")


def told(stop):
    stop.told = stop.requested = True


def told_with_unsaved_steps(stop):
    told(stop)
    stop.has_unsaved_steps = lambda: True


def lost_its_claim(stop):
    stop.request(SILENT)


@pytest.mark.parametrize(
    ("state", "raised", "outcome"),
    [
        (told, Preempted(), "preempted"),
        (told, SILENT, "preempted"),
        (told, RuntimeError("interrupted"), "preempted"),
        (told_with_unsaved_steps, SILENT, FailureReason.STORAGE_UNAVAILABLE),
        (told_with_unsaved_steps, RuntimeError("the save went wrong"), FailureReason.INTERNAL),
        (lost_its_claim, SILENT, FailureReason.STORAGE_UNAVAILABLE),
        (lambda stop: None, RuntimeError("a defect"), FailureReason.INTERNAL),
        (lambda stop: None, MemoryError(), FailureReason.OUT_OF_MEMORY),
        (lambda stop: None, OSError(errno.ENOSPC, "No space left on device"), FailureReason.DISK_FULL),
    ],
)
def test_an_error_counts_as_preemption_only_when_told_to_stop_and_nothing_is_lost(
    job, tmp_path, monkeypatch, state, raised, outcome
):
    stop = StopSignal()

    def succeed(attempt):
        state(stop)
        raise raised

    monkeypatch.setattr(Attempt, "_succeed", succeed)
    result = Attempt(job.run, tmp_path, Reporter(NoSink()), stop).run()

    assert (result.error.reason if result.error else result.outcome) == outcome


def test_an_attempt_that_ended_before_it_knew_what_is_saved_names_no_step(job):
    assert attempt_inside(job, told_at=at_step(7)).result.step == 7

    ended = attempt_inside(job, told_at=lambda progress: progress.phase is TrainerPhase.DOWNLOADING)

    assert (ended.result.outcome, ended.result.step) == ("preempted", None)
    assert "Stopped before any training; the next attempt starts from where this one did." in ended.log


def beginning_with(tmp_path, code):
    """An environment in which Python runs `code` before anything else."""
    (tmp_path / "sitecustomize.py").write_text(code)
    return {"PYTHONPATH": os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])}


def raising(tmp_path, error):
    """An environment in which a process finds `error` instead of its run."""
    code = f"""
import finetune_trainer.attempt
def succeed(attempt):
    {error}
finetune_trainer.attempt.Attempt._succeed = succeed
"""
    return beginning_with(tmp_path, code)


GPU_IS_FULL = """import torch, types
    torch.cuda.current_device = lambda: 0
    torch.cuda.get_device_properties = lambda device: types.SimpleNamespace(total_memory=2**33)
    raise torch.OutOfMemoryError("CUDA out of memory.")"""


@pytest.mark.parametrize(
    ("error", "reason", "code"),
    [
        ("raise KeyError('a defect')", FailureReason.INTERNAL, 1),
        (GPU_IS_FULL, FailureReason.DOES_NOT_FIT, 12),
        ("raise OSError(28, 'No space left on device')", FailureReason.DISK_FULL, 20),
        ("raise MemoryError", FailureReason.OUT_OF_MEMORY, 21),
    ],
    ids=["1", "12", "20", "21"],
)
def test_a_process_ends_with_the_code_of_its_failure(job, tmp_path, error, reason, code):
    attempt = job.start_from_nothing(**raising(tmp_path, error))

    assert attempt.wait() == code, attempt.log
    assert attempt.result.error is not None
    assert attempt.result.error.reason == reason


@pytest.mark.parametrize(
    ("environment", "reason", "code", "says"),
    [
        ({"FINETUNE_WORKSPACE": "{file}/below"}, FailureReason.STORAGE_UNAVAILABLE, ExitCode.STORAGE, "the workspace"),
        ({"FINETUNE_PROGRESS_URL": "ftp://host/"}, FailureReason.INVALID_SPEC, ExitCode.USER_ERROR, "'ftp://host/'"),
        (
            {"FINETUNE_PROGRESS_URL": "file://{file}/below"},
            FailureReason.STORAGE_UNAVAILABLE,
            ExitCode.STORAGE,
            "progress cannot be written",
        ),
    ],
    ids=["workspace", "address", "progress"],
)
def test_what_is_wrong_around_the_run_is_told_in_the_termination_message(
    job, tmp_path, environment, reason, code, says
):
    (tmp_path / "file").write_text("not a folder")
    attempt = job.start_from_nothing(
        **{name: value.format(file=tmp_path / "file") for name, value in environment.items()}
    )

    assert attempt.wait() == code, attempt.log
    assert attempt.result.error is not None
    assert attempt.result.error.reason == reason
    assert says in attempt.result.error.message
    assert "Traceback" not in attempt.log


SIGNAL_AT_ONCE = """
from finetune_trainer.stop import StopSignal
install = StopSignal.install
def installed(stop):
    install(stop)
    os.kill(os.getpid(), signal.SIGTERM)
StopSignal.install = installed
"""
SIGNAL_IN_THE_LAST_FLUSH = """
import finetune_trainer.attempt
class Out:
    def write(self, text):
        pass
    def flush(self):
        os.kill(os.getpid(), signal.SIGTERM)
def main(stop):
    sys.stdout = Out()
    return 0
finetune_trainer.attempt.main = main
"""


@pytest.mark.parametrize(
    ("moment", "code"), [(SIGNAL_AT_ONCE, ExitCode.PREEMPTED), (SIGNAL_IN_THE_LAST_FLUSH, ExitCode.DONE)]
)
def test_a_signal_at_either_end_of_the_process_changes_no_exit_code(tmp_path, moment, code):
    environment = os.environ | beginning_with(tmp_path, f"import os, signal, sys\n{moment}")
    command = [sys.executable, "-m", "finetune_trainer"]

    done = subprocess.run(command, env=environment, capture_output=True, check=False)

    assert (done.returncode, done.stderr) == (code, b"")
