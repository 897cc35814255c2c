"""One operator at work: it watches, acts as long as it leads, and steps down when it is told to stop."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import Collection
from typing import NoReturn

from finetune_operator.controller import Controller
from finetune_operator.handlers import first, stop_at_signals, watch_jobs
from finetune_operator.metrics import Metrics, Standing
from finetune_operator.serve import serving
from finetune_operator.worlds.kube.client import TROUBLE, Client
from finetune_operator.worlds.kube.hearing import ProgressOptions, hear
from finetune_operator.worlds.kube.kind import served
from finetune_operator.worlds.kube.leadership import Alone, Leadership
from finetune_operator.worlds.kube.platform import DEFAULTS, Platform
from finetune_operator.worlds.kube.progress_server import PATH
from finetune_operator.worlds.kube.relay import Relay
from finetune_operator.worlds.kube.world import KubeWorld

log = logging.getLogger(__name__)

SWEEP_SECONDS = 600.0
FOLLOW_SECONDS = 60.0
DRAIN_SECONDS = 10.0
"""For the reconciles under way, when told to stop."""


class Operator:
    """Of one cluster, or of one namespace of it. With a Lease, by its namespace and name, it acts only as long as it holds that; until
    then it watches."""

    def __init__(
        self,
        client: Client,
        *,
        namespace: str | None,
        trainer_image: str,
        platform: Platform = DEFAULTS,
        progress: ProgressOptions | None = None,
        lease: tuple[str, str] | None = None,
    ) -> None:
        self._client = client
        self._namespace = namespace
        self._progress = progress
        self._stop, self._acts = asyncio.Event(), asyncio.Event()
        self._acting: list[asyncio.Task[None]] = []
        """What only whoever leads does, and gives up before it gives the Lease back."""
        self._leadership = Leadership(client, *lease, end_at_once) if lease else Alone()
        self._metrics = Metrics(
            depth=lambda: len(self._controller.queue),
            watch_ages=lambda: self._world.watch_ages(),
            standings=lambda: map(Standing._make, self._world.standings()),
            leads=lambda: self._leadership.leads,
        )
        client.asked = self._metrics.asked
        self._world = KubeWorld(
            client, namespace=namespace, default_image=trainer_image, platform=platform, written=self._metrics.written
        )
        self._world.ensure_leading = self._leadership.ensure
        self._controller = Controller(
            self._world, clock=client.clock.now, observed=self._metrics.reconciled, leads=self._acts
        )
        self._relay = Relay(self._world, self._leadership, progress.hosts[0], PATH) if progress else None

    async def run(self, listen: str) -> None:
        """Until a signal to end arrives or a part of the operator breaks, which is raised. Its own pages are at `listen`."""
        async with self._client, serving(listen, self._metrics, self._world.dead_watches, self._unready) as port:
            log.info("Serving /healthz, /readyz and /metrics on port %d.", port)
            parts = [asyncio.create_task(part()) for part in (*self._world.watches, self._world.pulse, self._sweep)]
            hearing, stepping_down = asyncio.create_task(self._hear_trainers()), asyncio.create_task(self._step_down())
            stop_at_signals(self._stop)  # until kopf takes over
            try:
                await first(self._all_is_there(), self._stop.wait(), *parts)
                if not self._stop.is_set():
                    begun = (self._leadership.run, self._begin_to_act, self._controller.run)
                    self._acting += [asyncio.create_task(part()) for part in begun]
                    parts += self._acting
                    await asyncio.sleep(0)  # its workers exist before kopf counts the tasks that are not its own
                    for part in parts:
                        part.add_done_callback(lambda _: self._stop.set())
                    where = f"namespace {self._namespace}" if self._namespace else "all namespaces"
                    log.info("Watching FineTuneJobs in %s.", where)
                    if self._progress is None:
                        log.info("How far trainings are is not shown: --progress-url is not given.")
                    await watch_jobs(self._world, self._client, namespace=self._namespace, stop=self._stop)
            finally:
                broken = [part for part in parts if part.done() and not part.cancelled()]
                self._stop.set()
                await stepping_down
                for part in (*parts, hearing):
                    part.cancel()
                await asyncio.gather(*parts, hearing, return_exceptions=True)
            for part in broken:
                part.result()
        log.info("Stopped. Trainings go on without the operator.")

    # -- from the start --------------------------------------------------------------------------------------------

    async def _all_is_there(self) -> None:
        await self._world.synced()  # before that, children would seem to be missing
        await served(self._client, self._namespace)

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            try:
                await self._world.drop_ghosts()
            except TROUBLE as error:
                log.warning("FineTuneJobs could not be listed: %s", error or type(error).__name__)

    async def _hear_trainers(self) -> None:
        if self._progress is None or self._relay is None:
            return
        await self._world.synced()  # before that, every pod would be a stranger
        try:
            await hear(self._world, self._client, self._progress, self._relay, self._leadership, self._metrics.posted)
        except Exception:
            log.exception("Trainers are not heard any more. Their jobs go on.")

    def _unready(self, seconds: float) -> Collection[str]:
        return [*self._world.unready(seconds), *filter(None, [self._leadership.away()])]

    # -- to act, and to let another one act ------------------------------------------------------------------------

    async def _begin_to_act(self) -> None:
        """Never ends, as the end of a part is the operator's."""
        elected = self._leadership.elected
        while not elected.is_set():
            self._world.follow()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(FOLLOW_SECONDS):
                    await elected.wait()
        if isinstance(self._leadership, Leadership):
            self._world.lead()
        if self._relay:
            self._relay.lead()
        self._acts.set()
        await asyncio.Event().wait()

    async def _step_down(self) -> None:
        """Once told to stop: what is under way ends, and then the Lease is another one's."""
        await self._stop.wait()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(DRAIN_SECONDS):
                await self._controller.queue.drain()
        for part in self._acting:
            part.cancel()
        await asyncio.gather(*self._acting, return_exceptions=True)
        await self._leadership.resign()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(DRAIN_SECONDS):
                await self._world.all_told(hurry=True)  # of what is written already, whoever leads by now


def end_at_once(why: str) -> NoReturn:
    """Another operator leads, or soon will: nothing that is under way here may be written any more."""
    log.error("This operator does not lead any longer, and so it ends: %s.", why)
    logging.shutdown()
    os._exit(1)
