"""What events say a pod waits for, by the texts that kubelets, the attach-detach controller, autoscalers and Karpenter write."""

from __future__ import annotations

from typing import Any

import pytest

from finetune_api.failures import FailureReason
from finetune_operator.worlds.kube.client import Object
from finetune_operator.worlds.kube.event_words import NO_SCHEDULER, SILENT_NODE, Told, told_by
from finetune_operator.worlds.protocol import Awaited

VOLUME, SANDBOX = FailureReason.VOLUME_UNAVAILABLE, FailureReason.SANDBOX_FAILED
NO_ROOM = FailureReason.UNSCHEDULABLE


def event(reason: str, message: str, second: int = 1, who: str = "kubelet", **fields: Any) -> Object:
    time = f"2026-01-01T00:00:{second:02d}Z"
    meta = {"name": f"demo.{second}", "creationTimestamp": time, "resourceVersion": str(100 + second)}
    counted = {"firstTimestamp": time, "lastTimestamp": time, "count": 1}
    return {"metadata": meta, "reason": reason, "message": message, "source": {"component": who}, **counted, **fields}


SANDBOX_ID = "75c5c21331dd5998d9a6efd5ac6d74c45b10386db7d34555c7e0f22f5969ee13"
ON_A_NODE = {
    "a volume that is not attached": (
        "FailedAttachVolume",
        'AttachVolume.Attach failed for volume "pvc-1" : rpc error: code = Internal desc = no such disk',
        VOLUME, 'A volume of the pod is not there yet: AttachVolume.Attach failed for volume "pvc-1"',
    ),
    "a volume that another node has": (
        "FailedAttachVolume",
        'Multi-Attach error for volume "pvc-1" Volume is already exclusively attached to one node and can\'t be attached to another',
        VOLUME, 'A volume of the pod is not there yet: Multi-Attach error for volume "pvc-1"',
    ),
    "a volume that is not mounted": (
        "FailedMount", 'MountVolume.SetUp failed for volume "mesh" : configmap "mesh" not found',
        VOLUME, 'A volume of the pod is not there yet: MountVolume.SetUp failed for volume "mesh" : configmap "mesh" not found',
    ),
    "volumes of which only the names are said": (
        "FailedMount",
        "Unable to attach or mount volumes: unmounted volumes=[data], unattached volumes=[], failed to process volumes=[]: context deadline exceeded",
        VOLUME, "A volume of the pod is not there yet: Unable to attach or mount volumes: unmounted volumes=[data]",
    ),
    "a volume that is not mapped": (
        "FailedMapVolume", 'MapVolume.MapPodDevice failed for volume "pvc-1" : exit status 32',
        VOLUME, "A volume of the pod is not there yet: MapVolume.MapPodDevice failed",
    ),
    "a network that is not set up": (
        "FailedCreatePodSandBox",
        f'Failed to create pod sandbox: rpc error: code = Unknown desc = failed to setup network for sandbox "{SANDBOX_ID}": plugin type="istio-cni" name="istio-cni" failed (add)',
        SANDBOX, 'The node node-1 cannot make the pod\'s sandbox: Failed to create pod sandbox: rpc error: code = Unknown desc = failed to setup network for sandbox "…": plugin',
    ),
    "a runtime that the node does not have": (
        "FailedCreatePodSandBox",
        'Failed to create pod sandbox: rpc error: code = Unknown desc = RuntimeHandler "runsc" not supported',
        SANDBOX, "The node node-1 cannot make the pod's sandbox: ",
    ),
    "the same, combined": (
        "FailedCreatePodSandBox",
        f'(combined from similar events): Failed to create pod sandbox: rpc error: code = Unknown desc = failed to setup network for sandbox "{SANDBOX_ID}"',
        SANDBOX, "The node node-1 cannot make the pod's sandbox: Failed to create pod sandbox",
    ),
    "a node without a network": (
        "NetworkNotReady",
        "network is not ready: container runtime network not ready: NetworkReady=false reason:NetworkPluginNotReady message:Network plugin returns error: cni plugin not initialized",
        SANDBOX, "The node node-1 cannot make the pod's sandbox: network is not ready",
    ),
    "a claimed device": (
        "FailedPrepareDynamicResources",
        "Failed to prepare dynamic resources: prepare dynamic resources: NodePrepareResources failed: DRA driver gpu.nvidia.com is not registered",
        SANDBOX, "The node node-1 cannot give the pod the devices that it claims: Failed to prepare dynamic resources",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", ON_A_NODE)
def test_what_a_node_cannot_do_for_a_pod_is_told_in_its_own_words(case: str) -> None:
    reason, text, expected, message = ON_A_NODE[case]
    problem = told_by([event("Scheduled", "Successfully assigned", 0), event(reason, text)], "node-1").problem
    assert problem is not None
    assert problem.reason is expected
    assert problem.message.startswith(message)
    assert SANDBOX_ID not in problem.message  # another one at each try would be another message


WITHOUT_A_NODE = {
    "autoscaler": (
        "NotTriggerScaleUp", "pod didn't trigger scale-up: 2 node(s) had untolerated taint {gpu: true}, 1 max node group size reached",
        "no node will be added for it: 1 max node group size reached, 2 node(s) had untolerated taint {gpu: true}",
    ),
    "earlier autoscaler": (
        "NotTriggerScaleUp", "pod didn't trigger scale-up (it wouldn't fit if a new node is added): 1 Insufficient nvidia.com/gpu",
        "no node will be added for it: 1 Insufficient nvidia.com/gpu",
    ),
    "cloud": (
        "NotTriggerScaleUp", "Pod didn't trigger scale-up: 16 in backoff after failed scale-up.",
        "no node will be added for it: 16 in backoff after failed scale-up.",
    ),
    "cloud without room": (
        "FailedScaleUp",
        "Node scale up in zones europe-west1-c associated with this pod failed: GCE quota exceeded. Pod is at risk of not being scheduled.",
        "no node will be added for it: Node scale up in zones europe-west1-c associated with this pod failed: GCE quota exceeded.",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", WITHOUT_A_NODE)
def test_that_no_node_will_be_added_is_told_in_the_autoscalers_words(case: str) -> None:
    reason, text, message = WITHOUT_A_NODE[case]
    problem = told_by([event(reason, text, who="cluster-autoscaler")], None).problem
    assert problem is not None
    assert problem.reason is NO_ROOM
    assert problem.message.startswith(message)


def test_what_karpenter_cannot_add_is_told_and_a_schedulers_words_are_left_to_the_conditions() -> None:
    said = 'Failed to schedule pod, all available instance types exceed limits for nodepool "gpu"'
    for who in ({"who": "karpenter"}, {"who": "", "reportingComponent": "karpenter"}, {"who": "eks-auto-mode/compute"}):
        problem = told_by([event("FailedScheduling", said, **who)], None).problem  # type: ignore[arg-type]
        assert problem is not None
        assert (
            problem.message
            == 'no node will be added for it: all available instance types exceed limits for nodepool "gpu"'
        )
    assert told_by([event("FailedScheduling", "0/3 nodes are available", who="default-scheduler")], None) == Told(
        silence=NO_SCHEDULER
    )


def test_a_claim_that_cannot_be_made_is_a_missing_reference() -> None:
    said = 'PodResourceClaim gpu: resource claim template "one-gpu": resourceclaimtemplate.resource.k8s.io "one-gpu" not found'
    problem = told_by([event("FailedResourceClaimCreation", said, who="resource_claim")], None).problem
    assert problem is not None
    assert (problem.reason, problem.field) == (FailureReason.REFERENCE_MISSING, "spec.pod.resourceClaims")
    assert problem.message == f"A claim of devices cannot be made for the pod: {said}"
    assert told_by([event("FailedResourceClaimCreation", said)], "n") == Told(silence=SILENT_NODE)


GROUP = "https://www.googleapis.com/compute/v1/projects/x/zones/us-east4-a/instanceGroups/gke-l4-grp"
COMES = {
    "TriggeredScaleUp": ("pod triggered scale-up: [{gpu-pool 1->2 (max: 10)}]", "gpu-pool 1->2 (max: 10)"),
    "TriggeredScaleUp by address": (f"pod triggered scale-up: [{{{GROUP} 1->2 (max: 20)}}]", "gke-l4-grp 1->2 (max: 20)"),
    "TriggeredScaleUp of two": ("pod triggered scale-up: [{a 1->2 (max: 3)} {b 0->1 (max: 2)}]", "a 1->2 (max: 3), b 0->1 (max: 2)"),
    "Nominated": ("Pod should schedule on: nodeclaim/gpu-v278f", "nodeclaim/gpu-v278f"),
}  # fmt: skip


@pytest.mark.parametrize("case", COMES)
def test_a_node_that_is_coming_is_no_problem(case: str) -> None:
    text, what = COMES[case]
    told = told_by([event(case.split()[0], text, who="cluster-autoscaler")], None)
    assert told.problem is None
    assert told.on_its_way is not None
    assert (told.on_its_way.what, told.on_its_way.since.second) == (Awaited.NODE, 1)
    assert told.on_its_way.message == f"A node is being added for the pod ({what})"


def test_an_image_that_is_being_pulled_is_no_problem_and_says_since_when() -> None:
    told = told_by([event("Scheduled", "…", 1), event("Pulling", 'Pulling image "registry.example/trainer:1"', 2)], "n")
    assert told.on_its_way is not None
    assert told.on_its_way.message == "The node n pulls the image registry.example/trainer:1"
    assert (told.on_its_way.what, told.on_its_way.since.second, told.problem) == (Awaited.IMAGE, 2, None)


MOUNT = event("FailedMount", 'MountVolume.SetUp failed for volume "a" : not found', 5)
OVER = {
    "SuccessfulAttachVolume": 'AttachVolume.Attach succeeded for volume "pvc-1" ',
    "Pulled": 'Successfully pulled image "x" in 1.2s (1.2s including waiting). Image size: 7516192768 bytes.',
    "Created": "Created container: trainer",
    "Failed": 'Failed to pull image "x": not found',
    "BackOff": 'Back-off pulling image "x"',
}


@pytest.mark.parametrize("reason", OVER)
def test_what_is_over_is_not_told_any_more(reason: str) -> None:
    assert told_by([MOUNT, event("Pulling", 'Pulling image "x"', 6), event(reason, OVER[reason], 7)], "n") == Told()


def test_the_newest_event_tells_by_when_it_was_seen_last_not_first() -> None:
    repeated = MOUNT | {"lastTimestamp": "2026-01-01T00:00:40Z", "count": 7}
    pulling = event("Pulling", 'Pulling image "x"', 20)
    assert told_by([repeated, pulling], "n").problem is not None
    assert told_by([MOUNT, pulling], "n").on_its_way is not None
    series = MOUNT | {"series": {"count": 7, "lastObservedTime": "2026-01-01T00:00:40Z"}}
    assert told_by([pulling, series], "n").problem is not None


def test_why_a_volume_is_missing_is_told_before_which_ones_are() -> None:
    summary = event("FailedMount", "Unable to attach or mount volumes: unmounted volumes=[a]: timed out", 9)
    problem = told_by([MOUNT, summary], "n").problem
    assert problem is not None
    assert problem.message.endswith('MountVolume.SetUp failed for volume "a" : not found')


def test_what_was_said_of_a_pod_before_it_had_a_node_is_over_then() -> None:
    told = event("NotTriggerScaleUp", "pod didn't trigger scale-up: 1 max node group size reached", 3)
    assert told_by([told, event("Scheduled", "Successfully assigned", 4)], "n") == Told(silence=SILENT_NODE)


def test_silence_is_told_as_whose_it_is() -> None:
    assert told_by([], None) == Told(silence=NO_SCHEDULER)
    assert told_by([], "n") == Told(silence=SILENT_NODE)
