"""A work queue after client-go's: each key once, one worker a key, and patience with keys that fail."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import random
from collections import deque
from collections.abc import Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)

FIRST_DELAY, LONGEST_DELAY = 0.5, 300.0


class WorkQueue(Generic[K]):
    """Keys wait here for workers. A key added while it waits stays one entry; added while it is being worked on, it comes
    again afterwards, so no change is missed and no key is ever in two hands.

        key = await queue.get()
        …
        queue.done(key)
    """

    def __init__(self) -> None:
        self._waiting: deque[K] = deque()
        self._dirty: set[K] = set()
        self._in_hand: set[K] = set()
        self._later: list[tuple[float, int, K]] = []
        self._due: dict[K, float] = {}
        self._failures: dict[K, int] = {}
        self._order = itertools.count()
        self._wake = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._draining = False
        self._idle = asyncio.Event()

    def __len__(self) -> int:
        """Keys that could be worked on now."""
        return len(self._waiting)

    def add(self, key: K) -> None:
        if key in self._dirty:
            return
        self._dirty.add(key)
        if key not in self._in_hand:
            self._waiting.append(key)
            self._wake.set()

    def add_after(self, key: K, seconds: float) -> None:
        """Adds the key when the time has come; of several such times the earliest counts."""
        due = asyncio.get_running_loop().time() + seconds
        if self._due.get(key, float("inf")) <= due:
            return
        self._due[key] = due
        heapq.heappush(self._later, (due, next(self._order), key))
        self._set_timer()

    def add_failed(self, key: K) -> float:
        """Adds the key after its back-off: doubled at each failure in a row, with jitter, at most five minutes."""
        failures = self._failures[key] = self._failures.get(key, 0) + 1
        delay: float = min(FIRST_DELAY * 2 ** min(failures - 1, 20), LONGEST_DELAY)
        delay *= random.uniform(0.5, 1.0)  # noqa: S311
        self.add_after(key, delay)
        return delay

    def succeeded(self, key: K) -> None:
        """Its next failure starts over with the shortest back-off."""
        self._failures.pop(key, None)

    async def get(self) -> K:
        while not self._waiting or self._draining:
            self._wake.clear()
            await self._wake.wait()
        key = self._waiting.popleft()
        self._dirty.discard(key)
        self._in_hand.add(key)
        return key

    def done(self, key: K) -> None:
        self._in_hand.discard(key)
        if key in self._dirty:
            self._waiting.append(key)
            self._wake.set()
        if self._draining and not self._in_hand:
            self._idle.set()

    async def drain(self) -> None:
        """Hands out nothing more, and returns when what is in hand is done."""
        self._draining = True
        if self._in_hand:
            await self._idle.wait()

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._later:
            self._timer = asyncio.get_running_loop().call_at(self._later[0][0], self._ripen)

    def _ripen(self) -> None:
        now = asyncio.get_running_loop().time()
        while self._later and self._later[0][0] <= now:
            due, _, key = heapq.heappop(self._later)
            if self._due.get(key) == due:  # else an earlier time was asked for, and has come already
                del self._due[key]
                self.add(key)
        self._set_timer()
