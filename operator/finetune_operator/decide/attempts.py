"""How attempts ended, and the record of them in the status.

An attempt is created by the clock that `now` is of too, and starts and ends by that of its node, which may be minutes off. So
attempts are ordered by their creation, and what a node says is trusted only between that and `now`, lengths of time aside.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Literal

from finetune_api.exit_codes import ExitCode
from finetune_api.failures import REMEDIES, FailureReason
from finetune_api.result import Result, read_result
from finetune_api.status import Attempt
from finetune_operator.worlds.protocol import PREEMPTED, AttemptPhase, AttemptSeen, Cause
from finetune_operator.worlds.restarts import is_counted

COMPLETED, DELETED = "Completed", "Deleted"
DISRUPTIONS = frozenset({PREEMPTED, DELETED, FailureReason.NODE_LOST.value, FailureReason.EVICTED.value})
"""Ends that did not count, in records that do not say it themselves."""
MAX_RECORDED = 32
LONGEST_MESSAGE = 200
KILLED = 137
"""128 + SIGKILL: what the kernel's out-of-memory killer leaves behind, and whoever else kills."""

REASON_OF_CODE: dict[int, FailureReason] = {
    ExitCode.USER_ERROR: FailureReason.INVALID_SPEC,
    ExitCode.DATA_ERROR: FailureReason.DATA_INVALID,
    ExitCode.DOES_NOT_FIT: FailureReason.DOES_NOT_FIT,
    ExitCode.STORAGE: FailureReason.STORAGE_UNAVAILABLE,
    ExitCode.OUT_OF_MEMORY: FailureReason.OUT_OF_MEMORY,
    ExitCode.NO_PROGRESS: FailureReason.TRAINING_STALLED,
}
"""What an exit code alone says, for a trainer that left no message."""
UNNAMED = frozenset({FailureReason.INVALID_SPEC, FailureReason.DATA_INVALID})
UNNAMED_REMEDY = "Read the log of the attempt for what it is about, and check that spec.image is a trainer's."
"""The usual remedies speak of the field or the row that the message names."""


def result_of(attempt: AttemptSeen) -> Result | None:
    """The trainer's own words, or None when it left none that can be read."""
    return read_result(attempt.termination_message)


def log_uri(run_uri: str, result: Result | None) -> str | None:
    """Where the log of the attempt that left this result is, in the run's folder; None where it does not say which one it was."""
    return f"{run_uri}/attempts/{result.attempt}/log.txt" if result and result.attempt else None


def cause_of(attempt: AttemptSeen) -> Cause | None:
    """Why this attempt ended, or None when it succeeded or goes on.

    Who speaks is asked in this order: the world, which knows what it did; the kernel, and the trainer, which know what happened to
    them; and only where all are silent an exit code, which is a guess.
    """
    if attempt.phase is not AttemptPhase.ENDED or attempt.exit_code == ExitCode.DONE:
        return None
    if attempt.ended_by is not None:
        return attempt.ended_by
    if attempt.disruption is not None:
        return Cause(attempt.disruption, f"{attempt.name} was taken away by the cluster ({attempt.disruption}).")
    result = result_of(attempt)
    if attempt.exit_code == ExitCode.PREEMPTED:
        saved = " and saved its work" if result is not None and result.step else ""
        return Cause(PREEMPTED, f"{attempt.name} was told to stop{saved}.")
    said = result.error if result is not None else None
    if attempt.out_of_memory and (said is None or said.reason is FailureReason.INTERNAL):
        message = f"{attempt.name} was killed (exit code {attempt.exit_code}) because it reached its memory limit."
        return Cause(FailureReason.OUT_OF_MEMORY, message, REMEDIES[FailureReason.OUT_OF_MEMORY])
    if said is not None:
        return Cause(said.reason, said.message, said.remedy, said.field)
    if attempt.deleting and attempt.exit_code not in REASON_OF_CODE:
        return Cause(DELETED, f"{attempt.name} was deleted.")
    return _guess(attempt)


