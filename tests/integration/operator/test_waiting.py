"""Why a job waits is told soon, by events on a real API server, and so is a node that falls silent."""

from __future__ import annotations

import time
from typing import Any

import pytest

from finetune_operator.worlds.kube import names
from finetune_operator.worlds.kube.facts import read_attempt
from finetune_operator.worlds.kube.pod_events import INTERVAL, PATIENCE
from finetune_operator.worlds.protocol import AttemptPhase
from tests.cluster.api import STRATEGIC_MERGE_PATCH, Object
from tests.cluster.control_plane import CONTROLLERS, ControlPlane
from tests.cluster.kubelet import NODE, KubeletStandIn, run_on, unschedulable, waits
from tests.cluster.waiting import eventually
from tests.integration.operator.lab import Lab
from tests.unit.operator.story import NO_GPU

WITHIN = PATIENCE + INTERVAL / 2
"""Seconds of a pod's creation: what is not told at the first look is not before the second, an interval later. 18 when nothing else runs."""

WRITTEN: dict[str, tuple[str, str, str, str]] = {
    "volume": ("kubelet", "FailedMount", 'MountVolume.SetUp failed for volume "mesh" : configmap "mesh" not found', "VolumeUnavailable"),
    "disk": ("attachdetach-controller", "FailedAttachVolume", 'Multi-Attach error for volume "pvc-1" Volume is already used', "VolumeUnavailable"),
    "sandbox": ("kubelet", "FailedCreatePodSandBox", 'Failed to create pod sandbox: rpc error: code = Unknown desc = RuntimeHandler "runsc" not supported', "SandboxFailed"),
    "pulling": ("kubelet", "Pulling", 'Pulling image "registry.example/finetune-trainer:test"', "PullingImage"),
    "grows": ("cluster-autoscaler", "TriggeredScaleUp", "pod triggered scale-up: [{gpu 0->1 (max: 2)}]", "ScalingUp"),
    "stays": ("cluster-autoscaler", "NotTriggerScaleUp", "pod didn't trigger scale-up: 1 max node group size reached", "Unschedulable"),
}  # fmt: skip
"""By job: who writes of its pod, with which reason and words, and the reason that the job shows."""
WITHOUT_A_NODE = ("grows", "stays")
WARNED_OF = {"VolumeUnavailable", "SandboxFailed", "Unschedulable"}


def writes(lab: Lab, pod: Object, who: str, reason: str, message: str) -> None:
    """An event about the pod, as client-go's recorder writes it."""
    meta, now = pod["metadata"], time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    about = {"apiVersion": "v1", "kind": "Pod", "namespace": meta["namespace"], "name": meta["name"], "uid": meta["uid"]}  # fmt: skip
    event = {
        "metadata": {"generateName": f"{meta['name']}.", "namespace": meta["namespace"]},
        "involvedObject": about,
        "reason": reason,
        "message": message,
        "source": {"component": who},
        "firstTimestamp": now,
        "lastTimestamp": now,
        "count": 1,
        "type": "Normal" if reason in ("Pulling", "TriggeredScaleUp", "NotTriggerScaleUp") else "Warning",
    }
    lab.cluster.api.post(f"/api/v1/namespaces/{lab.namespace}/events", event)


def test_what_a_pod_waits_for_is_told_from_its_events_at_the_first_look(lab: Lab) -> None:
    """All at once, as it takes the time that it takes."""

    def fate(pod: Object) -> Any:
        name = pod["metadata"]["labels"]["finetune.dev/job"]
        writes(lab, pod, *WRITTEN[name][:3])
        return unschedulable(NO_GPU) if name in WITHOUT_A_NODE else waits("ContainerCreating")

    lab.pods_become(fate)
    for name in WRITTEN:
        lab.apply(name)
    began = time.monotonic()
    for name, (_, _, message, reason) in WRITTEN.items():
        status = lab.until(name, phase="Starting", reason=reason, seconds=WITHIN)
        told = {"pulling": "node-1 pulls the image", "grows": "A node is being added for the pod (gpu 0->1 (max: 2))"}
        told |= {"stays": f"{NO_GPU.rstrip('.')}; no node will be added for it: 1 max node group size reached"}
        words = told.get(name, message)
        if reason != "Unschedulable":  # which it is before the autoscaler speaks
            assert words in status["message"]
        eventually(lambda n=name, w=words: w in lab.status(n)["message"], WITHIN)  # type: ignore[misc]
    print(f"all was told after {time.monotonic() - began:.1f} s")
    assert time.monotonic() - began < WITHIN
    for name, (*_, reason) in WRITTEN.items():
        types = eventually(lambda n=name, r=reason: {kind for kind, of in lab.events(n) if of == r})  # type: ignore[misc]
        assert types == {"Warning" if reason in WARNED_OF else "Normal"}


