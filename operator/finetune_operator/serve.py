"""/healthz, /readyz and /metrics.

Unhealthy is an operator with a dead watch: it works on without seeing anything, no other sign tells, and a restart helps. Where a
restart would not help, since it is the API server that is away or will not tell, it is only not ready.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from finetune_operator.metrics import Metrics

OLDEST_WATCH = 420.0
"""Seconds: a watch lasts at most five minutes and is then opened again; none for longer means that nobody does."""

Dead = Callable[[float], dict[str, float]]
"""The kinds that nobody watches any more, by their seconds of silence beyond these."""
Unready = Callable[[float], Collection[str]]
"""Why the operator sees less than there is, in words."""


@asynccontextmanager
async def serving(address: str, metrics: Metrics, dead: Dead, unready: Unready) -> AsyncIterator[int]:
    """Serve at `address` (`host:port` or `:port`) meanwhile; yields the port, which is a free one where 0 was asked for."""

    async def healthz(_: web.Request) -> web.Response:
        said = [f"the watch of {kind} has been silent for {age:.0f} s" for kind, age in dead(OLDEST_WATCH).items()]
        return _ok_unless(said)

    async def readyz(_: web.Request) -> web.Response:
        return _ok_unless(unready(OLDEST_WATCH))

    async def numbers(_: web.Request) -> web.Response:
        return web.Response(body=generate_latest(metrics.registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    app = web.Application()
    app.add_routes([web.get("/healthz", healthz), web.get("/readyz", readyz), web.get("/metrics", numbers)])
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        host, _, port = address.rpartition(":")
        site = web.TCPSite(runner, host.strip("[]") or None, int(port))
        await site.start()
        server = site._server
        assert isinstance(server, asyncio.Server)
        yield server.sockets[0].getsockname()[1]
    finally:
        await runner.cleanup()


def _ok_unless(said: Collection[str]) -> web.Response:
    return web.Response(status=503, text=f"{'; '.join(said)}\n") if said else web.Response(text="ok\n")
