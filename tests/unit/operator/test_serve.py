"""/healthz, /readyz and /metrics tell the truth."""

from __future__ import annotations

from collections.abc import AsyncIterator

import aiohttp
import pytest

from finetune_operator.serve import OLDEST_WATCH, Metrics, serving


@pytest.fixture
async def ages() -> dict[str, float]:
    return {"finetunejobs": 1.0, "jobs": 2.0, "pods": 3.0}


@pytest.fixture
async def unheard() -> list[str]:
    return []


@pytest.fixture
async def base(ages: dict[str, float], unheard: list[str]) -> AsyncIterator[str]:
    metrics = Metrics(
        depth=lambda: 7,
        watch_ages=lambda: ages,
        unheard=lambda: unheard,
        phases=lambda: ["Running", "Running", "Failed"],
    )
    metrics.observe(0.01, failed=False)
    metrics.observe(0.02, failed=True)
    async with serving("127.0.0.1:0", metrics) as port:
        yield f"http://127.0.0.1:{port}"


async def get(url: str) -> tuple[int, str]:
    async with aiohttp.ClientSession() as session, session.get(url) as response:
        return response.status, await response.text()


async def test_fresh_watches_are_healthy(base: str) -> None:
    assert await get(f"{base}/healthz") == (200, "ok\n")


@pytest.mark.parametrize("kind", ["finetunejobs", "jobs", "pods"])
async def test_one_silent_watch_is_unhealthy_and_named(base: str, ages: dict[str, float], kind: str) -> None:
    ages[kind] = OLDEST_WATCH + 1
    status, text = await get(f"{base}/healthz")
    assert status == 503
    assert f"the watch of {kind} has been silent for 421 s" in text


async def test_an_operator_is_ready_once_it_has_heard_from_each_watch(base: str, unheard: list[str]) -> None:
    unheard += ["finetunejobs", "pods"]
    assert await get(f"{base}/readyz") == (503, "nothing was heard yet from the watch of finetunejobs, pods\n")
    unheard.clear()
    assert await get(f"{base}/readyz") == (200, "ok\n")


async def test_metrics_show_queue_reconciles_watches_and_jobs_by_phase(base: str) -> None:
    _, text = await get(f"{base}/metrics")
    for line in (
        "finetune_queue_depth 7.0",
        'finetune_reconciles_total{result="success"} 1.0',
        'finetune_reconciles_total{result="error"} 1.0',
        "finetune_reconcile_seconds_count 2.0",
        'finetune_watch_age_seconds{kind="pods"} 3.0',
        'finetune_jobs{phase="Running"} 2.0',
        'finetune_jobs{phase="Failed"} 1.0',
        'finetune_jobs{phase="Succeeded"} 0.0',
    ):
        assert line in text
