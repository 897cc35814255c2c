"""Trainers talk often; what they say is told as often as a cluster can write."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any

import pytest

from finetune_api.progress import Progress, TrainerPhase
from finetune_operator.worlds.protocol import Key, Report
from finetune_operator.worlds.reports import AT_ONCE_SECONDS, INTERVAL_SECONDS, TOLD_PER_SECOND, Reports

KEY = Key("FineTuneJob", "ns", "demo")
RUNNING = ("pod-1", "pod-2")


def report(step: int | None = None, phase: TrainerPhase = TrainerPhase.TRAINING, attempt: str = "pod-1") -> Report:
    numbers = {} if step is None else {"step": step}
    return Report(attempt, Progress.now(phase, datetime.now(UTC), **numbers), datetime.now(UTC))


class Timeline:
    """Timers of a loop that runs when the test says so."""

    def __init__(self) -> None:
        self.now = 1000.0
        self._timers: list[tuple[float, Any, tuple[Any, ...], Timer]] = []

    def call_later(self, delay: float, call: Any, *arguments: Any) -> Timer:
        timer = Timer()
        self._timers.append((self.now + delay, call, arguments, timer))
        return timer

    def passes(self, seconds: float) -> None:
        end = self.now + seconds
        while due := sorted((t for t in self._timers if t[0] <= end and not t[3].cancelled), key=lambda t: t[0]):
            self._timers.remove(due[0])
            self.now, call, arguments, _ = due[0]
            call(*arguments)
        self.now = end


class Timer:
    cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class Told:
    """What is told of jobs, and when."""

    def __init__(self, time: Timeline) -> None:
        self.time = time
        self.at: list[tuple[float, Key]] = []
        self.reports = Reports(lambda key: self.at.append((time.now - 1000, key)), lambda: time.now)

    def times(self, key: Key = KEY) -> list[float]:
        return [at for at, told in self.at if told == key]


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Told:
    time = Timeline()
    monkeypatch.setattr(asyncio, "get_running_loop", lambda: time)
    return Told(time)


def test_the_first_report_is_told_at_once_and_each_second_of_steps_each_10_seconds(told: Told) -> None:
    for step in range(1, 62):
        told.reports.put(KEY, report(step))
        told.time.passes(1)
    assert told.times() == [0, 10, 20, 30, 40, 50, 60]


def test_what_is_told_later_is_the_newest_then(told: Told) -> None:
    for step in (1, 2, 3):
        told.reports.put(KEY, report(step))
    assert step_of(told.reports.of(KEY, RUNNING)) == 1
    told.time.passes(INTERVAL_SECONDS)
    assert step_of(told.reports.of(KEY, RUNNING)) == 3


def test_nothing_is_told_of_a_trainer_that_is_silent(told: Told) -> None:
    told.reports.put(KEY, report(1))
    told.time.passes(1000)
    assert told.times() == [0]


@pytest.mark.parametrize(
    "new", [report(phase=TrainerPhase.EVALUATING), report(attempt="pod-2"), report(1)], ids=["phase", "attempt", "step"]
)
def test_a_new_phase_another_attempt_and_the_first_step_are_told_at_once(told: Told, new: Report) -> None:
    told.reports.put(KEY, report())
    told.time.passes(3)
    told.reports.put(KEY, new)
    assert told.times() == [0, 3]
    assert told.reports.of(KEY, RUNNING) == new


def test_whoever_changes_phases_all_the_time_is_told_of_each_second(told: Told) -> None:
    for number in range(100):
        told.reports.put(KEY, report(phase=list(TrainerPhase)[number % 5]))
        told.time.passes(0.05)
    assert told.times() == [0, *(n * AT_ONCE_SECONDS for n in range(1, 5))]


def test_a_phase_that_waits_is_not_kept_back_by_the_step_that_waited_before(told: Told) -> None:
    told.reports.put(KEY, report(1))
    told.reports.put(KEY, report(2))
    told.reports.put(KEY, report(phase=TrainerPhase.EVALUATING))
    told.time.passes(20)
    assert told.times() == [0, AT_ONCE_SECONDS]


def test_all_jobs_together_are_told_of_20_times_a_second_and_in_turn(told: Told) -> None:
    keys = [Key("FineTuneJob", "ns", f"job-{n}") for n in range(1000)]
    for second in range(200):
        for key in keys:
            told.reports.put(key, report(second + 1))
        told.time.passes(1)
    for second in range(10, 190):
        assert len([at for at, _ in told.at if second <= at < second + 1]) <= TOLD_PER_SECOND + 1
    assert len(told.at) == pytest.approx(200 * TOLD_PER_SECOND, rel=0.01)
    assert {len(told.times(key)) for key in keys} <= {4, 5}


def test_the_last_words_are_the_newest_and_are_forgotten_once_they_are_written(told: Told) -> None:
    told.reports.put(KEY, report(1))
    told.reports.put(KEY, report(2))
    told.reports.forget_last(KEY)  # nobody has asked for them yet
    assert step_of(told.reports.of(KEY, ())) == 2
    told.reports.forget_last(KEY)
    assert (told.reports.of(KEY, ()), told.reports.of(KEY, RUNNING)) == (None, None)
    told.time.passes(100)
    assert told.times() == [0]


def test_another_attempt_that_speaks_meanwhile_is_not_forgotten(told: Told) -> None:
    told.reports.put(KEY, report(1))
    told.reports.of(KEY, ())
    told.reports.put(KEY, report(attempt="pod-2"))
    told.reports.forget_last(KEY)
    last = told.reports.of(KEY, ())
    assert last is not None
    assert last.attempt == "pod-2"


def test_of_a_job_that_is_gone_nothing_is_told_later(told: Told) -> None:
    told.reports.put(KEY, report(1))
    told.reports.put(KEY, report(2))
    told.reports.forget(KEY)
    told.time.passes(100)
    assert (told.times(), told.reports.of(KEY, RUNNING)) == ([0], None)


def step_of(report: Report | None) -> float | None:
    return report.progress.metric("step") if report else None
