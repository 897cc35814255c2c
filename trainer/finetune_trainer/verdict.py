"""What became of an attempt of several processes, of what each of them says and how it ended: one Result, whose cause is what came first.

A process that ends with a code of 0 has said how. Any other end is a crash: of the kernel, of a library, or of whoever killed it.
"""

from __future__ import annotations

import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from finetune_api.exit_codes import ExitCode
from finetune_api.failures import FailureReason, JobError
from finetune_api.result import Result, ResultError
from finetune_trainer.notes import Said
from finetune_trainer.processes import name_of

TOLD = (signal.SIGTERM, signal.SIGINT)
"""By which a process is told to stop."""
FULL = ExitCode.STORAGE
"""By which a process ends that could not even say how it ended: there was no space for that."""
CLOSING = 5.0
"""Seconds after a crash from which on others are killed for it, who do not end by themselves."""


@dataclass(frozen=True)
class Crash:
    rank: int
    code: int
    """The exit code; of a signal its negative number."""
    at: float
    """When it was there at the latest, in seconds since 1970."""


class Lost(Exception):
    """Told twice to stop, a process ended without saving: with this exit code, and nothing to say."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


def judge(
    unknown: Result, said: Mapping[int, Said], crashes: Sequence[Crash], world: int, *, out_of_memory: bool = False
) -> Result:
    """`unknown` is a Result of this attempt by somebody who knows nothing else; `crashes` are in the order in which they were seen.
    `out_of_memory` is whether the kernel has killed a process for memory. Raises Lost."""
    first = said[0].result if 0 in said else None
    if first is not None and first.outcome == "succeeded":
        return first  # the run is complete, whatever comes after
    known = first or unknown
    crash, failure = _cause(crashes), _earliest_failure(said)
    if crash is not None and failure is not None and _follows(crash, failure):
        crash = None
    if crash is not None and not _was_told(crash):
        return _failed(known, ResultError.of(_of_crash(crash, world, out_of_memory)))
    if failure is not None:
        return _failed(known, failure.error)
    if crash is not None and crash.code != ExitCode.PREEMPTED and crash.code > 0:
        raise Lost(crash.code)
    if crash is not None or any(one.own and _outcome(one) == "preempted" for one in said.values()):
        return known.model_copy(update={"outcome": "preempted", "error": None})
    if first is not None:
        return first
    silent = JobError(FailureReason.INTERNAL, f"{name_of(0, world)} ended without a word")
    return _failed(known, ResultError.of(silent))


@dataclass(frozen=True)
class _Failure:
    error: ResultError
    at: float


def _cause(crashes: Sequence[Crash]) -> Crash | None:
    """The crash that others follow from. Nobody is killed as a consequence, but by who ends the others once one has crashed."""
    killed = (one for one in crashes if one.code == -signal.SIGKILL and one.at < crashes[0].at + CLOSING)
    return next(killed, next(iter(crashes), None))


def _earliest_failure(said: Mapping[int, Said]) -> _Failure | None:
    """Of those that are of a process's own."""
    failures = [
        _Failure(one.result.error, one.at)
        for one in said.values()
        if one.own and one.result is not None and one.result.outcome == "failed" and one.result.error is not None
    ]
    return min(failures, key=lambda one: one.at, default=None)


def _follows(crash: Crash, failure: _Failure) -> bool:
    """Whether the crash is what a library made of the other's end. What nobody foresaw may itself follow from the crash."""
    killed = crash.code == -signal.SIGKILL
    return not killed and failure.at < crash.at and failure.error.reason is not FailureReason.INTERNAL


def _outcome(said: Said) -> str | None:
    return said.result.outcome if said.result is not None else None


def _was_told(crash: Crash) -> bool:
    """Whether a process ended so because it was told to stop: before it could listen, or for the second time."""
    return crash.code == ExitCode.PREEMPTED or any(crash.code in (-number, 128 + number) for number in TOLD)


def _failed(known: Result, error: ResultError) -> Result:
    return known.model_copy(update={"outcome": "failed", "error": error})


def _of_crash(crash: Crash, world: int, out_of_memory: bool) -> JobError:
    who = name_of(crash.rank, world)
    if crash.code == -signal.SIGKILL and out_of_memory:
        return JobError(FailureReason.OUT_OF_MEMORY, f"the kernel killed {who}, as memory ran out")
    if crash.code == FULL:
        return JobError(FailureReason.DISK_FULL, f"the workspace is so full that {who} could not say how it ended")
    if crash.code >= 0:
        return JobError(FailureReason.INTERNAL, f"{who} ended with exit code {crash.code} and without a word")
    name = signal.Signals(-crash.code).name
    if crash.code != -signal.SIGKILL:
        return JobError(FailureReason.INTERNAL, f"{who} was ended by {name}")
    return JobError(
        FailureReason.INTERNAL,
        f"{who} was killed by {name}",
        remedy="Nothing if somebody did it on purpose: the next attempt goes on from what is saved. Else look whether the node ran short of memory.",
    )