def becomes_ready(lab: Lab, status: str) -> None:
    """Of the pod, and nothing else: so the node controller says it when a node falls silent, and its kubelet when it is back."""
    [pod] = lab.pods()
    condition = {"type": "Ready", "status": status, "lastTransitionTime": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}  # fmt: skip
    path = f"/api/v1/namespaces/{lab.namespace}/pods/{pod['metadata']['name']}/status"
    lab.cluster.api.patch(path, {"status": {"conditions": [condition]}}, STRATEGIC_MERGE_PATCH)


def test_a_node_that_falls_silent_and_comes_back_is_told_both_times(lab: Lab) -> None:
    lab.apply()
    lab.until(phase="Running", reason="Training")
    [pod] = lab.pods()
    patience = {t["key"]: t["tolerationSeconds"] for t in pod["spec"]["tolerations"]}
    assert patience == {"node.kubernetes.io/unreachable": 60, "node.kubernetes.io/not-ready": 60}
    becomes_ready(lab, "False")
    status = lab.until(phase="Running", reason="NodeLost")
    assert "on node node-1 has not been heard of since" in status["message"]
    becomes_ready(lab, "True")
    lab.until(phase="Running", reason="Training")


def test_what_waits_too_long_fails_with_its_reason_and_frees_all_but_time_in_a_queue_does_not_count(lab: Lab) -> None:
    """The queue's part is played: it suspends the Job, upon which the Job controller forgets when that had started."""
    lab.pods_are(unschedulable(NO_GPU))
    lab.apply(pendingDeadlineSeconds=600, labels={"kueue.x-k8s.io/queue-name": "gpus"})
    lab.until(phase="Starting", reason="Unschedulable")
    [job] = lab.jobs()
    path = f"/apis/batch/v1/namespaces/{lab.namespace}/jobs/{job['metadata']['name']}"
    lab.cluster.api.patch(path, {"spec": {"suspend": True}})
    lab.until(phase="Pending", reason="Queued")
    lab.edit(pendingDeadlineSeconds=8)
    lab.stays(lambda: lab.status()["phase"] == "Pending", 8.5)
    lab.cluster.api.patch(path, {"spec": {"suspend": False}})
    lab.until(phase="Starting", reason="Unschedulable")
    lab.stays(lambda: lab.status()["phase"] == "Starting", 2)
    status = lab.until(phase="Failed", reason="Unschedulable")
    assert "within the 8 seconds of spec.pendingDeadlineSeconds; it waited for: No node can take" in status["message"]
    eventually(lambda: not lab.jobs() and not lab.pods())
    assert lab.status() == status


@pytest.mark.soak
def test_the_node_controller_says_of_a_silent_nodes_pod_what_is_read_as_out_of_touch() -> None:
    """The real one, which here loses patience after seconds; elsewhere its part is played, as nodes of tests have no heartbeat."""
    impatient = ["--node-monitor-grace-period=8s", "--node-monitor-period=1s"]
    controllers = (*CONTROLLERS, "node-lifecycle-controller")
    with ControlPlane(controllers=controllers, controller_manager_arguments=impatient) as cluster:
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        ready = {"type": "Ready", "status": "True", "reason": "KubeletReady", "lastHeartbeatTime": now}
        node = {"metadata": {"name": NODE}, "status": {"conditions": [ready | {"lastTransitionTime": now}]}}
        cluster.api.post("/api/v1/nodes", node)
        labels = {names.JOB_LABEL: "demo", names.UID_LABEL: "uid"}
        container = {"name": names.CONTAINER, "image": "trainer"}
        path = "/api/v1/namespaces/default/pods"
        cluster.api.post(path, {"metadata": {"name": "demo", "labels": labels}, "spec": {"containers": [container]}})
        with KubeletStandIn(cluster.api, lambda pod: run_on()):
            read = lambda: read_attempt(cluster.api.get(f"{path}/demo"))  # noqa: E731
            eventually(lambda: (child := read()) and child.fact.phase is AttemptPhase.RUNNING)
            child = eventually(lambda: (child := read()) and child.fact.out_of_touch and child, 40)
            assert child.fact.phase is AttemptPhase.RUNNING