def _guess(attempt: AttemptSeen) -> Cause:
    """What an exit code alone tells."""
    if attempt.exit_code is None:
        message = f"{attempt.name} ended without an exit code, and nothing says why."
        return Cause(FailureReason.INTERNAL, message, REMEDIES[FailureReason.INTERNAL])
    last_line = attempt.termination_message.strip().rpartition("\n")[2].strip()[:600]
    words = f"; the last line of its log: {last_line}" if last_line else "; it left no message"
    if attempt.exit_code == KILLED:
        message = f"{attempt.name} was killed (exit code {KILLED}) and most likely ran out of memory{words}"
        return Cause(FailureReason.OUT_OF_MEMORY, message, REMEDIES[FailureReason.OUT_OF_MEMORY])
    reason = REASON_OF_CODE.get(attempt.exit_code, FailureReason.INTERNAL)
    remedy = UNNAMED_REMEDY if reason in UNNAMED else REMEDIES[reason]
    return Cause(reason, f"{attempt.name} ended with exit code {attempt.exit_code}{words}", remedy)


@dataclass(frozen=True)
class Around:
    """What else is known of the run whose attempts are recorded."""

    going_on: Collection[str] = ()
    """The trainings that nobody has stopped."""
    uri: str = ""
    """The run's folder."""
    told: Mapping[str, int] = field(default_factory=dict)
    """The step that attempts, by their names, last told to be saved, while they still could."""


def record(
    before: Sequence[Attempt], seen: Sequence[AttemptSeen], now: datetime, around: Around | None = None
) -> list[Attempt]:
    """The attempts of a run, oldest first, the latest 32. Numbers once given stay; an attempt that vanished without a word is
    closed as deleted; one that never started is not yet an attempt."""
    around = around or Around()
    known = {attempt.name: attempt for attempt in before}
    visible = {attempt.name for attempt in seen}
    for name, attempt in known.items():
        if attempt.end_time is None and name not in visible:
            known[name] = _vanished(attempt, now)
    number = max((attempt.number for attempt in before), default=0)
    left = _left_the_record(before, seen)
    for attempt_seen in seen:
        old = known.get(attempt_seen.name)
        if old is None:
            never_ran = attempt_seen.started is None and attempt_seen.phase is not AttemptPhase.ENDED
            if never_ran or attempt_seen.name in left:
                continue
            number += 1
        if old is None or old.end_time is None:
            known[attempt_seen.name] = _entry(attempt_seen, old, old.number if old else number, now, around)
    closed = {attempt.name for attempt in before if attempt.end_time is not None}
    in_order = sorted(known.values(), key=lambda attempt: attempt.number)
    return list(_with_own_steps(in_order, closed, around.told))[-MAX_RECORDED:]


def _vanished(attempt: Attempt, now: datetime) -> Attempt:
    """With why it was given up, where it was."""
    end = max(now, attempt.start_time or now)
    said = {
        "end_time": end,
        "reason": attempt.reason or DELETED,
        "counts_as": "Disruption" if attempt.reason == FailureReason.NODE_LOST else "Stop",
        "gpu_seconds": _gpu_seconds(attempt.start_time, end, attempt.devices),
        "message": attempt.message or _cut(f"{attempt.name} is gone, and how it ended was not seen."),
    }
    return attempt.model_copy(update=said)


def given_up(attempts: Sequence[Attempt], names: Collection[str], cause: Cause) -> list[Attempt]:
    """The same, of which these are about to be ended for this cause: with their pods goes whatever would tell."""
    why = {"reason": str(cause.reason), "message": _cut(cause.message)}
    return [a.model_copy(update=why) if a.name in names and a.end_time is None else a for a in attempts]


def _with_own_steps(attempts: Iterable[Attempt], closed: Collection[str], told: Mapping[str, int]) -> Iterator[Attempt]:
    """Each attempt with the steps that are its own; what is `closed` was recorded so before."""
    highest = 0
    for attempt in attempts:
        if attempt.end_time is not None and attempt.name not in closed and attempt.steps is None:
            saved = attempt.step if attempt.step is not None else told.get(attempt.name)
            if saved is not None:
                attempt = attempt.model_copy(update={"steps": max(0, saved - highest)})
        highest = highest_after(highest, attempt)
        yield attempt


def highest_after(highest: int, attempt: Attempt) -> int:
    """The highest step that is known to be saved once this attempt has ended, where it was `highest` before."""
    return max(highest, attempt.step) if attempt.step is not None else highest + (attempt.steps or 0)


def _gpu_seconds(start: datetime | None, end: datetime | None, devices: int | None) -> int | None:
    if not devices or start is None or end is None:
        return None
    return max(0, int((end - start).total_seconds())) * devices


