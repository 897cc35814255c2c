"""Why a pod ended, by what the cluster itself says of it: a fact that comes before any guess from an exit code.

Whoever ends a pod leaves its words in one of three places: the reason and message of the pod's status (kubelets), the message of its
DisruptionTarget condition (schedulers, controllers, and kubelets that forget the first), or the reason of the container (the runtime).
Whether the Job controller counts the end is told by the condition and the exit code alone.
"""

from __future__ import annotations

import re

from finetune_api.failures import REMEDIES, FailureReason
from finetune_operator.worlds.kube.client import Object
from finetune_operator.worlds.kube.containers import beside_trainer
from finetune_operator.worlds.protocol import PREEMPTED, Cause

REJECTED = "Rejected"
DISRUPTIONS = {
    "PreemptionByScheduler": PREEMPTED,
    "DeletionByTaintManager": FailureReason.NODE_LOST,
    "DeletionByDeviceTaintManager": FailureReason.NODE_LOST,
    "DeletionByPodGC": FailureReason.NODE_LOST,
    "EvictionByEvictionAPI": FailureReason.EVICTED,
    "TerminationByKubelet": FailureReason.EVICTED,
}
"""By the reason of a pod's DisruptionTarget condition."""

REJECTED_REMEDY = "Lower spec.resources or choose other nodes by spec.pod, and set another spec.runId."
NODE_REMEDY = "Look at the node (kubectl describe node {node}); spec.pod can choose others, and spec.backoffLimit allows for more such ends."
MEMORY_REMEDY = "Raise spec.resources.requests.memory, so that a node is chosen that has it to spare."
DISK_REQUEST_REMEDY = "Raise spec.resources.requests.ephemeral-storage, so that a node is chosen that has it to spare."
VOLUME_REMEDY = (
    "The operator gives that volume no limit of its own: ask who administers the cluster to raise what it puts there."
)
DEADLINE_REMEDY = (
    "The operator gives pods no deadline: ask who administers the cluster what puts activeDeadlineSeconds on the pod."
)
START_REMEDY = (
    "Check that spec.image is made for this node's processor and devices, and the runtime in spec.pod.runtimeClassName."
)

_OWN_DISK = re.compile(r"exceeds the total limit of containers|exceeded its local ephemeral storage limit")
_VOLUME = re.compile(r"EmptyDir volume .* exceeds the limit")
_NODE_DISK = re.compile(r"low on resource: (ephemeral-storage|nodefs|imagefs|containerfs|\[DiskPressure)")
_NODE_MEMORY = re.compile(r"low on resource: (memory|\[MemoryPressure)")
_CRITICAL = re.compile(r"to admit critical pod")
_SHUTDOWN = re.compile(r"node shutdown|node is shutting", re.IGNORECASE)
_NOT_ADMITTED = re.compile(r"^(Pod )?(was rejected|The node had condition)", re.IGNORECASE)
_ADMISSION = re.compile(
    r"^(OutOf\w+|UnexpectedAdmissionError|NodeAffinity|MatchNodeSelector|TopologyAffinityError|SMTAlignmentError"
    r"|AppArmor|SysctlForbidden|PodOS\w+|PodFeatureUnsupported|InvalidNodeInfo|UnknownReason)$"
)
"""Reasons that a kubelet gives to a pod it does not admit, or does not admit again after it was restarted itself."""


def disruption_of(pod: Object) -> str | None:
    """Why the cluster took the pod away; None when it did not, and then the Job controller counts its failure."""
    target = _target(pod)
    if target is None:
        return None
    cause = _by_words(pod, *_words(pod))
    return str(cause.reason if cause else DISRUPTIONS.get(target.get("reason", ""), FailureReason.EVICTED))


def ended_by(pod: Object, terminated: Object) -> Cause | None:
    """Why the pod ended, or None where nobody but the trainer can say. `terminated` is its container's last state, {} for none."""
    target = _target(pod)
    cause = _by_words(pod, *_words(pod))
    if cause is not None:
        return cause
    if target is not None:
        said = target.get("message") or target.get("reason", "")
        name, reason = pod["metadata"]["name"], DISRUPTIONS.get(target.get("reason", ""), FailureReason.EVICTED)
        return Cause(reason, f"{name} was taken away by the cluster: {said}")
    return _by_container(pod, terminated) or _by_init_container(pod, terminated)


def _target(pod: Object) -> Object | None:
    conditions = (pod.get("status") or {}).get("conditions") or []
    return next((c for c in conditions if c["type"] == "DisruptionTarget" and c["status"] == "True"), None)


