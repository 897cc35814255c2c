"""Runs `reconcile` for every job about which something may have changed."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable
from contextvars import ContextVar
from datetime import UTC, datetime

from finetune_operator.queue import WorkQueue
from finetune_operator.reconcile import reconcile
from finetune_operator.worlds.protocol import Key, World

log = logging.getLogger(__name__)

WORKERS = 8
RESYNC_SECONDS = 600.0
"""Each job that is not settled is looked at again about this often, at a moment of its own, should a change have been missed."""

current_job: ContextVar[Key | None] = ContextVar("current_job", default=None)
"""The job that the running code works on, for the log."""


def _utc_now() -> datetime:
    return datetime.now(UTC)


class Controller:
    """Workers over one queue of keys. `observed` hears how long each reconcile took and whether it failed.

    They begin once `leads` is set, with a look at every job there is; what changes before is another operator's to look at.
    """

    def __init__(
        self,
        world: World,
        *,
        workers: int = WORKERS,
        clock: Callable[[], datetime] = _utc_now,
        observed: Callable[[float, bool], None] = lambda seconds, failed: None,
        leads: asyncio.Event | None = None,
    ) -> None:
        self._world = world
        self._workers = workers
        self._clock = clock
        self._observed = observed
        self._leads = leads or asyncio.Event()
        if leads is None:
            self._leads.set()
        self.queue: WorkQueue[Key] = WorkQueue()
        self._settled: set[Key] = set()
        """Finished jobs that a look without any change would be wasted on."""

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._listen())
            tasks.create_task(self._begin())
            for _ in range(self._workers):
                tasks.create_task(self._work())

    async def _listen(self) -> None:
        async for key in self._world.changes():
            if self._leads.is_set():
                self.queue.add(key)

    async def _begin(self) -> None:
        await self._leads.wait()
        for key in self._world.keys():  # noqa: SIM118 (a world is no mapping)
            self.queue.add(key)
        while True:
            await asyncio.sleep(RESYNC_SECONDS)
            for key in set(self._world.keys()) - self._settled:
                self.queue.add_after(key, random.uniform(0, RESYNC_SECONDS / 2))  # noqa: S311

    async def _work(self) -> None:
        while True:
            key = await self.queue.get()
            try:
                await self._reconcile(key)
            finally:
                self.queue.done(key)

    async def _reconcile(self, key: Key) -> None:
        current_job.set(key)
        began = time.monotonic()
        failed = False
        self._settled.discard(key)
        try:
            decision = await reconcile(self._world, key, self._clock())
        except Exception as error:
            failed = True
            delay = self.queue.add_failed(key)
            log.exception("Could not be reconciled (%s); again in %.1f s.", error or type(error).__name__, delay)
        else:
            if decision.backs_off:
                self.queue.add_failed(key)
            else:
                self.queue.succeeded(key)
            if decision.settled:
                self._settled.add(key)
            if decision.recheck_after is not None:
                self.queue.add_after(key, decision.recheck_after)
        finally:
            self._observed(time.monotonic() - began, failed)
