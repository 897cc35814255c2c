"""Events on their way to the API server: beside the work that they tell of, in their order, and never so many that memory fills.

An event is told once its status is written, so nobody waits for it, and one that is lost takes nothing with it but a line of
`kubectl describe`. It is dated when it is said, however late it is told. Each namespace is told of by itself: a webhook that one of them has,
or a quota, holds up no other. Lost is what the API server refuses, what it will not take for minutes, what gives way where too many wait,
and what waits in a process that is killed or has lost its Lease.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import deque
from dataclasses import dataclass
from http import HTTPStatus

from finetune_operator.worlds.kube import names
from finetune_operator.worlds.kube.client import TROUBLE, ApiError, Client, Object
from finetune_operator.worlds.kube.events import event_of
from finetune_operator.worlds.protocol import Announcement, Key

log = logging.getLogger(__name__)

MOST_WAITING = 2000
"""Events: what a burst of as many jobs tells. Beyond that the oldest of the namespace with the most gives way, one that warns of nothing
where there is such a one."""
AT_ONCE = 8
"""Requests."""
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 30.0
"""Seconds between two tries, unless the API server says when."""
WORTH_TELLING = 300.0
"""Seconds for which an event is tried again that the API server is too busy to take, or gives no answer to."""


@dataclass(frozen=True, eq=False)
class _Event:
    key: Key
    warns: bool
    body: Object
    said: float
    """When, in seconds of the monotonic clock."""


class Announcer:
    """Tells events as long as `run` does."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._waiting: dict[str, deque[_Event]] = {}
        """By namespace; there as long as its events are being told."""
        self._telling: set[str] = set()
        self._at_once = asyncio.Semaphore(AT_ONCE)
        self._wake = asyncio.Event()
        self._hurry = asyncio.Event()
        self._told = asyncio.Event()
        self._told.set()
        self._given_way = 0

    def say(self, key: Key, uid: str, event: Announcement) -> None:
        """Have it told soon, dated now."""
        if sum(map(len, self._waiting.values())) >= MOST_WAITING:
            self._make_room()
        body = event_of(key, uid, event, self._client.clock.now())
        lane = self._waiting.setdefault(key.namespace, deque())
        lane.append(_Event(key, event.type == "Warning", body, time.monotonic()))
        self._told.clear()
        self._wake.set()

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as lanes:
            while True:
                await self._wake.wait()
                self._wake.clear()
                for namespace in self._waiting.keys() - self._telling:
                    self._telling.add(namespace)
                    lanes.create_task(self._tell_of(namespace))

    async def all_told(self, *, hurry: bool = False) -> None:
        """`hurry`, where it ends soon anyway: what warns of something is told first from now on, and no pause is a long one."""
        if hurry:
            self._hurry.set()
            for lane in self._waiting.values():
                in_order = sorted(lane, key=lambda event: not event.warns)
                lane.clear()
                lane.extend(in_order)
        await self._told.wait()

    async def _tell_of(self, namespace: str) -> None:
        lane, pause = self._waiting[namespace], FIRST_PAUSE
        while lane:
            event = lane[0]
            asked = await self._try(event)
            if asked is None:
                pause = FIRST_PAUSE
                if event in lane:  # else it gave way meanwhile
                    lane.remove(event)
            else:
                await self._rest(min(max(asked, pause), LONGEST_PAUSE))
                pause *= 2
        del self._waiting[namespace]
        self._telling.discard(namespace)
        if not self._waiting:
            self._told.set()
            if self._given_way:
                log.warning("%d events were not written: there were too many at once.", self._given_way)
                self._given_way = 0

    async def _try(self, event: _Event) -> float | None:
        """None once there is nothing more to be done for it, else for how many seconds the API server wants to be left alone."""
        try:
            async with self._at_once:
                await self._client.create(names.events(event.key.namespace), event.body)
        except TROUBLE as error:
            if _is_told(error):
                return None
            if _passes(error) and time.monotonic() - event.said < WORTH_TELLING:
                return (error.retry_after or 0.0) if isinstance(error, ApiError) else 0.0
            log.warning("An event of %s could not be written: %s", event.key, error or type(error).__name__)
        except Exception:  # a defect, and yet not worth all else that this process does
            log.exception("An event of %s could not be written.", event.key)
        return None

    async def _rest(self, seconds: float) -> None:
        if self._hurry.is_set():
            await asyncio.sleep(FIRST_PAUSE)
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._hurry.wait()

    def _make_room(self) -> None:
        if not self._given_way:
            log.warning("More than %d events wait to be written: from now on old ones are not.", MOST_WAITING)
        self._given_way += 1
        lane = max(self._waiting.values(), key=len)
        place = next((place for place, event in enumerate(lane) if not event.warns), 0)
        del lane[place]


def _passes(error: Exception) -> bool:
    """Whether the same may be taken a little later."""
    if not isinstance(error, ApiError):
        return True
    return error.code == HTTPStatus.TOO_MANY_REQUESTS or error.code >= HTTPStatus.INTERNAL_SERVER_ERROR


def _is_told(error: Exception) -> bool:
    """By an earlier try, of which the answer was lost: names are nobody else's."""
    return isinstance(error, ApiError) and error.code == HTTPStatus.CONFLICT and error.reason == "AlreadyExists"
