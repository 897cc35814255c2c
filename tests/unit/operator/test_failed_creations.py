"""Events are read from etcd as a whole, so they are read rarely, for all Jobs of a namespace at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest
from kubernetes.client import Configuration

from finetune_api import KIND
from finetune_operator.worlds.kube import failed_creations as module, names
from finetune_operator.worlds.kube.client import Client, Object
from finetune_operator.worlds.kube.failed_creations import FailedCreations
from finetune_operator.worlds.kube.world import KubeWorld
from finetune_operator.worlds.protocol import Key
from tests.unit.operator.api_server import ApiServer, Collection, finetunejob

JOBS = 50
FULL = 'Error creating: pods "demo-r-x" is forbidden: exceeded quota: full, requested: pods=1'


def job(namespace: str, number: int) -> Object:
    owner = {"kind": KIND, "name": f"demo-{number}", "uid": f"uid-{namespace}-{number}", "controller": True}
    meta = {
        "name": f"demo-{number}-r",
        "namespace": namespace,
        "uid": f"job-{namespace}-{number}",
        "resourceVersion": "5",
    }
    return {
        "metadata": {
            **meta,
            "creationTimestamp": "2026-01-01T00:00:00Z",
            "labels": {names.RUN_LABEL: "r", names.UID_LABEL: owner["uid"]},
            "ownerReferences": [owner],
        },
        "spec": {},
    }


def event(uid: str, created: str = "2026-01-01T00:00:01Z", **fields: object) -> Object:
    meta = {"name": f"{uid}.1", "namespace": "a", "creationTimestamp": created}
    return {"metadata": meta, "involvedObject": {"kind": "Job", "uid": uid}, "message": FULL, **fields}


@pytest.fixture
def server() -> ApiServer:
    return ApiServer({names.core_events(namespace): Collection() for namespace in "ab"})


@pytest.fixture
async def client(server: ApiServer) -> AsyncIterator[Client]:
    configuration = Configuration()
    async with server.serving() as configuration.host, Client(configuration) as client:
        yield client


@pytest.fixture
def world(client: Client) -> KubeWorld:
    world = KubeWorld(client, namespace=None, default_image="i")
    for namespace in "ab":
        for number in range(JOBS):
            meta = {"name": f"demo-{number}", "namespace": namespace, "uid": f"uid-{namespace}-{number}"}
            ours = finetunejob(runId="r")
            world.put(ours | {"metadata": ours["metadata"] | meta})
            world._trainings.put(job(namespace, number))
    return world


async def refusals(world: KubeWorld, namespace: str) -> list[str | None]:
    """What all jobs of a namespace are told when they are looked at at once."""
    keys = [Key(KIND, namespace, f"demo-{number}") for number in range(JOBS)]
    seen = await asyncio.gather(*(world.observe(key) for key in keys))
    return [training.refusal and training.refusal.reason for observed in seen for training in observed.trainings]


def lists(server: ApiServer) -> list[int]:
    return [server.collections[names.core_events(namespace)].lists for namespace in "ab"]


async def test_fifty_jobs_without_pods_share_one_list_a_namespace(
    server: ApiServer, world: KubeWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.collections[names.core_events("a")].things = [event(f"job-a-{number}") for number in range(JOBS)]
    pages = JOBS // 2  # of the stand-in, which gives two things a page
    for _ in range(3):
        assert await refusals(world, "a") == ["QuotaExceeded"] * JOBS
        assert await refusals(world, "b") == [None] * JOBS
    assert lists(server) == [pages, 1]
    now = module.time.monotonic()
    monkeypatch.setattr(module.time, "monotonic", lambda: now + module.INTERVAL + 1)
    await refusals(world, "a")
    assert lists(server) == [2 * pages, 1]


async def test_events_that_cannot_be_read_keep_nobody_from_anything(
    server: ApiServer, world: KubeWorld, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """What was known stays, so that no status flickers."""
    events = server.collections[names.core_events("a")]
    events.things = [event("job-a-0")]
    expected = ["QuotaExceeded", *[None] * (JOBS - 1)]
    assert await refusals(world, "a") == expected
    now = module.time.monotonic()
    monkeypatch.setattr(module.time, "monotonic", lambda: now + module.INTERVAL + 1)
    events.refuse_lists = 100
    assert await refusals(world, "a") == expected
    assert events.lists == 2
    [line] = caplog.messages
    assert line == "The events of a could not be listed: 503 : try later"


MIDNIGHT = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    "skew", [timedelta(), timedelta(minutes=10), timedelta(minutes=-10), timedelta(days=-1)], ids=str
)
@pytest.mark.parametrize("kind", ["counted", "series", "once"])
async def test_an_event_is_dated_by_the_api_servers_clock_whatever_its_writers_says(
    server: ApiServer, client: Client, kind: str, skew: timedelta
) -> None:
    """It happened first at 00:00:01 and, unless once, again at 00:01:01."""

    def theirs(seconds: int) -> str:
        return (MIDNIGHT + timedelta(seconds=seconds) + skew).isoformat()

    fields: dict[str, dict[str, object]] = {
        "counted": {"firstTimestamp": theirs(1), "lastTimestamp": theirs(61)},
        "series": {"eventTime": theirs(1), "series": {"lastObservedTime": theirs(61)}},
        "once": {"firstTimestamp": theirs(1), "lastTimestamp": theirs(1), "eventTime": None},
    }
    server.collections[names.core_events("a")].things = [event("job", **fields[kind])]
    found = await FailedCreations(client).of("a", "job")
    assert found is not None
    assert found.time == MIDNIGHT + timedelta(seconds=1 if kind == "once" else 61)


async def test_the_latest_of_several_events_counts(server: ApiServer, client: Client) -> None:
    late, early = "2026-01-01T00:02:00Z", "2026-01-01T00:01:00Z"
    things = [event("job", late, message="late"), event("job", early, message="early"), event("other", message="other")]
    server.collections[names.core_events("a")].things = things
    found = await FailedCreations(client).of("a", "job")
    assert found is not None
    assert found.message == "late"