def _cut(message: str) -> str:
    return message if len(message) <= LONGEST_MESSAGE else f"{message[: LONGEST_MESSAGE - 1]}…"


def _left_the_record(before: Sequence[Attempt], seen: Sequence[AttemptSeen]) -> frozenset[str]:
    """Those that are still seen but were put out of the full record by later ones: they come before what it holds."""
    recorded = {attempt.name for attempt in before}
    first = next((index for index, attempt in enumerate(seen) if attempt.name in recorded), 0)
    return frozenset(attempt.name for attempt in seen[:first]) if len(before) >= MAX_RECORDED else frozenset()


def within(earliest: datetime, time: datetime, latest: datetime) -> datetime:
    """`time`, or the bound that it is beyond; `earliest` where the bounds themselves are the wrong way round."""
    return max(earliest, min(time, latest))


def _entry(seen: AttemptSeen, old: Attempt | None, number: int, now: datetime, around: Around) -> Attempt:
    ended = seen.phase is AttemptPhase.ENDED
    cause = cause_of(seen)
    if old is not None and old.reason and cause is not None and cause.reason == DELETED:
        cause = Cause(old.reason, old.message or cause.message)  # it was deleted for that
    before = (old.reason, old.message) if old is not None else (None, None)
    result = result_of(seen) if ended else None
    start, end = _times(seen, old.start_time if old else None, now)
    ending = within(start or seen.created, end, now) if ended else None
    log = log_uri(around.uri, result) if result and not result.adopted else None
    said = {
        "node": seen.node,
        "start_time": start,
        "end_time": ending,
        "reason": (str(cause.reason) if cause else COMPLETED) if ended else before[0],
        "exit_code": seen.exit_code if ended else None,
        "counts_as": _counts_as(seen, cause, stopped=seen.training not in around.going_on) if cause else None,
        "processes": result.processes if result else None,
        "step": (result.step or 0) if result else None,
        "steps": 0 if result and result.adopted else None,
        "devices": seen.devices or None,
        "gpu_seconds": _gpu_seconds(start, ending, seen.devices),
        "message": (_cut(cause.message) if cause and cause.message else None) if ended else before[1],
        "log_uri": log,
    }
    return (old or Attempt(number=number, name=seen.name)).model_copy(update=said)


def _times(seen: AttemptSeen, start: datetime | None, now: datetime) -> tuple[datetime | None, datetime]:
    """Its start, which stays once it is said, and its end, if it has one. A clock by which it began before it was created is wrong, and so
    is one by which it ended before it began: then it was as late as can be."""
    if seen.started is None:
        return start, now if seen.ended is None else seen.ended
    length = seen.ended - seen.started if seen.ended is not None else timedelta()
    if start is None or start < seen.created:
        begun = now - length if seen.started < seen.created else seen.started
        start = within(seen.created, begun, now)
    return start, now if seen.ended is None or length < timedelta() else start + length


def _counts_as(seen: AttemptSeen, cause: Cause, *, stopped: bool) -> Literal["Failure", "Disruption", "Stop"]:
    """As the Job controller counts it, except that it does not count what ends together with its Job.

    An end that somebody asked for, by deleting the pod or suspending its Job, is no sign of a run that gets nowhere.
    """
    if is_counted(seen):
        return "Stop" if stopped and cause.reason == DELETED else "Failure"
    return "Stop" if seen.deleting and seen.disruption is None else "Disruption"


@dataclass(frozen=True)
class Spent:
    failures: int
    seconds: int


def spent(attempts: Sequence[Attempt], until: datetime | None) -> Spent:
    """Counted failures and seconds of the attempts that began before `until` (None: of all)."""
    earlier = [a for a in attempts if until is None or (a.start_time or a.end_time or until) < until]
    failures = sum(1 for a in earlier if _is_failure(a))
    durations = [a.end_time - a.start_time for a in earlier if a.start_time and a.end_time]
    return Spent(failures, sum(max(0, int(d.total_seconds())) for d in durations))


def _is_failure(attempt: Attempt) -> bool:
    if attempt.counts_as is None:  # it goes on, or completed, or an earlier version recorded it
        return attempt.end_time is not None and attempt.reason not in (None, COMPLETED, *DISRUPTIONS)
    return attempt.counts_as == "Failure"
