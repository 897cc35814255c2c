"""Kopf, as the host of the watch of FineTuneJobs: what it tells is handed on, and nothing is decided here.

Only `on.event`: such handlers write no annotation and no finalizer, so a job can be deleted while the operator is down.

Kopf ends the operator over an answer that it does not expect. Here it is started again instead: whatever an overloaded API server
or a proxy may answer, training pods are not helped by an operator that is gone.
"""

from __future__ import annotations

import asyncio
import logging
import math
import random
import signal
import time
from collections.abc import Awaitable, Iterable, Iterator
from typing import Any, cast

import kopf

from finetune_api import GROUP, KIND, PLURAL, VERSION
from finetune_operator.worlds.kube.client import FIELD_MANAGER, Client
from finetune_operator.worlds.kube.kind import served
from finetune_operator.worlds.kube.kopf_watch import WatchOfKopf
from finetune_operator.worlds.kube.world import KubeWorld
from finetune_operator.worlds.protocol import Key

log = logging.getLogger(__name__)

WATCH_SECONDS = 240
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 30.0


class _NothingRemembered(kopf.DiffBaseStorage):
    """No handler asks what changed since when, so nothing is kept for the answer: a third less CPU for each event."""

    def build(self, **_: Any) -> kopf.BodyEssence:
        return kopf.BodyEssence({})

    def fetch(self, **_: Any) -> kopf.BodyEssence | None:
        return None

    def store(self, **_: Any) -> None:
        pass


async def watch_jobs(world: KubeWorld, client: Client, *, namespace: str | None, stop: asyncio.Event) -> None:
    """Feed `world` with FineTuneJobs until `stop` is set; a signal to end sets it."""
    pause = FIRST_PAUSE
    while True:
        client.heard.begin(PLURAL)
        began = time.monotonic()
        try:
            await _run_kopf(world, client, namespace, stop)
            return
        except Exception as error:
            client.heard.end(PLURAL)
            pause = FIRST_PAUSE if time.monotonic() - began > LONGEST_PAUSE else pause
            said = getattr(error, "message", None) or str(error) or type(error).__name__
            log.warning("The watch of %s broke (%s); again in %.0f s.", PLURAL, said, pause)
        await first(asyncio.sleep(pause), stop.wait())
        await first(served(client, namespace), stop.wait())
        if stop.is_set():
            return
        pause = min(pause * 2, LONGEST_PAUSE)


def stop_at_signals(stop: asyncio.Event) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)


async def first(*waits: Awaitable[object]) -> None:
    """Until one of them is done; those that were started here are given up."""
    tasks = [asyncio.ensure_future(wait) for wait in waits]
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task, wait in zip(tasks, waits, strict=True):
        if task is not wait:
            task.cancel()


async def _run_kopf(world: KubeWorld, client: Client, namespace: str | None, stop: asyncio.Event) -> None:
    """Once, until `stop` or a signal, which then sets it. Raises what kopf cannot go on with."""
    over = asyncio.Event()  # this run of kopf
    registry = kopf.OperatorRegistry()

    @kopf.on.login(registry=registry)
    async def login(**_: Any) -> kopf.AiohttpSession:
        return kopf.AiohttpSession(server=client.server, aiohttp_session=WatchOfKopf(client, world.knows).new_session())

    @kopf.on.event(GROUP, VERSION, PLURAL, registry=registry)
    async def job_changed(event: kopf.RawEvent, **_: Any) -> None:
        job: Any = event["object"]
        if event["type"] == "DELETED":
            meta = job["metadata"]
            world.drop(Key(KIND, meta["namespace"], meta["name"]), meta["uid"])
        else:
            world.put(job)

    @kopf.on.cleanup(registry=registry)
    async def stopping(**_: Any) -> None:
        over.set()  # after a signal kopf would give its own waiter for this flag five seconds to end

    async def told() -> None:
        await stop.wait()
        over.set()

    telling = asyncio.create_task(told())
    await asyncio.sleep(0)  # it exists before kopf counts the tasks that are not its own
    try:
        before = asyncio.all_tasks()
        tasks = await kopf.spawn_tasks(
            registry=registry,
            settings=settings(),
            # Kopf would else make one of the user's name, and a user that OpenShift chooses has none.
            identity=cast("Any", FIELD_MANAGER),
            clusterwide=namespace is None,
            namespaces=[namespace] if namespace else [],
            stop_flag=over,
        )
        stop_at_signals(stop)  # kopf took them over; so all else ends at once, whatever kopf still waits for
        await kopf.run_tasks(tasks, ignored=before)
        stop.set()
    finally:
        telling.cancel()


class _Backoffs(Iterable[float]):
    """Without end: kopf gives up where the API server is away for longer than they last."""

    def __iter__(self) -> Iterator[float]:
        pause = FIRST_PAUSE
        while True:
            yield pause * random.uniform(0.5, 1.0)  # noqa: S311
            pause = min(pause * 2, LONGEST_PAUSE)


def settings() -> kopf.OperatorSettings:
    chosen = kopf.OperatorSettings()
    chosen.persistence.diffbase_storage = _NothingRemembered()
    chosen.peering.standalone = True
    chosen.scanning.disabled = True  # needs no right to watch CRDs and namespaces; the chart installs the CRD first
    chosen.posting.enabled = False  # our own events are written with the status they announce
    chosen.posting.level = logging.WARNING
    chosen.watching.server_timeout = WATCH_SECONDS
    chosen.watching.client_timeout = WATCH_SECONDS + 30
    chosen.watching.connect_timeout = 10
    # Silence ends a watch in `kopf_watch.py`. Kopf's own timer outlives a watch that it gives up over a 410, and cancels the next one.
    chosen.watching.inactivity_timeout = math.inf
    chosen.watching.chunk_size = 500
    # For so long after its last event, kopf's worker of a job, one for each, keeps that whole: of thousands at the start.
    chosen.queueing.idle_timeout = 0.1
    chosen.networking.request_timeout = 30
    chosen.networking.error_backoffs = _Backoffs()
    chosen.process.ultimate_exiting_timeout = None  # else it would kill the process ten minutes after it had given up
    return chosen
