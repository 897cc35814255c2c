"""One Result of what several processes say and how they ended."""

from __future__ import annotations

import signal

import pytest

from finetune_api.exit_codes import ExitCode
from finetune_api.failures import REMEDIES, FailureReason
from finetune_api.result import Result, ResultError
from finetune_trainer.notes import Said
from finetune_trainer.verdict import Crash, Lost, judge

UNKNOWN = Result(outcome="preempted", run_id="run", uri="file:///run", owner="team/job/uid", attempt=3, fingerprint="f")
SUCCEEDED = UNKNOWN.model_copy(update={"outcome": "succeeded", "step": 15})
PREEMPTED = UNKNOWN.model_copy(update={"step": 7, "total_steps": 15})
DONE = Said()
"""Of a process that did its part."""
KILLED, BROKEN, ABORTED = -signal.SIGKILL, -signal.SIGSEGV, -signal.SIGABRT


def failed(reason: FailureReason, message: str = "what it says", step: int | None = 7) -> Result:
    error = ResultError(reason=reason, message=message, remedy=REMEDIES[reason])
    return PREEMPTED.model_copy(update={"outcome": "failed", "error": error, "step": step})


GONE = Said(result=failed(FailureReason.INTERNAL, "another process of the attempt is gone"), own=False, at=20.0)
FULL = failed(FailureReason.DISK_FULL, "the workspace is full")


@pytest.mark.parametrize(
    ("said", "crashes", "reason", "message"),
    [
        ({0: GONE}, [Crash(1, KILLED, 21.0)], FailureReason.INTERNAL, "process 2 of 2 was killed by SIGKILL"),
        ({}, [Crash(0, KILLED, 21.0)], FailureReason.INTERNAL, "process 1 of 2 was killed by SIGKILL"),
        # What others are ended by once one has crashed says nothing; nor does an end that follows from the kill.
        ({}, [Crash(1, BROKEN, 21.0), Crash(0, KILLED, 51.0)], FailureReason.INTERNAL, "process 2 of 2 was ended by SIGSEGV"),
        ({}, [Crash(0, ABORTED, 21.0), Crash(1, KILLED, 21.0)], FailureReason.INTERNAL, "process 2 of 2 was killed by SIGKILL"),
        ({0: Said(result=PREEMPTED)}, [Crash(1, 1, 21.0)], FailureReason.INTERNAL, "process 2 of 2 ended with exit code 1 and without a word"),
        # The earliest failure that is a process's own.
        ({0: GONE, 1: Said(result=FULL, at=19.0)}, [], FailureReason.DISK_FULL, "the workspace is full"),
        ({0: Said(result=failed(FailureReason.LOSS_DIVERGED), at=20.0), 1: Said(result=FULL, at=19.0)}, [], FailureReason.DISK_FULL, "the workspace is full"),
        ({0: Said(result=PREEMPTED, at=18.0), 1: Said(result=FULL, at=19.0)}, [], FailureReason.DISK_FULL, "the workspace is full"),
        # Libraries abort where another process is gone; the kernel kills whoever it likes.
        ({1: Said(result=FULL, at=19.0)}, [Crash(0, ABORTED, 21.0)], FailureReason.DISK_FULL, "the workspace is full"),
        ({1: Said(result=FULL, at=19.0)}, [Crash(0, KILLED, 21.0)], FailureReason.INTERNAL, "process 1 of 2 was killed by SIGKILL"),
        # What nobody foresaw may be the consequence.
        ({0: Said(result=failed(FailureReason.INTERNAL), at=19.0)}, [Crash(1, BROKEN, 21.0)], FailureReason.INTERNAL, "process 2 of 2 was ended by SIGSEGV"),
        ({0: GONE}, [Crash(1, ExitCode.STORAGE, 21.0)], FailureReason.DISK_FULL, "the workspace is so full that process 2 of 2 could not say how it ended"),
        ({1: DONE}, [], FailureReason.INTERNAL, "process 1 of 2 ended without a word"),
        ({0: GONE, 1: GONE}, [], FailureReason.INTERNAL, "another process of the attempt is gone"),
    ],
)  # fmt: skip
def test_what_came_first_is_why_the_attempt_failed(
    said: dict[int, Said], crashes: list[Crash], reason: FailureReason, message: str
) -> None:
    result = judge(UNKNOWN, said, crashes, 2)
    assert result.outcome == "failed"
    assert result.error is not None
    assert (result.error.reason, result.error.message) == (reason, message)
    assert result.attempt == 3


def test_what_the_first_process_knows_is_kept_whatever_the_cause() -> None:
    result = judge(UNKNOWN, {0: GONE}, [Crash(1, KILLED, 21.0)], 2)
    assert (result.step, result.total_steps) == (7, 15)
    assert result.exit_code() == ExitCode.INTERNAL
    assert judge(UNKNOWN, {}, [Crash(0, KILLED, 21.0)], 2).step is None


def test_a_kill_is_for_memory_where_the_kernel_counts_one() -> None:
    result = judge(UNKNOWN, {}, [Crash(1, KILLED, 21.0)], 2, out_of_memory=True)
    assert result.error is not None
    assert result.error.message == "the kernel killed process 2 of 2, as memory ran out"
    assert result.exit_code() == ExitCode.OUT_OF_MEMORY
    broken = judge(UNKNOWN, {}, [Crash(1, BROKEN, 21.0)], 2, out_of_memory=True)
    assert broken.exit_code() == ExitCode.INTERNAL


@pytest.mark.parametrize(
    ("said", "crashes"),
    [
        ({0: Said(result=PREEMPTED), 1: Said(result=PREEMPTED)}, []),
        ({0: GONE, 1: Said(result=PREEMPTED)}, []),
        ({0: Said(result=PREEMPTED), 1: GONE}, []),
        ({0: Said(result=PREEMPTED)}, [Crash(1, -signal.SIGTERM, 21.0)]),  # before it could listen
        ({}, [Crash(0, -signal.SIGTERM, 21.0), Crash(1, -signal.SIGTERM, 21.0)]),
        ({0: Said(result=PREEMPTED)}, [Crash(1, ExitCode.PREEMPTED, 21.0)]),
    ],
)
def test_told_to_stop_is_preempted_whichever_process_was_told(said: dict[int, Said], crashes: list[Crash]) -> None:
    result = judge(UNKNOWN, said, crashes, 2)
    assert (result.outcome, result.error) == ("preempted", None)
    assert result.step == (7 if said else None)


def test_a_process_that_was_told_twice_and_lost_steps_gives_the_attempt_its_code() -> None:
    with pytest.raises(Lost) as lost:
        judge(UNKNOWN, {1: DONE}, [Crash(0, 128 + signal.SIGTERM, 21.0)], 2)
    assert lost.value.code == 143


@pytest.mark.parametrize("crashes", [[], [Crash(1, KILLED, 21.0)], [Crash(1, BROKEN, 21.0)]])
def test_a_run_that_is_complete_has_succeeded_whatever_comes_after(crashes: list[Crash]) -> None:
    assert judge(UNKNOWN, {0: Said(result=SUCCEEDED), 1: DONE}, crashes, 2) == SUCCEEDED