def _words(pod: Object) -> tuple[str, str]:
    """The pod's own reason and message; of an evicted pod the kubelet may lose both, and then its condition still has them."""
    status, target = pod.get("status") or {}, _target(pod) or {}
    reason, message = status.get("reason", ""), status.get("message", "")
    if not reason and target.get("reason") == "TerminationByKubelet":
        reason, message = FailureReason.EVICTED, target.get("message", "")
    return reason, message.strip()


def _by_words(pod: Object, reason: str, message: str) -> Cause | None:
    """By what the pod's status says; its reason alone is the word of whoever wrote it."""
    if pod.get("status", {}).get("phase") != "Failed" or not reason:
        return None
    name, node = pod["metadata"]["name"], pod["spec"].get("nodeName") or "its node"
    said = f"{reason}: {message}" if message else reason
    evicted = f"{name} was evicted by node {node}: {message or reason}"
    if _OWN_DISK.search(message):
        return Cause(FailureReason.DISK_FULL, evicted, REMEDIES[FailureReason.DISK_FULL])
    if _VOLUME.search(message):
        return Cause(FailureReason.DISK_FULL, evicted, VOLUME_REMEDY)
    if _NOT_ADMITTED.search(message) or _ADMISSION.search(reason) or (not _ran(pod) and _target(pod) is None):
        return Cause(REJECTED, f"{name} was rejected by its node: {said}", REJECTED_REMEDY)
    if reason == "Preempting" or _CRITICAL.search(message):
        return Cause(PREEMPTED, f"{name} had to make room for a critical pod on node {node}: {said}")
    if reason in ("Shutdown", "NodeShutdown") or _SHUTDOWN.search(message):
        shut = f"Node {node} was shut down under {name}: {said}"
        return Cause(FailureReason.NODE_LOST, shut, NODE_REMEDY.format(node=node))
    if reason == "Evicted":
        if _NODE_DISK.search(message):
            return Cause(FailureReason.DISK_FULL, evicted, DISK_REQUEST_REMEDY)
        return Cause(FailureReason.EVICTED, evicted, MEMORY_REMEDY if _NODE_MEMORY.search(message) else "")
    if reason == "NodeLost":
        return Cause(FailureReason.NODE_LOST, f"{name} was lost: {said}", NODE_REMEDY.format(node=node))
    if reason == "DeadlineExceeded":
        return Cause(FailureReason.DEADLINE_EXCEEDED, f"{name} was ended by node {node}: {said}", DEADLINE_REMEDY)
    return Cause(FailureReason.EVICTED, f"{name} was ended by node {node}: {said}", NODE_REMEDY.format(node=node))


def _ran(pod: Object) -> bool:
    """Whether any container of the pod ever was: one whose node rejects it has none."""
    status = pod.get("status") or {}
    containers = [*(status.get("containerStatuses") or []), *(status.get("initContainerStatuses") or [])]
    return any("waiting" not in (c.get("state") or {"waiting": {}}) or c.get("lastState") for c in containers)


def _by_container(pod: Object, terminated: Object) -> Cause | None:
    """By what the runtime says of the container; its `Error` and `Completed` only say that an exit code is or is not 0."""
    reason, message = terminated.get("reason", ""), (terminated.get("message") or "").strip()
    name, node = pod["metadata"]["name"], pod["spec"].get("nodeName") or "its node"
    if reason == "ContainerStatusUnknown":
        said = f"Node {node} lost track of {name}, so nobody knows how it ended: {message or reason}"
        return Cause(FailureReason.NODE_LOST, said, NODE_REMEDY.format(node=node))
    if reason == "Unknown":  # containerd and CRI-O, of containers they find dead when they start, mostly after a reboot
        said = f"Node {node} or its container runtime was started again under {name}"
        return Cause(FailureReason.NODE_LOST, said, NODE_REMEDY.format(node=node))
    if reason in ("StartError", "ContainerCannotRun"):
        said = f"The container of {name} could not be started on node {node}: {message or reason}"
        return Cause(FailureReason.INTERNAL, said, START_REMEDY)
    return None


def _by_init_container(pod: Object, terminated: Object) -> Cause | None:
    """By the container that failed before the trainer could start."""
    if terminated:
        return None
    for other in beside_trainer(pod):
        code = other.terminated.get("exitCode", 0)
        if other.initial and not other.restarts and code != 0:
            log = (other.terminated.get("message") or "").strip()
            killed = " (OOMKilled)" if other.terminated.get("reason") == "OOMKilled" else ""
            said = f"exit code {code}{killed}" + (f": {log}" if log else "")
            message = f"Init container {other.name} of {pod['metadata']['name']}, which is not the trainer's, failed with {said}"
            return Cause(FailureReason.SIDECAR_FAILED, message, REMEDIES[FailureReason.SIDECAR_FAILED])
    return None
