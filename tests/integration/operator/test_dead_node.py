"""What the status advises for a pod on a dead node, pasted into a shell, frees the run on a real API server."""

from __future__ import annotations

import asyncio
import contextlib
import re
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from finetune_operator.decide import decide, stopping
from finetune_operator.reconcile import reconcile
from finetune_operator.worlds.kube.client import Client
from finetune_operator.worlds.kube.manifest import Endpoint
from finetune_operator.worlds.kube.world import KubeWorld
from finetune_operator.worlds.protocol import Key, StopAttempt
from tests.cluster.api import STRATEGIC_MERGE_PATCH, ApiError, Object
from tests.cluster.control_plane import CONTROLLERS, ControlPlane
from tests.cluster.fixtures import REPOSITORY, namespace_of_its_own
from tests.cluster.kubelet import Fate, fail, run_on
from tests.cluster.waiting import eventually
from tests.integration.operator.lab import IMAGE, Account, Lab, Site
from tests.unit.operator.world_conformance import training


@contextlib.contextmanager
def dead_node(lab: Lab) -> Iterator[str]:
    """A node that is not ready; pods bound to it never end by themselves, and never say so."""
    name, over = f"dead-{lab.namespace}", threading.Event()
    ready = {
        "type": "Ready",
        "status": "False",
        "reason": "KubeletNotReady",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    }
    lab.cluster.api.post("/api/v1/nodes", {"metadata": {"name": name}, "status": {"conditions": [ready]}})

    def never(pod: Object) -> Fate:
        over.wait(120)
        return fail(30)

    lab.site.stops[lab.namespace] = never
    lab.pods_are(replace(run_on(), node=name), run_on())
    try:
        yield name
    finally:
        over.set()
        with contextlib.suppress(ApiError):
            lab.cluster.api.delete(f"/api/v1/nodes/{name}")


async def advice(lab: Lab) -> list[str]:
    """The commands in the status as it would read in a minute, by what the API server shows now."""
    async with Client.from_environment() as client:
        world = KubeWorld(client, namespace=lab.namespace, default_image=IMAGE)
        for reflector in (world._trainings, world._attempts):
            await reflector._list()
        world.put(lab.job())
        seen = await world.observe(Key("FineTuneJob", lab.namespace, "demo"))
    gone_by = max(a.gone_by for a in seen.attempts if a.gone_by)
    decision = decide(seen, gone_by + timedelta(minutes=1))
    assert decision.status is not None
    assert decision.status.reason == "NodeLost"
    return re.findall("`([^`]+)`", decision.status.message or "")


