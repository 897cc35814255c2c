"""Several processes as one attempt: the same numbers, one end, and nothing that goes on alone."""

from __future__ import annotations

import json
import os
import signal
import time
from contextlib import suppress
from pathlib import Path

import pytest

from finetune_api.exit_codes import ExitCode
from finetune_api.failures import FailureReason
from tests.cluster.waiting import eventually
from tests.training.attempts import Attempt, Job
from tests.training.tiny import tiny_inputs

TRAINING = {"epochs": 4, "batchSize": 7, "learningRate": 1e-3, "precision": "fp32"}
"""Twenty-four steps, six an epoch, of batches that two processes do not share evenly."""
STEPS = 24


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    """Without dropout, which each process draws for itself."""
    folder = tmp_path_factory.mktemp("inputs")
    made = tiny_inputs(folder)
    config = json.loads((folder / "model/config.json").read_text())
    config |= dict.fromkeys(("hidden_dropout_prob", "attention_probs_dropout_prob", "classifier_dropout"), 0.0)
    (folder / "model/config.json").write_text(json.dumps(config))
    return made


def job_in(folder: Path, inputs: dict[str, object]) -> Job:
    return Job(folder, **inputs, training=TRAINING, checkpoints={"everySteps": 4})


@pytest.fixture(scope="module")
def of_one(tmp_path_factory: pytest.TempPathFactory, inputs: dict[str, object]) -> Job:
    """The same run by one process."""
    job = job_in(tmp_path_factory.mktemp("one"), inputs)
    job.complete()
    return job


def with_signal(folder: Path, number: signal.Signals, to: str, *, of: int, at: int) -> dict[str, str]:
    """An environment in which process `of` of several sends a signal, `to` an id, right after it has done step `at`."""
    return doing(folder, f"os.kill({to}, {int(number)})", of=of, at=at)


def doing(folder: Path, what: str, *, of: int, at: int) -> dict[str, str]:
    """An environment in which process `of` of several does something right after it has done step `at`."""
    (folder / "sitecustomize.py").write_text(f"""
import os
if os.environ.get("RANK") == "{of}":
    from finetune_trainer.progress import Reporter
    tell = Reporter.step
    def step(reporter, number, *rest, **numbers):
        tell(reporter, number, *rest, **numbers)
        if number == {at}:
            {what}
    Reporter.step = step
""")
    path = os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])
    return {"FINETUNE_PROCESSES": "2", "PYTHONPATH": path}


def assert_same_end(job: Job, other: Job, within: float = 1e-5) -> None:
    """Losses, evaluations and metrics of both are the same but for the order in which numbers were added."""
    rows, others = job.rows(), other.rows()
    assert [row["step"] for row in rows] == [row["step"] for row in others]
    for row, before in zip(rows, others, strict=True):
        assert row == pytest.approx(before, rel=within, abs=within)
    metrics, before = (json.loads((one.results / "result.json").read_text())["metrics"] for one in (job, other))
    assert [metric["name"] for metric in metrics] == [metric["name"] for metric in before]
    assert [metric["value"] for metric in metrics] == pytest.approx([metric["value"] for metric in before], abs=within)


def last_words(job: Job, attempt: Attempt) -> str:
    """What an attempt left beside the run; its result is the one that it ended with."""
    folder = job.results / "attempts/1"
    result = json.loads((folder / "result.json").read_text())
    assert result["outcome"] == attempt.result.outcome
    assert result.get("error") == json.loads(attempt.result.model_dump_json(by_alias=True, exclude_none=True)).get(
        "error"
    )
    return (folder / "log.txt").read_text()


def test_two_are_as_one_to_the_fifth_digit(of_one, inputs, tmp_path):
    job = job_in(tmp_path, inputs)

    attempt = job.complete(FINETUNE_PROCESSES="2")

    assert_same_end(job, of_one)
    assert (attempt.result.attempt, attempt.result.processes) == (1, 2)
    assert json.loads((job.results / "run.json").read_text())["processes"] == 2
    assert attempt.log.count("Training for 24 steps") == 1, "one of them speaks"
    assert "shared by 2 processes" in attempt.log
    assert "Done: model, metrics and report are in" in last_words(job, attempt)
    assert "Training for 24 steps" in (job.results / "attempts/1/log-1.txt").read_text(), "the others write it down"
    assert {row["step"] for row in job.rows()} == set(range(STEPS + 1))
    assert not list((attempt.folder / "workspace").glob("scratch*"))


def test_whichever_is_told_to_stop_all_stop_at_one_step_and_one_goes_on(of_one, inputs, tmp_path):
    job = job_in(tmp_path / "job", inputs)

    attempt = job.start(**with_signal(tmp_path, signal.SIGTERM, "os.getpid()", of=1, at=6))

    assert attempt.wait() == ExitCode.PREEMPTED, attempt.log
    assert (attempt.result.outcome, attempt.result.total_steps, attempt.result.processes) == ("preempted", STEPS, 2)
    assert attempt.result.step == job.saved_step() in (6, 7)
    assert f"Stopped: step {job.saved_step()} is saved" in last_words(job, attempt)
    again = job.complete()
    assert (again.first_step, again.result.processes) == (attempt.result.step, 1)
    assert_same_end(job, of_one)


