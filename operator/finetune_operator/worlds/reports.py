"""Reports of trainers between their arrival and the next look at their job.

Trainers talk each second or few. What they say is told by a write of the job's status, which makes a new revision of the whole
object, and of those a cluster keeps five minutes. So of each job a new phase and the first step are told at once, all else each 10
seconds, and of all jobs together 20 reports a second: where more train, each waits for its turn.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Collection

from finetune_operator.worlds.protocol import Key, Report

AT_ONCE_SECONDS = 1.0
"""Between two that are told at once: no trainer has so many phases."""
INTERVAL_SECONDS = 10.0
TOLD_PER_SECOND = 20.0


class Reports:
    """The newest report of each job, and the one that may be told. `changed` hears of a job about which there is something new to tell."""

    def __init__(self, changed: Callable[[Key], None], clock: Callable[[], float] = time.monotonic) -> None:
        self._changed = changed
        self._clock = clock
        self._newest: dict[Key, Report] = {}
        self._told: dict[Key, tuple[float, Report]] = {}
        """The one that may be told, and since when."""
        self._early: dict[Key, tuple[float, asyncio.TimerHandle]] = {}
        """Jobs of which the last was told not long ago, and when the next one is due."""
        self._due: dict[Key, None] = {}
        """Those whose turn comes next, in their order."""
        self._allowed, self._counted = TOLD_PER_SECOND, clock()
        self._turn: asyncio.TimerHandle | None = None
        self._last_words: set[Key] = set()
        """Jobs whose newest report was asked for as the last one."""

    def put(self, key: Key, report: Report) -> None:
        """Take in what was just heard. Only the newest counts."""
        self._newest[key] = report
        self._last_words.discard(key)
        if key in self._due:
            return
        now, due = self._clock(), self._due_at(key, report)
        if key in self._early:
            before, timer = self._early[key]
            if before <= due:
                return
            timer.cancel()
        if due > now:
            self._early[key] = due, asyncio.get_running_loop().call_later(due - now, self._is_due, key)
        else:
            self._is_due(key)

    def of(self, key: Key, running: Collection[str]) -> Report | None:
        """The one that may be told while its attempt is among those that run; after that the newest, as there will be no other."""
        newest = self._newest.get(key)
        if newest is None or newest.attempt in running:
            told = self._told.get(key)
            return told[1] if told else None
        self._last_words.add(key)
        return newest

    def forget_last(self, key: Key) -> None:
        """What was told as the last one is written."""
        if key in self._last_words:
            self.forget(key)

    def forget(self, key: Key) -> None:
        """The job is gone."""
        self._newest.pop(key, None)
        self._told.pop(key, None)
        self._due.pop(key, None)
        self._last_words.discard(key)
        if key in self._early:
            self._early.pop(key)[1].cancel()

    def _due_at(self, key: Key, report: Report) -> float:
        if key not in self._told:
            return -math.inf
        since, told = self._told[key]
        return since + (AT_ONCE_SECONDS if _is_new(told, report) else INTERVAL_SECONDS)

    def _is_due(self, key: Key) -> None:
        self._early.pop(key, None)
        self._due[key] = None
        if self._turn is None:
            self._take_turns()

    def _take_turns(self) -> None:
        now, self._turn = self._clock(), None
        self._allowed = min(TOLD_PER_SECOND, self._allowed + (now - self._counted) * TOLD_PER_SECOND)
        self._counted = now
        while self._due and self._allowed >= 1:
            key = next(iter(self._due))
            del self._due[key]
            self._allowed -= 1
            self._told[key] = now, self._newest[key]
            self._changed(key)
        if self._due:
            self._turn = asyncio.get_running_loop().call_later(1 / TOLD_PER_SECOND, self._take_turns)


def _is_new(told: Report, report: Report) -> bool:
    """Whether somebody who looks wants to see it at once: another attempt, another phase, or the first step."""
    if (told.attempt, told.progress.phase) != (report.attempt, report.progress.phase):
        return True
    return "step" in report.progress.numbers() and "step" not in told.progress.numbers()
