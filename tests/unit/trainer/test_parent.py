"""What the parent of several processes makes of them, which here only say how they end: the result, where it is left, the exit code."""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from textwrap import dedent

import pytest

from finetune_api.exit_codes import ExitCode
from finetune_api.failures import FailureReason
from finetune_api.job import FineTuneJobSpec
from finetune_api.result import Result
from finetune_api.run import PROCESSES_ENV, RESULT_ENV, RUN_ENV, WORKSPACE_ENV, Run, identify
from finetune_trainer import children, parent, processes
from finetune_trainer.log import logger
from finetune_trainer.stop import StopSignal

BEGINS = """\
import os, signal, sys, time
from pathlib import Path
from finetune_api.failures import FailureReason, JobError
from finetune_api.result import ResultError
from finetune_api.run import Run
from finetune_trainer.ending import ended
from finetune_trainer.notes import Notes, Said
rank, workspace = int(os.environ["RANK"]), Path(os.environ["FINETUNE_WORKSPACE"])
run, notes = Run.from_env(os.environ["FINETUNE_RUN"]), Notes(workspace)
if rank == 0:
    notes.attempt = 4
    notes.metrics = b'{"step": 0}\\n'
    (workspace / "scratch").mkdir(exist_ok=True)
(workspace / f"log-{rank}.txt").write_text(f"rank {rank}\\n")
preempted = ended(run, "preempted", attempt=4)
def failed(reason, message):
    return ended(run, "failed", error=ResultError.of(JobError(reason, message)))
"""

Main = Callable[[str], int]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    spec = FineTuneJobSpec.model_validate(
        {
            "task": "text-classification",
            "model": {"uri": "file:///model"},
            "dataset": {"uri": "file:///data"},
            "output": {"uri": f"file://{tmp_path}/results"},
        }
    )
    return Run(run=identify(spec), owner="team/job/uid", spec=spec)


@pytest.fixture
def main(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Main]:
    """Be the parent of two processes that do something; returns its exit code."""
    environment = {
        RUN_ENV: run.to_env(),
        WORKSPACE_ENV: str(tmp_path / "workspace"),
        RESULT_ENV: str(tmp_path / "message"),
        PROCESSES_ENV: "2",
    }
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    signals = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)}
    former = list(logger.handlers), logger.level, logger.propagate
    stop = StopSignal()
    stop.install()

    def be_the_parent(does: str) -> int:
        monkeypatch.setattr(parent, "TRAINER", (sys.executable, "-c", BEGINS + dedent(does)))
        return parent.main(stop)

    yield be_the_parent
    for number, handler in signals.items():
        signal.signal(number, handler)
    for handler in logger.handlers:
        if isinstance(handler, logging.FileHandler):
            handler.close()
    logger.handlers, logger.level, logger.propagate = former


def message(tmp_path: Path) -> Result:
    return Result.model_validate_json((tmp_path / "message").read_text())


def left(run: Run, name: str) -> str:
    """What is left of the attempt beside the run."""
    return (Path(run.run.uri.removeprefix("file://")) / "attempts/4" / name).read_text()


def test_why_one_failed_is_why_the_attempt_did(main: Main, run: Run, tmp_path: Path) -> None:
    code = main("""
        notes.say(rank, Said(result=failed(FailureReason.DISK_FULL, "the workspace is full") if rank else preempted))
        """)

    assert code == ExitCode.STORAGE
    found = message(tmp_path)
    assert found.error is not None
    assert (found.outcome, found.attempt, found.error.reason) == ("failed", 4, FailureReason.DISK_FULL)
    assert Result.model_validate_json(left(run, "result.json")) == found
    assert "DiskFull: the workspace is full. Free" not in left(run, "log.txt"), "its own remedy is said"
    assert "DiskFull: the workspace is full." in left(run, "log.txt")
    assert left(run, "metrics.jsonl") == '{"step": 0}\n'
    assert left(run, "log-1.txt") == "rank 1\n"
    assert not (tmp_path / "workspace/scratch").exists()


def test_a_crash_is_told_with_its_process(main: Main, run: Run, tmp_path: Path) -> None:
    code = main("""
        up = workspace / "up"
        while rank:
            if up.exists():
                os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(0.01)
        signal.signal(signal.SIGTERM, lambda *_: (notes.say(0, Said(result=preempted)), sys.exit(0)))
        up.touch()
        time.sleep(600)
        """)

    assert code == ExitCode.INTERNAL
    found = message(tmp_path)
    assert found.error is not None
    assert found.error.message == "process 2 of 2 was killed by SIGKILL"
    assert json.loads(left(run, "result.json"))["error"]["message"] == found.error.message
    assert "Internal: process 2 of 2 was killed by SIGKILL" in left(run, "log.txt")


