"""Kopf, as the host of the watch of FineTuneJobs: what it tells is handed on, and nothing is decided here.

Only `on.event`: such handlers write no annotation and no finalizer, so a job can be deleted while the operator is down.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import kopf

from finetune_api import GROUP, KIND, PLURAL, VERSION
from finetune_operator.worlds.kube.client import Client
from finetune_operator.worlds.kube.world import KubeWorld
from finetune_operator.worlds.protocol import Key

WATCH_SECONDS = 240
SILENCE = 90.0


class _NothingRemembered(kopf.DiffBaseStorage):
    """No handler asks what changed since when, so nothing is kept for the answer: a third less CPU for each event."""

    def build(self, **_: Any) -> kopf.BodyEssence:
        return kopf.BodyEssence({})

    def fetch(self, **_: Any) -> kopf.BodyEssence | None:
        return None

    def store(self, **_: Any) -> None:
        pass


async def watch_jobs(world: KubeWorld, client: Client, *, namespace: str | None, stop: asyncio.Event) -> None:
    """Feed `world` with FineTuneJobs until `stop` is set or a signal to end arrives."""
    registry = kopf.OperatorRegistry()

    @kopf.on.login(registry=registry)
    async def login(**_: Any) -> kopf.AiohttpSession:
        return kopf.AiohttpSession(server=client.server, aiohttp_session=client.new_session())

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
        stop.set()  # after a signal kopf would give its own waiter for this flag five seconds to end

    await kopf.operator(
        registry=registry,
        settings=settings(),
        clusterwide=namespace is None,
        namespaces=[namespace] if namespace else [],
        stop_flag=stop,
    )


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
    chosen.watching.inactivity_timeout = SILENCE
    chosen.watching.chunk_size = 500
    chosen.networking.request_timeout = 30
    return chosen