@pytest.mark.parametrize("way", ["by force", "by taint"])
async def test_the_advice_for_a_dead_node_frees_the_run(lab: Lab, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", str(lab.account.kubeconfig))
    with dead_node(lab) as node:
        lab.apply(runId="r")
        lab.until(phase="Running")
        [pod] = lab.pods()
        assert pod["spec"]["nodeName"] == node
        lab.kubectl("delete", "pod", pod["metadata"]["name"], "--wait=false")
        eventually(lambda: "deletionTimestamp" in lab.pods()[0]["metadata"])
        forced, taint = await advice(lab)
        command = forced if way == "by force" else taint
        if way == "by force":  # the pod alone would stay: its Job waits for an end that nobody reports
            lab.kubectl("delete", "pod", pod["metadata"]["name"], "--force", "--wait=false")
            lab.stays(lambda: [p["metadata"]["name"] for p in lab.pods()] == [pod["metadata"]["name"]], 2)
        lab.cluster.paste(command)
        eventually(lambda: pod["metadata"]["name"] not in [p["metadata"]["name"] for p in lab.pods()], 40)
        status = eventually(lambda: len(lab.status().get("attempts", [])) == 2 and lab.status(), 40)
        assert status["phase"] == "Running"
        assert len(lab.jobs()) == len(lab.pods()) == 1


def falls_silent(lab: Lab, pod: Object) -> None:
    """What the node lifecycle controller does with the pods of a node that it hears nothing of any more."""
    silent = {"type": "Ready", "status": "False", "lastTransitionTime": "2026-01-01T00:00:00Z"}
    path = f"/api/v1/namespaces/{lab.namespace}/pods/{pod['metadata']['name']}/status"
    lab.cluster.api.patch(path, {"status": {"conditions": [silent]}}, STRATEGIC_MERGE_PATCH)


@contextlib.asynccontextmanager
async def operator_here(lab: Lab) -> AsyncIterator[None]:
    """The operator's own loop in this process, with the rights of its account, so that a test can shorten its patience."""
    async with Client.from_environment() as client:
        world = KubeWorld(client, namespace=lab.namespace, default_image=IMAGE)
        watches = [asyncio.create_task(watch()) for watch in world.watches]
        await world.synced()

        async def loop() -> None:
            while True:
                with contextlib.suppress(ApiError):  # before there is one
                    world.put(await asyncio.to_thread(lab.job))
                await reconcile(world, key_of(lab), client.clock.now())
                await asyncio.sleep(0.2)

        looping = asyncio.create_task(loop())
        try:
            yield
        finally:
            for task in (looping, *watches):
                task.cancel()
            await asyncio.gather(looping, *watches, return_exceptions=True)


def key_of(lab: Lab) -> Key:
    return Key("FineTuneJob", lab.namespace, "demo")


async def test_a_pod_that_is_lost_with_its_node_is_given_up_and_its_run_goes_on(
    own_lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab = own_lab
    monkeypatch.setenv("KUBECONFIG", str(lab.account.kubeconfig))
    monkeypatch.setattr(stopping, "PATIENCE", timedelta(seconds=3))
    with dead_node(lab):
        async with operator_here(lab):
            await asyncio.to_thread(lab.apply, runId="r")
            await asyncio.to_thread(lab.until, phase="Running")
            [pod], [job] = lab.pods(), lab.jobs()
            falls_silent(lab, pod)
            died = time.monotonic()
            lab.kubectl("delete", "pod", pod["metadata"]["name"], "--wait=false", "--grace-period=1")
            status = await asyncio.to_thread(
                eventually, lambda: len(lab.status().get("attempts", [])) == 2 and lab.status(), 40
            )
            took = time.monotonic() - died
    assert status["phase"] == "Running"
    [again], [left] = lab.jobs(), lab.pods()
    assert again["metadata"]["uid"] != job["metadata"]["uid"]
    assert left["metadata"]["name"] != pod["metadata"]["name"]
    first = status["attempts"][0]
    assert (first["reason"], first["countsAs"], first["name"]) == ("NodeLost", "Disruption", pod["metadata"]["name"])
    assert took > 3, took


async def test_a_pod_that_hangs_is_told_to_stop_and_its_job_goes_on_with_another(
    own_lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is told by the operator alone, as its process stands still; another pod of that name would be left alone."""
    lab = own_lab
    monkeypatch.setenv("KUBECONFIG", str(lab.account.kubeconfig))
    lab.site.stops[lab.namespace] = lambda pod: fail(137, "")
    async with Client.from_environment() as client:
        world = KubeWorld(client, namespace=lab.namespace, default_image=IMAGE)
        watches = [asyncio.create_task(watch()) for watch in world.watches]
        await world.synced()
        world.progress_to = Endpoint("https://localhost/progress", "nobody")

        async def look() -> None:
            world.put(await asyncio.to_thread(lab.job))
            await reconcile(world, key_of(lab), client.clock.now())

        async def looks_until(holds: Callable[[], Any]) -> Any:
            async with asyncio.timeout(40):
                while not (found := await asyncio.to_thread(holds)):
                    await look()
                    await asyncio.sleep(0.1)
                return found

        await asyncio.to_thread(lab.apply, runId="r", progressDeadlineSeconds=10)
        await looks_until(lambda: lab.status().get("phase") == "Running")
        [pod], [job] = lab.pods(), lab.jobs()
        name = pod["metadata"]["name"]
        world.hear(key_of(lab), name, training(5))
        assert await world.act(key_of(lab), StopAttempt(name, "another")) is None
        await looks_until(lambda: "progress" in lab.status())
        assert "deletionTimestamp" not in lab.pods()[0]["metadata"]
        status = await looks_until(lambda: len(lab.status().get("attempts", [])) == 2 and lab.status())
        for watch in watches:
            watch.cancel()
        await asyncio.gather(*watches, return_exceptions=True)
    first = status["attempts"][0]
    assert (first["reason"], first["countsAs"]) == ("TrainingStalled", "Failure")
    said = re.match(rf"{name} on node node-1 has said nothing for (\d+) seconds", first["message"])
    assert said and int(said[1]) >= 15, first["message"]
    assert lab.jobs()[0]["metadata"]["uid"] == job["metadata"]["uid"]


@pytest.fixture
def watched_nodes() -> Iterator[ControlPlane]:
    """A control plane that looks after nodes, and gives one up after eight seconds of silence instead of fifty."""
    controllers = (*CONTROLLERS, "node-lifecycle-controller", "taint-eviction-controller")
    patience = ("--node-monitor-grace-period=8s", "--node-monitor-period=1s")
    manifests = sorted((REPOSITORY / "crds").glob("*.yaml"))
    with ControlPlane(controllers=controllers, manifests=manifests, controller_manager_arguments=patience) as cluster:
        yield cluster


@pytest.mark.soak
@pytest.mark.timeout(600)
async def test_from_the_death_of_a_node_to_the_next_attempt(
    watched_nodes: ControlPlane, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the node lifecycle controller's own hand: its silence, the taint, a second of tolerance instead of 60, two minutes in which a pod may
    save, five seconds of patience instead of five minutes. What remains is what all of that takes by itself."""
    monkeypatch.setattr(stopping, "PATIENCE", timedelta(seconds=5))
    given = 8 + 1 + 120 + 5
    tolerations = [
        {"key": f"node.kubernetes.io/{why}", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 1}
        for why in ("unreachable", "not-ready")
    ]
    with namespace_of_its_own(watched_nodes) as namespace:
        site = Site(watched_nodes)
        lab = Lab(site, namespace, Account(watched_nodes, namespace))
        monkeypatch.setenv("KUBECONFIG", str(lab.account.kubeconfig))
        over = threading.Event()

        def never(pod: Object) -> Fate:
            over.wait(400)
            return fail(30)

        site.stops[namespace] = never
        lab.pods_are(replace(run_on(), node="dead"), run_on())
        with site.kubelet, healthy(watched_nodes, "node-1"):
            try:
                async with operator_here(lab):
                    watched_nodes.api.post(
                        "/api/v1/nodes", {"metadata": {"name": "dead"}, "status": {"conditions": [heartbeat()]}}
                    )
                    died = time.monotonic()  # that was its last word
                    await asyncio.to_thread(lab.apply, runId="r", pod={"tolerations": tolerations})
                    said = await asyncio.to_thread(lab.until, reason="NodeLost", seconds=60)
                    told = time.monotonic() - died
                    await asyncio.to_thread(eventually, lambda: len(lab.status().get("attempts", [])) == 2, given + 30)
                    took = time.monotonic() - died
            finally:
                over.set()
    print(
        f"said after {told:.0f} s; the next attempt ran {took:.0f} s after the node fell silent, of which {given} s are what is set"
    )
    assert "has not been heard of since" in said["message"]


def heartbeat() -> Object:
    """What a node says of itself now and then."""
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return {"type": "Ready", "status": "True", "reason": "KubeletReady", "lastHeartbeatTime": now}


@contextlib.contextmanager
def healthy(cluster: ControlPlane, node: str) -> Iterator[None]:
    """It goes on saying that it is there: of a cluster whose nodes are all silent the controller takes itself to be cut off."""
    over = threading.Event()

    def beat() -> None:
        while not over.wait(2):
            with contextlib.suppress(ApiError):
                said = {"status": {"conditions": [heartbeat()]}}
                cluster.api.patch(f"/api/v1/nodes/{node}/status", said, STRATEGIC_MERGE_PATCH)

    beating = threading.Thread(target=beat)
    beating.start()
    try:
        yield
    finally:
        over.set()
        beating.join()
