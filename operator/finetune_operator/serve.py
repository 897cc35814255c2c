"""/healthz, /readyz and /metrics.

Unhealthy is an operator with a dead watch: it works on without seeing anything, no other sign tells, and a restart helps. Where a
restart would not help, since it is the API server that is away or will not tell, it is only not ready.
"""

from __future__ import annotations

import asyncio
from collections import Counter as Count
from collections.abc import AsyncIterator, Callable, Collection, Iterable
from contextlib import asynccontextmanager

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from finetune_api.status import Phase

OLDEST_WATCH = 420.0
"""Seconds: a watch lasts at most five minutes and is then opened again; none for longer means that nobody does."""

Dead = Callable[[float], dict[str, float]]
"""The kinds that nobody watches any more, by their seconds of silence beyond these."""
Unready = Callable[[float], Collection[str]]
"""Why the operator sees less than there is, in words."""


class _Now(Collector):
    """What is read off at the moment of the question."""

    def __init__(
        self,
        depth: Callable[[], int],
        watch_ages: Callable[[], dict[str, float]],
        phases: Callable[[], Collection[str]],
    ) -> None:
        self._depth = depth
        self._watch_ages = watch_ages
        self._phases = phases

    def collect(self) -> Iterable[GaugeMetricFamily]:
        yield GaugeMetricFamily("finetune_queue_depth", "Jobs waiting for a worker.", value=self._depth())
        ages = GaugeMetricFamily(
            "finetune_watch_age_seconds",
            "Seconds since the watch of a kind last showed that it lives.",
            labels=["kind"],
        )
        for kind, age in self._watch_ages().items():
            ages.add_metric([kind], age)
        yield ages
        jobs = GaugeMetricFamily("finetune_jobs", "FineTuneJobs by phase.", labels=["phase"])
        counts = Count(self._phases())
        for phase in Phase:
            jobs.add_metric([phase], counts[phase])
        yield jobs


class Metrics:
    """The operator's numbers, in a registry of their own."""

    def __init__(
        self,
        *,
        depth: Callable[[], int],
        watch_ages: Callable[[], dict[str, float]],
        phases: Callable[[], Collection[str]],
    ) -> None:
        self.registry = CollectorRegistry()
        self.registry.register(_Now(depth, watch_ages, phases))
        self._seconds = Histogram("finetune_reconcile_seconds", "Time of one reconcile.", registry=self.registry)
        self._posts = Counter(
            "finetune_progress_posts",
            "Reports of trainers by result: accepted, or why they were refused.",
            ["result"],
            registry=self.registry,
        )
        self._reconciles = Counter("finetune_reconciles", "Reconciles by result.", ["result"], registry=self.registry)

    def posted(self, result: str) -> None:
        self._posts.labels(result).inc()

    def observe(self, seconds: float, failed: bool) -> None:
        self._seconds.observe(seconds)
        self._reconciles.labels("error" if failed else "success").inc()


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
