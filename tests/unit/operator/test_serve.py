"""/healthz, /readyz and /metrics tell the truth."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection

import aiohttp
import pytest

from finetune_operator.metrics import Metrics, Standing
from finetune_operator.serve import OLDEST_WATCH, serving
from finetune_operator.worlds.kube.heard import Heard


@pytest.fixture
async def ages() -> dict[str, float]:
    return {"finetunejobs": 1.0, "jobs": 2.0, "pods": 3.0}


@pytest.fixture
async def missing() -> list[str]:
    return []


@pytest.fixture
async def base(ages: dict[str, float], missing: list[str]) -> AsyncIterator[str]:
    metrics = Metrics(
        depth=lambda: 7,
        watch_ages=lambda: ages,
        standings=lambda: [Standing("Running", "Training", 1.0)] * 2 + [Standing("Failed", "Internal", 1.0)],
    )
    metrics.reconciled(0.01, failed=False)
    metrics.reconciled(0.02, failed=True)

    def dead(seconds: float) -> dict[str, float]:
        return {kind: age for kind, age in ages.items() if age > seconds}

    async with serving("127.0.0.1:0", metrics, dead, lambda seconds: missing) as port:
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


async def test_an_operator_is_ready_unless_there_is_something_that_it_does_not_see(
    base: str, missing: list[str]
) -> None:
    missing += ["nothing was heard yet from the watch of pods", "the watch of jobs has been silent for 500 s"]
    assert await get(f"{base}/readyz") == (503, f"{missing[0]}; {missing[1]}\n")
    missing.clear()
    assert await get(f"{base}/readyz") == (200, "ok\n")


# ----------------------------------------------------------------------------------------- what is dead, and what is away

KINDS = ["finetunejobs", "jobs", "pods"]


class Life:
    """What is heard, minute by minute: of each watch once a minute while it lives, as bookmarks come."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.heard = Heard(lambda: self.now)

    def minutes(
        self, count: int, *, live: Collection[str] = KINDS, refused: Collection[str] = (), away: bool = False
    ) -> None:
        for _ in range(2 * count):
            self.now += 30
            for kind in live:
                self.heard.mark(kind)
            for kind in refused:
                self.heard.answered(kind)
            if away:
                self.heard.not_reached("Connection refused")
            else:
                self.heard.reached()

    def dead(self) -> list[str]:
        return list(self.heard.dead(OLDEST_WATCH))


@pytest.fixture
def life() -> Life:
    life = Life()
    for kind in KINDS:
        life.heard.begin(kind)
    life.minutes(10)
    return life


@pytest.mark.parametrize("kind", KINDS)
def test_a_watch_that_nobody_opens_again_is_dead_after_seven_minutes_of_answers(life: Life, kind: str) -> None:
    others = [other for other in KINDS if other != kind]
    life.minutes(7, live=others)
    assert life.dead() == []
    life.minutes(1, live=others)
    assert life.dead() == [kind]
    life.minutes(1)
    assert life.dead() == []


def test_if_all_are_dead_while_the_api_server_answers_a_restart_helps(life: Life) -> None:
    life.minutes(8, live=[])
    assert life.dead() == KINDS


@pytest.mark.parametrize("minutes", [5, 8, 60, 600])
def test_no_watch_is_dead_while_the_api_server_is_away_or_for_seven_minutes_after(life: Life, minutes: int) -> None:
    life.minutes(minutes, live=[], away=True)
    assert life.dead() == []
    assert life.heard.away() == f"the API server has not answered for {60 * minutes:.0f} s: Connection refused"
    life.minutes(7, live=["jobs"])
    assert life.dead() == []
    assert life.heard.away() == ""
    life.minutes(1, live=["jobs"])
    assert life.dead() == ["finetunejobs", "pods"]


def test_a_watch_that_is_asked_for_and_refused_is_not_dead(life: Life) -> None:
    """A right that is missing, or an API server with too much to do: it would not be another one after a restart."""
    life.minutes(60, live=["finetunejobs", "jobs"], refused=["pods"])
    assert life.dead() == []
    assert life.heard.age("pods") == 3600


def test_a_kind_that_is_not_there_yet_is_not_watched_and_so_not_dead(life: Life) -> None:
    life.heard.end("finetunejobs")
    life.minutes(60, live=["jobs", "pods"])
    assert life.dead() == []
    life.heard.begin("finetunejobs")
    life.minutes(7, live=["jobs", "pods"])
    assert life.dead() == []
    life.minutes(1, live=["jobs", "pods"])
    assert life.dead() == ["finetunejobs"]


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
