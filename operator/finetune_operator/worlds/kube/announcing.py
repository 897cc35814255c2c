"""Events on their way to the API server: beside the work that they tell of, in their order, and never so many that memory fills.

An event is told once its status is written, so nobody waits for it, and one that is lost takes nothing with it but a line of
`kubectl describe`.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque

from finetune_operator.worlds.kube import names
from finetune_operator.worlds.kube.client import TROUBLE, Client
from finetune_operator.worlds.kube.events import event_of
from finetune_operator.worlds.protocol import Announcement, Key

log = logging.getLogger(__name__)

MOST_WAITING = 2000
"""Events: what a burst of as many jobs tells. Beyond that the oldest gives way, one that warns of nothing where there is such a one."""


class Announcer:
    """Tells events as long as `run` does."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._waiting: deque[tuple[Key, Announcement, dict[str, object]]] = deque()
        self._wake = asyncio.Event()
        self._told = asyncio.Event()
        self._told.set()
        self._dropped = 0

    def say(self, key: Key, uid: str, event: Announcement) -> None:
        """Have it told soon, dated now."""
        if len(self._waiting) >= MOST_WAITING:
            self._make_room()
        self._waiting.append((key, event, event_of(key, uid, event, self._client.clock.now())))
        self._told.clear()
        self._wake.set()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._waiting:
                key, _, body = self._waiting[0]
                try:
                    await self._client.create(names.events(key.namespace), body)
                except TROUBLE as error:
                    log.warning("An event of %s could not be written: %s", key, error or type(error).__name__)
                if self._waiting and self._waiting[0][2] is body:  # else it gave way meanwhile
                    self._waiting.popleft()
            self._told.set()
            if self._dropped:
                log.warning("%d events were not written: there were too many at once.", self._dropped)
                self._dropped = 0

    async def all_told(self) -> None:
        await self._told.wait()

    def _make_room(self) -> None:
        self._dropped += 1
        for place, (_, event, _) in enumerate(self._waiting):
            if event.type == "Normal":
                del self._waiting[place]
                return
        self._waiting.popleft()
