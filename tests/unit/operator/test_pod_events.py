"""Events of pods are asked for rarely: of those that wait in silence, one after another, and each again only after a while."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

import pytest
from aiohttp import web
from kubernetes.client import Configuration

from finetune_api import KIND
from finetune_operator.worlds.kube import names, pod_events as module
from finetune_operator.worlds.kube.client import Client, Object
from finetune_operator.worlds.kube.pod_events import PodEvents
from finetune_operator.worlds.kube.world import KubeWorld
from finetune_operator.worlds.protocol import Awaited, Key, Observed
from tests.unit.operator.api_server import ApiServer, Collection, finetunejob
from tests.unit.operator.test_event_words import event
from tests.unit.operator.waiting import until

KEY, OTHER = Key(KIND, "ns", "demo"), Key(KIND, "ns", "other")


class Events(Collection):
    """Knows when it was asked for those of which pod."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[tuple[float, str]] = []

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.asked.append((asyncio.get_running_loop().time(), request.query["fieldSelector"]))
        return await super().answer(request)


@pytest.fixture
def events() -> Events:
    return Events()


@pytest.fixture
async def client(events: Events) -> AsyncIterator[Client]:
    configuration = Configuration()
    server = ApiServer({names.core_events("ns"): events})
    async with server.serving() as configuration.host, Client(configuration) as client:
        yield client


@contextlib.asynccontextmanager
async def asking(client: Client, hear: Callable[[Key], None] = lambda key: None) -> AsyncIterator[PodEvents]:
    asked = PodEvents(client, hear)
    running = asyncio.create_task(asked.run())
    yield asked
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """A second is a hundredth."""
    for name in ("PATIENCE", "INTERVAL", "PACE"):
        monkeypatch.setattr(module, name, getattr(module, name) / 100)


async def test_a_pod_that_waits_for_longer_than_usual_is_asked_about_and_its_job_hears_what_is_new(
    client: Client, events: Events
) -> None:
    heard: list[Key] = []
    events.things = [event("FailedMount", 'MountVolume.SetUp failed for volume "a" : not found')]
    async with asking(client, heard.append) as asked:
        began = asyncio.get_running_loop().time()
        assert asked.of(KEY, {"a": "n"}) == {}
        await until(lambda: heard == [KEY])
        assert events.asked[0][0] - began >= module.PATIENCE
        told = asked.of(KEY, {"a": "n"})["a"]
        assert told.problem is not None
        await until(lambda: events.lists >= 3)
        assert heard == [KEY], "what was said before is no news"
        events.things = [event("Pulled", "…", 9)]
        await until(lambda: heard == [KEY, KEY])
        assert asked.of(KEY, {"a": "n"})["a"].problem is None


async def test_a_pod_that_waits_no_more_is_not_asked_about(client: Client, events: Events) -> None:
    async with asking(client) as asked:
        asked.of(KEY, {"a": "n"})
        asked.of(KEY, {})
        await asyncio.sleep(0.4)
        assert events.lists == 0
        assert (asked._pods, dict(asked._of)) == ({}, {})


async def test_a_pod_that_got_a_node_waits_for_something_else(client: Client, events: Events) -> None:
    lists_until_told: list[int] = []
    async with asking(client, lambda key: lists_until_told.append(events.lists)) as asked:
        asked.of(KEY, {"a": None})
        await until(lambda: "a" in asked.of(KEY, {"a": None}))
        assert asked.of(KEY, {"a": "n"}) == {}
        await until(lambda: "a" in asked.of(KEY, {"a": "n"}))
    assert lists_until_told == [1, 2]


