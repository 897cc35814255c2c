"""What the status advises for a pod on a dead node, pasted into a shell, frees the run on a real API server."""

from __future__ import annotations

import contextlib
import re
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta

import pytest

from finetune_operator.decide import decide
from finetune_operator.worlds.kube.client import Client
from finetune_operator.worlds.kube.world import KubeWorld
from finetune_operator.worlds.protocol import Key
from tests.cluster.api import ApiError, Object
from tests.cluster.kubelet import Fate, fail, run_on
from tests.cluster.waiting import eventually
from tests.integration.operator.lab import IMAGE, Lab


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
    """The commands in the status as it would read in an hour, by what the API server shows now."""
    async with Client.from_environment() as client:
        world = KubeWorld(client, namespace=lab.namespace, default_image=IMAGE)
        for reflector in (world._trainings, world._attempts):
            await reflector._list()
        world.put(lab.job())
        seen = await world.observe(Key("FineTuneJob", lab.namespace, "demo"))
    gone_by = max(a.gone_by for a in seen.attempts if a.gone_by)
    decision = decide(seen, gone_by + timedelta(hours=1))
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