def test_a_kill_that_the_kernel_counts_is_for_memory(
    main: Main, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts = iter([3, 4])
    monkeypatch.setattr(parent, "out_of_memory_kills", lambda: next(counts))

    assert main("rank and os.kill(os.getpid(), signal.SIGKILL); time.sleep(600)") == ExitCode.OUT_OF_MEMORY
    assert message(tmp_path).exit_code() == ExitCode.OUT_OF_MEMORY


def test_a_result_of_the_first_is_that_of_the_attempt_and_said_once(main: Main, run: Run, tmp_path: Path) -> None:
    code = main("""
        succeeded = preempted.model_copy(update={"outcome": "succeeded", "step": 9})
        notes.say(rank, Said() if rank else Said(result=succeeded))
        """)

    assert code == ExitCode.DONE
    assert (message(tmp_path).outcome, message(tmp_path).step) == ("succeeded", 9)
    assert json.loads(left(run, "result.json"))["outcome"] == "succeeded"
    assert left(run, "log.txt") == ""


def test_an_attempt_without_a_number_leaves_nothing_beside_the_run(main: Main, run: Run, tmp_path: Path) -> None:
    code = main("""
        (workspace / "ranks/attempt").unlink(missing_ok=True)
        notes.say(rank, Said() if rank else Said(result=failed(FailureReason.STORAGE_DENIED, "no")))
        """)

    assert code == ExitCode.USER_ERROR
    assert not Path(run.run.uri.removeprefix("file://")).exists()


def test_steps_that_are_lost_to_a_second_signal_are_told_by_the_exit_code_alone(
    main: Main, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(children, "HURRY", 60.0)

    assert main(f"rank and sys.exit(128 + {int(signal.SIGTERM)})") == 128 + signal.SIGTERM
    assert not (tmp_path / "message").exists()


@pytest.mark.parametrize(("gpus", "says"), [(1, "asks for 2 processes, and of GPUs, of which each has one, 1")])
def test_more_processes_than_gpus_are_refused(
    main: Main, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gpus: int, says: str
) -> None:
    for module in (parent, processes):
        monkeypatch.setattr(module, "visible_gpus", lambda: gpus)

    assert main("") == ExitCode.USER_ERROR
    error = message(tmp_path).error
    assert error is not None
    assert error.reason is FailureReason.INVALID_SPEC
    assert says in error.message


def test_what_cannot_be_started_is_told(main: Main, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(children.socket, "create_server", os.strerror)  # which wants something else

    assert main("") == ExitCode.INTERNAL
    error = message(tmp_path).error
    assert error is not None
    assert error.message.startswith("TypeError: ")


def test_all_begin_again_as_long_as_each_time_there_is_less_at_once(main: Main, tmp_path: Path) -> None:
    code = main(
        """
        from finetune_trainer.room import Room
        room = notes.room
        with (workspace / f"rooms-{rank}").open("a") as file:
            print(room.micro, room.again, room.cost, file=file)
        wanted = {None: Room(micro=8, cost=100), 8: Room(micro=16, again=True), 16: None}[room.micro]
        if rank == 1 and wanted is not None:
            notes.say(rank, Said(result=preempted, room=wanted))
        elif rank == 0:
            done = ended(run, "preempted", attempt=4).model_copy(update={"outcome": "succeeded"})
            notes.say(rank, Said(result=preempted, own=False) if wanted is not None else Said(result=done))
        else:
            notes.say(rank, Said())
        """
    )

    assert code == ExitCode.DONE
    said = ["None False None", "8 False 100", "16 True 100", ""]
    assert [(tmp_path / f"workspace/rooms-{rank}").read_text().split("\n") for rank in (0, 1)] == [said] * 2


def test_none_begins_again_with_as_much_as_before_or_where_one_failed(main: Main, tmp_path: Path) -> None:
    code = main(
        """
        from finetune_trainer.room import Room
        with (workspace / f"times-{rank}").open("a") as file:
            print("once", file=file)
        if rank:
            notes.say(rank, Said(result=preempted, room=Room(micro=8)))
        elif notes.room.micro:
            notes.say(0, Said(result=failed(FailureReason.DISK_FULL, "the disk is full")))
        else:
            notes.say(0, Said(result=preempted, own=False))
        """
    )

    assert code != ExitCode.DONE
    assert "the disk is full" in (tmp_path / "message").read_text()
    assert (tmp_path / "workspace/times-1").read_text() == "once\n" * 2