async def test_a_hundred_pods_are_asked_about_two_a_second_and_each_has_its_turn(
    client: Client, events: Events, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PACE", 0.01)
    monkeypatch.setattr(module, "INTERVAL", 0.1)  # less than a round takes
    pods: dict[str, str | None] = {f"pod-{n}": "n" for n in range(100)}
    async with asking(client) as asked:
        asked.of(KEY, pods)
        began = asyncio.get_running_loop().time()
        await until(lambda: len(asked.of(KEY, pods)) == 100)
        assert asyncio.get_running_loop().time() - began >= 100 * module.PACE
    assert len({pod for _, pod in events.asked[:100]}) == 100, "nobody was asked about twice before all were once"


async def test_a_list_that_fails_leaves_what_was_known(
    client: Client, events: Events, caplog: pytest.LogCaptureFixture
) -> None:
    events.things = [event("Pulling", 'Pulling image "x"')]
    async with asking(client) as asked:
        await until(lambda: "a" in asked.of(KEY, {"a": "n"}))
        events.refuse_lists = 2
        await until(lambda: events.refuse_lists == 0)
        assert asked.of(KEY, {"a": "n"})["a"].on_its_way is not None
    assert caplog.messages[0] == "The events of ns could not be listed: 503 : try later"


# ---------------------------------------------------------------------------------------------------------- in the world


def pod(node: str | None = "n", **status: object) -> Object:
    meta = {"name": "demo-r-x", "namespace": "ns", "uid": "a", "resourceVersion": "7"}
    labels = {names.JOB_LABEL: "demo", names.UID_LABEL: "uid", names.RUN_LABEL: "r"}
    return {
        "metadata": {**meta, "creationTimestamp": "2026-01-01T00:00:00Z", "labels": labels},
        "spec": {"nodeName": node} if node else {},
        "status": {"phase": "Pending", **status},
    }


def unschedulable(message: str) -> Object:
    condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}
    return pod(None, conditions=[condition])


async def seen_with(client: Client, obj: Object) -> Observed:
    """What the world observes once it has asked for the events."""
    world = KubeWorld(client, namespace=None, default_image="i")
    world.put(finetunejob(runId="r"))
    world._attempts.put(obj)
    asking = asyncio.create_task(world._pod_events.run())
    try:
        await world.observe(KEY)
        await until(lambda: all(p.told for p in world._pod_events._pods.values()))
        return await world.observe(KEY)
    finally:
        asking.cancel()


async def test_what_the_scheduler_says_stands_beside_what_the_autoscaler_does(client: Client, events: Events) -> None:
    events.things = [event("NotTriggerScaleUp", "pod didn't trigger scale-up: 1 max node group size reached")]
    [attempt] = (
        await seen_with(client, unschedulable("0/1 nodes are available: 1 Insufficient nvidia.com/gpu."))
    ).attempts
    assert attempt.waiting is not None
    assert attempt.waiting.message == (
        "No node can take the pod: 0/1 nodes are available: 1 Insufficient nvidia.com/gpu; "
        "no node will be added for it: 1 max node group size reached"
    )  # fmt: skip
    events.things = [event("FailedResourceClaimCreation", "PodResourceClaim gpu: not found")]
    [attempt] = (await seen_with(client, unschedulable("0/1 nodes are available"))).attempts
    assert attempt.waiting is not None
    assert attempt.waiting.message == "No node can take the pod: 0/1 nodes are available", "by now there is a claim"
    [attempt] = (await seen_with(client, pod(None))).attempts
    assert attempt.waiting is not None
    assert attempt.waiting.reason == "ReferenceMissing"
    events.things = [event("TriggeredScaleUp", "pod triggered scale-up: [{gpu 0->1 (max: 2)}]")]
    [attempt] = (await seen_with(client, unschedulable("0/1 nodes are available"))).attempts
    assert attempt.on_its_way is not None
    assert attempt.on_its_way.what is Awaited.NODE
    assert attempt.waiting is not None, "where the node does not come, that is still so"


async def test_a_pod_of_which_nobody_says_anything_says_that(client: Client, events: Events) -> None:
    [attempt] = (await seen_with(client, pod(None))).attempts
    assert attempt.initializing == "no scheduler has said anything about it yet"
    [attempt] = (await seen_with(client, pod("n"))).attempts
    assert attempt.initializing == "its node has not said yet that it begins to start it"


async def test_a_pod_that_says_itself_why_it_waits_is_not_asked_about(client: Client, events: Events) -> None:
    state = {"waiting": {"reason": "ErrImagePull", "message": "not found"}}
    await seen_with(client, pod("n", containerStatuses=[{"name": names.CONTAINER, "state": state}]))
    state = {"running": {"startedAt": "2026-01-01T00:00:01Z"}}
    await seen_with(client, pod("n", containerStatuses=[{"name": names.CONTAINER, "state": state}]))
    assert events.lists == 0