def test_one_that_is_killed_ends_the_attempt_with_its_cause_and_what_was_saved_stays(of_one, inputs, tmp_path):
    job = job_in(tmp_path / "job", inputs)

    attempt = job.start(**with_signal(tmp_path, signal.SIGKILL, "os.getpid()", of=1, at=10))

    assert attempt.wait() == ExitCode.INTERNAL, attempt.log
    assert attempt.result.error is not None
    assert attempt.result.error.reason == FailureReason.INTERNAL
    assert attempt.result.error.message == "process 2 of 2 was killed by SIGKILL"
    assert attempt.result.attempt == 1
    assert "Internal: process 2 of 2 was killed by SIGKILL" in last_words(job, attempt)
    assert job.saved_step() in (4, 8)
    again = job.complete()
    assert again.first_step == job.saved_step() or again.first_step in (4, 8)
    assert_same_end(job, of_one)


@pytest.mark.soak
@pytest.mark.parametrize("processes", ["1", "2", "3"])
def test_the_parent_is_told_to_stop_and_any_number_go_on(of_one, inputs, tmp_path, processes):
    job = job_in(tmp_path / "job", inputs)

    attempt = job.start(**with_signal(tmp_path, signal.SIGTERM, "os.getppid()", of=0, at=9))

    assert attempt.wait() == ExitCode.PREEMPTED, attempt.log
    assert attempt.result.step == job.saved_step() in (9, 10, 11)
    again = job.complete(FINETUNE_PROCESSES=processes)
    assert again.first_step == attempt.result.step
    assert_same_end(job, of_one)


@pytest.mark.soak
def test_the_first_is_killed_and_two_go_on(of_one, inputs, tmp_path):
    job = job_in(tmp_path / "job", inputs)

    attempt = job.start(**with_signal(tmp_path, signal.SIGKILL, "os.getpid()", of=0, at=10))

    assert attempt.wait() == ExitCode.INTERNAL, attempt.log
    assert attempt.result.error is not None
    assert attempt.result.error.message == "process 1 of 2 was killed by SIGKILL"
    assert (attempt.result.attempt, attempt.result.step) == (1, None)
    assert job.complete(FINETUNE_PROCESSES="2").first_step in (4, 8)
    assert_same_end(job, of_one)


@pytest.mark.soak
def test_data_that_is_wrong_is_told_as_by_one(inputs, tmp_path):
    dataset = {**inputs["dataset"], "columns": {"text": "sentence"}}
    job = Job(tmp_path, model=inputs["model"], dataset=dataset, training=TRAINING)

    attempt = job.start(FINETUNE_PROCESSES="2")

    assert attempt.wait() == ExitCode.DATA_ERROR, attempt.log
    assert attempt.result.error is not None
    assert attempt.result.error.reason == FailureReason.COLUMN_MISSING
    assert attempt.log.count("ColumnMissing") == 1


@pytest.mark.soak
def test_a_finished_run_is_adopted_by_two(of_one):
    attempt = of_one.start(FINETUNE_PROCESSES="2")

    assert attempt.wait() == ExitCode.DONE, attempt.log
    assert attempt.result.adopted


@pytest.mark.soak
@pytest.mark.parametrize("of", [0, 1])
def test_why_one_of_them_fails_is_why_the_attempt_does(of_one, inputs, tmp_path, of):
    job = job_in(tmp_path / "job", inputs)

    attempt = job.start(**doing(tmp_path, "raise OSError(28, 'No space left on device')", of=of, at=10))

    assert attempt.wait() == ExitCode.STORAGE, attempt.log
    assert attempt.result.error is not None
    assert attempt.result.error.reason == FailureReason.DISK_FULL
    assert attempt.log.count("DiskFull: the workspace is full") == 1
    assert "DiskFull: the workspace is full" in last_words(job, attempt)
    assert job.complete().first_step in (4, 8)
    assert_same_end(job, of_one)


def process(attempt: Attempt, rank: int) -> int | None:
    """The id of one of the processes of an attempt; None while there is none."""
    wanted = {f"FINETUNE_WORKSPACE={attempt.folder}/workspace".encode(), f"RANK={rank}".encode()}
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if wanted <= set((folder / "environ").read_bytes().split(b"\0")):
                return int(folder.name)
    return None


MOMENTS = [0.0, 0.2, 0.5, 1.0, 2.0, 3.0, 3.5, 4.0, 4.5, 5.0, 6.0]
"""Seconds after the start of its processes: before they listen, while they import, fetch, meet, load and train."""


@pytest.mark.soak
@pytest.mark.parametrize(
    ("number", "to"), [(signal.SIGTERM, None), (signal.SIGTERM, 0), (signal.SIGTERM, 1), (signal.SIGKILL, 1)]
)
def test_a_signal_at_any_moment_ends_all_within_seconds(of_one, inputs, tmp_path, monkeypatch, number, to):
    """Of the attempt or of one of its processes."""
    job, ends = job_in(tmp_path, inputs), []
    for moment in MOMENTS:
        attempt = job.start(FINETUNE_PROCESSES="2")
        eventually(lambda attempt=attempt: process(attempt, 0) and process(attempt, 1))
        time.sleep(moment)
        begin = time.monotonic()
        if to is None:
            attempt.process.send_signal(number)
        elif (found := process(attempt, to)) is not None:
            os.kill(found, number)
        code = attempt.wait()
        took = time.monotonic() - begin
        ends.append((moment, code, round(took, 1)))
        assert took < 90, f"{ends}\n{attempt.log}"
        expected = {ExitCode.PREEMPTED if number == signal.SIGTERM else ExitCode.INTERNAL, ExitCode.DONE}
        assert code in expected, f"{ends}\n{attempt.log}"
    print(ends)
    job.complete(FINETUNE_PROCESSES="2")
    assert_same_end(job, of_one)
