"""Why a pod ended: the cluster's own words come before any guess, and whether it counts is what the Job controller does.

Each case is the status of a pod as public bug reports show it (the issue of kubernetes/kubernetes is named) or as the source of the
kubelet, the scheduler and the controllers of 1.36 writes it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from finetune_api.failures import REMEDIES, FailureReason
from finetune_operator.decide.attempts import cause_of
from finetune_operator.worlds.kube import ends, names
from finetune_operator.worlds.kube.client import Object
from finetune_operator.worlds.kube.facts import read_attempt
from finetune_operator.worlds.restarts import is_counted
from tests.unit.operator.story import result_message

NEVER = "0001-01-01T00:00:00Z"
UNKNOWN = {
    "exitCode": 137,
    "reason": "ContainerStatusUnknown",
    "message": "The container could not be located when the pod was terminated",
    "startedAt": None,
    "finishedAt": None,
}
LOST = UNKNOWN | {
    "message": "The container could not be located when the pod was deleted.  The container used to be Running"
}
KILLED = {"exitCode": 137, "reason": "Error", "startedAt": "2026-01-01T00:00:10Z", "finishedAt": "2026-01-01T00:01:00Z"}
SAVED = KILLED | {"exitCode": 30, "message": result_message("preempted", step=40)}
STOPPED = KILLED | {"exitCode": 143}
DATA_WRONG = KILLED | {
    "exitCode": 11,
    "message": result_message("failed", error=(FailureReason.LABEL_INVALID, "row 7: no such label")),
}


def terminated(state: Object, **more: Any) -> Object:
    return {"containerStatuses": [{"name": "trainer", "state": {"terminated": state}, **more}]}


def waiting(reason: str, **more: Any) -> Object:
    return {"containerStatuses": [{"name": "trainer", "state": {"waiting": {"reason": reason}}, **more}]}


RUNNING = {"containerStatuses": [{"name": "trainer", "state": {"running": {"startedAt": "2026-01-01T00:00:10Z"}}}]}


def target(reason: str, message: str = "") -> Object:
    ready = {"type": "Ready", "status": "False", "reason": "PodFailed"}
    return {"conditions": [{"type": "DisruptionTarget", "status": "True", "reason": reason, "message": message}, ready]}


OWN_LIMIT = "Pod ephemeral local storage usage exceeds the total limit of containers 2Gi. "
CONTAINER_LIMIT = 'Container trainer exceeded its local ephemeral storage limit "20Mi". '
VOLUME_LIMIT = 'Usage of EmptyDir volume "shm" exceeds the limit "1Gi". '
NODE_DISK = (
    "The node was low on resource: ephemeral-storage. Threshold quantity: 1Gi, available: 898240Ki. "
    "Container trainer was using 4Gi, request is 0, has larger consumption of ephemeral-storage. "
)
NODE_MEMORY = (
    "The node was low on resource: memory. Threshold quantity: 100Mi, available: 91140Ki. "
    "Container trainer was using 12Gi, request is 1Gi, has larger consumption of memory. "
)
NODE_PIDS = "The node was low on resource: pids. Threshold quantity: 1638, available: 1201. "
SHUTDOWN = "Pod was terminated in response to imminent node shutdown."
OLD_SHUTDOWN = "Node is shutting, evicting pods"
CRITICAL = "Preempted in order to admit critical pod"
PREEMPTION = "default-scheduler: preempting to accommodate a higher priority pod"
TAINT = "Taint manager: deleting due to NoExecute taint"
NODE_GONE = "PodGC: node no longer exists"
DEADLINE = "Pod was active on the node longer than the specified deadline"
CPU = "Pod was rejected: Node didn't have enough resource: cpu, requested: 8000, used: 1850, capacity: 8000"
DEVICES = (
    "Pod Allocate failed due to requested number of devices unavailable for nvidia.com/gpu. Requested: 1, Available: 0"
)
OCI = "failed to create containerd task: failed to create shim task: OCI runtime create failed: nvidia-container-cli: no device"


@dataclass(frozen=True)
class End:
    status: Object
    reason: str
    counted: bool
    says: str
    remedy: str = ""
    deleting: bool = False


DISK = REMEDIES[FailureReason.DISK_FULL]
NODE = ends.NODE_REMEDY.format(node="node-1")
DUMPS = {
    # -- evictions by the kubelet, for the pod's own consumption: no DisruptionTarget, so they count
    "own disk limit, container not found any more (#122160)": End(
        {"reason": "Evicted", "message": OWN_LIMIT} | terminated(UNKNOWN, lastState={"terminated": LOST}, restartCount=1),
        "DiskFull", True, OWN_LIMIT.strip(), DISK,
    ),
    "own disk limit, container said to be created (#137992)": End(
        {"reason": "Evicted", "message": OWN_LIMIT} | waiting("ContainerCreating", lastState={"terminated": LOST}),
        "DiskFull", True, OWN_LIMIT.strip(), DISK,
    ),
    "own disk limit, killed": End({"reason": "Evicted", "message": OWN_LIMIT} | terminated(KILLED), "DiskFull", True, "2Gi", DISK),
    "own disk limit, the trainer saved in time": End(
        {"reason": "Evicted", "message": OWN_LIMIT} | terminated(SAVED), "DiskFull", False, "2Gi", DISK
    ),
    "disk limit of the container (cloud-ark/kubeplus#1389)": End(
        {"reason": "Evicted", "message": CONTAINER_LIMIT} | terminated(KILLED), "DiskFull", True, '"20Mi"', DISK
    ),
    "size limit of a volume": End(
        {"reason": "Evicted", "message": VOLUME_LIMIT} | terminated(KILLED), "DiskFull", True, 'volume "shm"', ends.VOLUME_REMEDY
    ),
    # -- evictions by the kubelet, because its node is short of something
    "node out of disk (#122932), no condition yet in old kubelets": End(
        {"reason": "Evicted", "message": NODE_DISK} | terminated(UNKNOWN), "DiskFull", True, "898240Ki", ends.DISK_REQUEST_REMEDY
    ),
    "node out of disk": End(
        {"reason": "Evicted", "message": NODE_DISK, **target("TerminationByKubelet", NODE_DISK)} | terminated(KILLED),
        "DiskFull", False, "898240Ki", ends.DISK_REQUEST_REMEDY,
    ),
    "node out of disk, reason and message lost (#105467)": End(
        target("TerminationByKubelet", NODE_DISK) | terminated(KILLED), "DiskFull", False, "898240Ki", ends.DISK_REQUEST_REMEDY
    ),
    "node out of memory": End(
        {"reason": "Evicted", "message": NODE_MEMORY, **target("TerminationByKubelet", NODE_MEMORY)} | terminated(KILLED),
        "Evicted", False, "was using 12Gi", ends.MEMORY_REMEDY,
    ),
    "node out of disk, as kubelets before 1.13 said it": End(
        {"reason": "Evicted", "message": "The node was low on resource: [DiskPressure]."} | terminated(UNKNOWN),
        "DiskFull", True, "[DiskPressure]", ends.DISK_REQUEST_REMEDY,
    ),
    "node out of process ids": End(
        {"reason": "Evicted", "message": NODE_PIDS, **target("TerminationByKubelet", NODE_PIDS)} | terminated(KILLED),
        "Evicted", False, "low on resource: pids",
    ),
    # -- the node goes
    "graceful node shutdown, saved": End(
        {"reason": "Terminated", "message": SHUTDOWN, **target("TerminationByKubelet", SHUTDOWN)} | terminated(SAVED),
        "NodeLost", False, "was shut down", NODE,
    ),
    "graceful node shutdown, reason and message lost": End(
        target("TerminationByKubelet", SHUTDOWN) | terminated(KILLED), "NodeLost", False, "was shut down", NODE
    ),
    "node shutdown as kubelets before 1.26 said it": End(
        {"reason": "Shutdown", "message": OLD_SHUTDOWN} | terminated(KILLED), "NodeLost", True, "was shut down", NODE
    ),
    "node shutdown, another old spelling": End(
        {"reason": "NodeShutdown", "message": "Node is shutting, evicting pods"} | terminated(KILLED), "NodeLost", True, OLD_SHUTDOWN, NODE
    ),
    "node or runtime rebooted": End(
        terminated({"exitCode": 255, "reason": "Unknown", "startedAt": NEVER, "finishedAt": NEVER}), "NodeLost", True, "started again", NODE
    ),
    "kubelet lost the container": End(terminated(UNKNOWN), "NodeLost", True, "lost track", NODE),
    "node object removed": End(target("DeletionByPodGC", NODE_GONE) | RUNNING, "NodeLost", False, NODE_GONE, deleting=True),
    "node unreachable": End(target("DeletionByTaintManager", TAINT) | terminated(KILLED), "NodeLost", False, TAINT, deleting=True),
    "device tainted": End(
        target("DeletionByDeviceTaintManager", "Device Taint manager: deleting due to NoExecute taint") | terminated(SAVED),
        "NodeLost", False, "Device Taint manager", deleting=True,
    ),
    # -- somebody needs the place
    "preempted by the scheduler, killed": End(
        target("PreemptionByScheduler", PREEMPTION) | terminated(KILLED), "Preempted", False, PREEMPTION, deleting=True
    ),
    "preempted by the scheduler, saved": End(
        target("PreemptionByScheduler", PREEMPTION) | terminated(SAVED), "Preempted", False, PREEMPTION, deleting=True
    ),
    "preempted by the kubelet for a critical pod": End(
        {"reason": "Preempting", "message": CRITICAL, **target("TerminationByKubelet", CRITICAL)} | terminated(KILLED),
        "Preempted", False, "critical pod",
    ),
    "drained": End(
        target("EvictionByEvictionAPI", "Eviction API: evicting") | terminated(STOPPED), "Evicted", False, "Eviction API", deleting=True
    ),
    "drained, while the trainer found wrong data": End(
        target("EvictionByEvictionAPI", "Eviction API: evicting") | terminated(DATA_WRONG), "Evicted", False, "Eviction API", deleting=True
    ),
    # -- deadlines and admission
    "a deadline that somebody put on the pod": End(
        {"reason": "DeadlineExceeded", "message": DEADLINE} | terminated(STOPPED), "DeadlineExceeded", True, DEADLINE, ends.DEADLINE_REMEDY
    ),
    "not admitted: no cpu": End({"reason": "OutOfcpu", "message": CPU}, "Rejected", True, CPU, ends.REJECTED_REMEDY),
    "not admitted: no device, as older kubelets said it": End(
        {"reason": "UnexpectedAdmissionError", "message": DEVICES}, "Rejected", True, "nvidia.com/gpu", ends.REJECTED_REMEDY
    ),
    "not admitted again after a reboot": End(
        {"reason": "UnexpectedAdmissionError", "message": DEVICES} | terminated(KILLED), "Rejected", True, "nvidia.com/gpu", ends.REJECTED_REMEDY
    ),
    "not admitted: labels of the node changed": End(
        {"reason": "NodeAffinity", "message": "Pod was rejected: Predicate NodeAffinity failed"}, "Rejected", True, "Predicate", ends.REJECTED_REMEDY
    ),
    "not admitted: disk pressure": End(
        {"reason": "Evicted", "message": "Pod was rejected: The node had condition: [DiskPressure]. "}, "Rejected", True, "DiskPressure", ends.REJECTED_REMEDY
    ),
    "not admitted: the node shuts down": End(
        {"reason": "NodeShutdown", "message": "Pod was rejected as the node is shutting down."}, "Rejected", True, "shutting down", ends.REJECTED_REMEDY
    ),
    "a reason that no version has yet": End(
        {"reason": "MeteorStrike", "message": "a crater"} | terminated(KILLED), "Evicted", True, "MeteorStrike: a crater", NODE
    ),
    # -- the container says it
    "out of memory": End(
        terminated(KILLED | {"reason": "OOMKilled"}), "OutOfMemory", True, "reached its memory limit", REMEDIES[FailureReason.OUT_OF_MEMORY]
    ),
    "cannot be started": End(
        terminated({"exitCode": 128, "reason": "StartError", "message": OCI, "startedAt": "1970-01-01T00:00:00Z"}),
        "Internal", True, "nvidia-container-cli: no device", ends.START_REMEDY,
    ),
    "deleted by hand, saved": End(terminated(SAVED), "Preempted", False, "saved its work", deleting=True),
    "deleted by hand, killed": End(terminated(KILLED), "Deleted", True, "was deleted", deleting=True),
    "deleted by hand, stopped": End(terminated(STOPPED), "Deleted", True, "was deleted", deleting=True),
    "deleted before it ran": End(waiting("ContainerCreating"), "Deleted", True, "was deleted", deleting=True),
    # -- nothing speaks: only now is it guessed
    "killed by nobody knows whom": End(
        terminated(KILLED), "OutOfMemory", True, "most likely ran out of memory", REMEDIES[FailureReason.OUT_OF_MEMORY]
    ),
    "killed, and its log speaks": End(
        terminated(KILLED | {"message": "Traceback\nBus error"}), "OutOfMemory", True, "the last line of its log: Bus error"
    ),
    "stopped by nobody knows whom": End(terminated(STOPPED), "Internal", True, "exit code 143"),
    "exit code 255 of its own": End(terminated(KILLED | {"exitCode": 255}), "Internal", True, "exit code 255"),
    "no word at all": End({}, "Internal", True, "nothing says why"),
}  # fmt: skip


def pod(status: Object, *, deleting: bool) -> Object:
    metadata = {
        "namespace": "ml",
        "name": "demo-r-x",
        "uid": "u",
        "resourceVersion": "1",
        "creationTimestamp": "2026-01-01T00:00:00Z",
        "labels": {names.JOB_LABEL: "demo", names.UID_LABEL: "job", names.RUN_LABEL: "r"},
    }
    if deleting:
        metadata["deletionTimestamp"] = "2026-01-01T00:02:00Z"
    containers = [{"name": "trainer", "image": "trainer:x"}]
    return {
        "metadata": metadata,
        "spec": {"nodeName": "node-1", "containers": containers},
        "status": {"phase": "Failed", **status},
    }


@pytest.mark.parametrize("case", sorted(DUMPS))
def test_an_end_is_told_by_whoever_knows_and_counts_as_the_job_controller_counts_it(case: str) -> None:
    end = DUMPS[case]
    child = read_attempt(pod(end.status, deleting=end.deleting))
    assert child is not None
    cause = cause_of(child.fact)
    assert cause is not None
    assert (str(cause.reason), is_counted(child.fact)) == (end.reason, end.counted)
    assert end.says in cause.message
    if end.remedy:
        assert cause.remedy == end.remedy


@pytest.mark.parametrize("case", sorted(DUMPS))
def test_only_a_disruption_target_or_the_code_for_it_keeps_an_end_from_counting(case: str) -> None:
    """The two rules of the pod failure policy that ignore a failure, as `worlds/kube/manifest.py` writes them."""
    status = DUMPS[case].status
    disrupted = any(c["type"] == "DisruptionTarget" and c["status"] == "True" for c in status.get("conditions", []))
    states = [container["state"] for container in status.get("containerStatuses", [])]
    ignored = any(state.get("terminated", {}).get("exitCode") == 30 for state in states)
    assert DUMPS[case].counted == (not disrupted and not ignored)


def test_what_the_cluster_says_of_a_pod_that_ended_well_is_not_a_cause() -> None:
    child = read_attempt(
        pod({"reason": "Evicted", "message": OWN_LIMIT} | terminated(KILLED | {"exitCode": 0}), deleting=False)
    )
    assert child is not None
    assert cause_of(child.fact) is None
