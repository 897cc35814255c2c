"""Plays scheduler and kubelet: gives pods a node and writes their status, so that the real Job controller does the rest.

    with KubeletStandIn(cluster.api, on_pod=lambda pod: fail(3, message='{"outcome": "failed"}')) as kubelet:
        …create a Job…

`on_pod` decides each pod's fate when it appears. A pod that is deleted gets its container stopped (`on_stop` says how it ends)
and then vanishes, as after its grace period. Pods are taken to have restartPolicy Never.
"""

from __future__ import annotations

import datetime
import hashlib
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Self

from tests.cluster.api import STRATEGIC_MERGE_PATCH, Api, ApiError, Object, Watch

NODE = "node-1"
TERMINATED_BY_SIGTERM = 143
INJECTED = "tests/injected"
"""Annotation of a pod: the names, with commas, of containers that an injector put into it."""


@dataclass(frozen=True)
class Fate:
    """What becomes of a pod. Made by the functions below."""

    exit_code: int | None = 0  # None: runs until it is deleted or `KubeletStandIn.finish` is called
    message: str = ""  # what the container wrote to /dev/termination-log
    reason: str = ""  # why the container terminated, as the kubelet says it
    waiting: str = ""  # never starts; the reason why its container waits
    rejected: str = ""  # its node does not admit it; the reason of the pod's status
    unschedulable: str = ""  # gets no node; the scheduler's message
    node: str = ""  # where it is bound to, if not to the stand-in's own node
    disruption: str = ""  # the reason of a DisruptionTarget condition: ended by the cluster, not by itself
    evicted: str = ""  # evicted by its own node without such a condition; the message of the pod's status
    beside: int | None = 0  # how injected containers end; None: they go on until it is deleted
    seconds: float = 0.0  # how long it runs
    ago: float = 0.0  # how many seconds before it was written its end was, by the node's clock


def succeed(message: str = "", *, seconds: float = 0.0) -> Fate:
    return Fate(0, message, "Completed", seconds=seconds)


def fail(exit_code: int, message: str = "", *, seconds: float = 0.0) -> Fate:
    return Fate(exit_code, message, "Error", seconds=seconds)


def run_on() -> Fate:
    return Fate(None)


def out_of_memory(*, seconds: float = 0.0) -> Fate:
    return Fate(137, "", "OOMKilled", seconds=seconds)


def disrupted(reason: str = "PreemptionByScheduler", exit_code: int = TERMINATED_BY_SIGTERM, message: str = "") -> Fate:
    """Ended by the cluster: PreemptionByScheduler, DeletionByTaintManager, EvictionByEvictionAPI, DeletionByPodGC, TerminationByKubelet."""
    return Fate(exit_code, message, "Error", disruption=reason)


def evicted(
    message: str = "Pod ephemeral local storage usage exceeds the total limit of containers 1Gi. ", exit_code: int = 137
) -> Fate:
    """For what the pod itself used up, which is no disruption."""
    return Fate(exit_code, "", "Error", evicted=message)


def waits(reason: str = "ImagePullBackOff", message: str = "") -> Fate:
    return Fate(None, message, waiting=reason)


def rejected(reason: str = "UnexpectedAdmissionError", message: str = "Pod was rejected: no device is left") -> Fate:
    """As by OutOfcpu, NodeAffinity, TopologyAffinityError, …: it has failed, and no container of it ever was."""
    return Fate(None, message, rejected=reason)


def unschedulable(message: str = "0/1 nodes are available: 1 Insufficient nvidia.com/gpu.") -> Fate:
    return Fate(None, unschedulable=message)


def _stopped(pod: Object) -> Fate:
    return fail(TERMINATED_BY_SIGTERM)


class KubeletStandIn:
    """Enter it to start; leaving raises what went wrong meanwhile. `pods` are the pods seen, as they were created.

    on_pod, on_stop: given a pod, return its Fate; they run in worker threads. namespace: only its pods, else all.
    """

    def __init__(
        self,
        api: Api,
        on_pod: Callable[[Object], Fate] = lambda pod: succeed(),
        *,
        on_stop: Callable[[Object], Fate] = _stopped,
        namespace: str | None = None,
    ) -> None:
        self.pods: list[Object] = []
        self._api = api
        self._on_pod = on_pod
        self._on_stop = on_stop
        self._path = f"/api/v1/namespaces/{namespace}/pods" if namespace else "/api/v1/pods"
        self._ended: set[str] = set()  # UIDs of the pods whose last status is written
        self._stopping: set[str] = set()
        self._timers: list[threading.Timer] = []
        self._lock = threading.Lock()
        self._leaving = threading.Event()
        self._watch: Watch | None = None
        self._error: BaseException | None = None

    def __enter__(self) -> Self:
        self._register_node()
        self._workers = ThreadPoolExecutor(4, thread_name_prefix="kubelet")
        self._watcher = threading.Thread(target=self._guarded, args=(self._follow,), name="kubelet-watch")
        self._watcher.start()
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self._leaving.set()
        for timer in self._timers:
            timer.cancel()
        with self._lock:
            if self._watch:
                self._watch.close()
        self._watcher.join()
        self._workers.shutdown(cancel_futures=True)
        if self._error and kind is None:
            raise self._error

    def finish(self, namespace: str, name: str, fate: Fate) -> None:
        """Ends a running pod now."""
        self._end(self._api.get(f"/api/v1/namespaces/{namespace}/pods/{name}"), fate)

    def _follow(self) -> None:
        seen: set[str] = set()
        while not self._leaving.is_set():
            listed = self._api.get(self._path)
            for pod in listed["items"]:
                self._notice(pod, seen)
            version: str | None = listed["metadata"]["resourceVersion"]
            while version and not self._leaving.is_set():
                version = self._follow_from(version, seen)

    def _follow_from(self, version: str, seen: set[str]) -> str | None:
        """One watch; returns where the next goes on, None when the list must be read again."""
        with self._lock:  # against leaving between the question and the watch
            if self._leaving.is_set():
                return None
            try:
                self._watch = self._api.watch(self._path, version)
            except ApiError as error:
                if error.status != 410:
                    raise
                return None
        for kind, thing in self._watch:
            if kind == "ERROR":
                return None
            version = thing["metadata"]["resourceVersion"]
            if kind in ("ADDED", "MODIFIED"):
                self._notice(thing, seen)
        return version

    def _notice(self, pod: Object, seen: set[str]) -> None:
        uid = pod["metadata"]["uid"]
        if pod["metadata"].get("deletionTimestamp"):
            if uid not in self._stopping:
                self._stopping.add(uid)
                self._submit(self._stop, pod)
        elif uid not in seen and pod["status"].get("phase") == "Pending":
            seen.add(uid)
            self.pods.append(pod)
            self._submit(self._start, pod)

    def _start(self, pod: Object) -> None:
        fate = self._on_pod(pod)
        if fate.unschedulable:
            condition = _condition("PodScheduled", "False", "Unschedulable", fate.unschedulable)
            self._write(pod, {"phase": "Pending", "conditions": [condition]})
            return
        target = {"apiVersion": "v1", "kind": "Node", "name": fate.node or NODE}
        self._api.post(f"{_path(pod)}/binding", {"metadata": {"name": pod["metadata"]["name"]}, "target": target})
        if fate.rejected:
            self._write(pod, {"phase": "Failed", "reason": fate.rejected, "message": fate.message})
            return
        if fate.waiting:
            state = {"waiting": {"reason": fate.waiting, "message": fate.message}}
            self._write(pod, {"phase": "Pending", **_containers(pod, state)})
            return
        self._write(pod, _running(pod))
        if fate.exit_code is None:
            return
        if fate.seconds:
            timer = threading.Timer(fate.seconds, self._submit, (self._end, pod, fate))
            self._timers.append(timer)
            timer.start()
        else:
            self._end(pod, fate)

    def _end(self, pod: Object, fate: Fate) -> None:
        uid = pod["metadata"]["uid"]
        with self._lock:
            if uid in self._ended:
                return
            if fate.beside is not None:
                self._ended.add(uid)
        self._write(pod, _terminated(pod, fate))

    def _stop(self, pod: Object) -> None:
        pod = self._api.get(_path(pod))
        if pod["spec"].get("nodeName") and pod["status"]["phase"] in ("Pending", "Running"):
            kept = any("terminated" in c["state"] for c in pod["status"].get("containerStatuses", ()))
            if kept:
                self._write(pod, _all_terminated(pod))
            elif any("waiting" in c["state"] for c in pod["status"].get("containerStatuses", ())):
                self._write(pod, _never_started(pod))
            else:
                self._end(pod, self._on_stop(pod))
        self._api.delete(_path(pod), {"gracePeriodSeconds": 0, "preconditions": {"uid": pod["metadata"]["uid"]}})

    def _write(self, pod: Object, status: Object) -> None:
        """As the kubelet does: a strategic merge, so conditions that others wrote stay."""
        body = {"metadata": {"uid": pod["metadata"]["uid"]}, "status": status}
        self._api.patch(f"{_path(pod)}/status", body, STRATEGIC_MERGE_PATCH)

    def _submit(self, work: Callable[..., None], *arguments: object) -> None:
        if not self._leaving.is_set():
            self._workers.submit(self._guarded, work, *arguments)

    def _guarded(self, work: Callable[..., None], *arguments: object) -> None:
        try:
            work(*arguments)
        except ApiError as error:
            going = error.status == 403 and "being terminated" in str(error)
            if (
                error.status not in (404, 409) and not going
            ):  # the pod is gone or its namespace is going: nothing left to do
                self._error = self._error or error
        except BaseException as error:
            self._error = self._error or error

    def _register_node(self) -> None:
        """The pod garbage collector would remove pods of a node that is not there."""
        ready = _condition("Ready", "True", "KubeletReady", "a test plays the kubelet")
        node = {"metadata": {"name": NODE}, "status": {"conditions": [ready]}}
        try:
            self._api.post("/api/v1/nodes", node)
        except ApiError as error:
            if error.reason != "AlreadyExists":
                raise


def _running(pod: Object) -> Object:
    now = _now()
    return {
        "phase": "Running",
        "startTime": now,
        "conditions": [
            _condition("Ready", "True"),
            _condition("ContainersReady", "True"),
            _condition("Initialized", "True"),
        ],
        **_containers(pod, {"running": {"startedAt": now}}),
    }


def _never_started(pod: Object) -> Object:
    """As the kubelet says it of containers that a deleted pod never had."""
    said = "The container could not be located when the pod was terminated"
    state = {"terminated": {"exitCode": 137, "reason": "ContainerStatusUnknown", "message": said}}
    return {"phase": "Failed", **_containers(pod, state)}


def _terminated(pod: Object, fate: Fate) -> Object:
    now = _now()
    state = {
        "terminated": {
            "exitCode": fate.exit_code,
            "reason": fate.reason,
            "message": fate.message,
            "startedAt": pod["status"].get("startTime", now),
            "finishedAt": _now(ago=fate.ago),
        }
    }
    if fate.beside is None:
        return {"phase": "Running", **_containers(pod, state, {"running": {"startedAt": now}})}
    others = {"terminated": state["terminated"] | {"exitCode": fate.beside, "message": ""}}
    why = "PodCompleted" if fate.exit_code == 0 else "PodFailed"
    conditions = [_condition("Ready", "False", why), _condition("ContainersReady", "False", why)]
    if fate.disruption:
        conditions.append(_condition("DisruptionTarget", "True", fate.disruption, "disrupted by a test"))
    said = {"reason": "Evicted", "message": fate.evicted} if fate.evicted else {}
    failed = fate.exit_code or said or (fate.beside and len(pod["spec"]["containers"]) > 1)
    phase = "Failed" if failed else "Succeeded"
    return {"phase": phase, "conditions": conditions, **said, **_containers(pod, state, others)}


def _all_terminated(pod: Object) -> Object:
    """Those that ended before as they did, the others stopped."""
    stopped = {"terminated": {"exitCode": TERMINATED_BY_SIGTERM, "reason": "Error", "finishedAt": _now()}}
    containers = pod["status"]["containerStatuses"]
    statuses = [c if "terminated" in c["state"] else {**c, "ready": False, "state": stopped} for c in containers]
    return {"phase": "Failed", "containerStatuses": statuses}


def _containers(pod: Object, state: Object, beside: Object | None = None) -> Object:
    """Status of all containers: `state` for those of the Job, `beside` for injected ones, done for those that ran before."""
    spec, done = pod["spec"], {"terminated": {"exitCode": 0, "reason": "Completed", "finishedAt": _now()}}
    injected = pod["metadata"].get("annotations", {}).get(INJECTED, "").split(",")
    states = {c["name"]: beside if beside and c["name"] in injected else state for c in spec["containers"]}
    status = {
        "containerStatuses": [_container(container, states[container["name"]]) for container in spec["containers"]]
    }
    if before := spec.get("initContainers"):
        status["initContainerStatuses"] = [_container(container, done) for container in before]
    return status


def _container(container: Object, state: Object) -> Object:
    image = container["image"]
    running = "running" in state
    return {
        "name": container["name"],
        "image": image,
        "imageID": ""
        if "waiting" in state
        else image
        if "@" in image
        else f"{image}@sha256:{hashlib.sha256(image.encode()).hexdigest()}",
        "ready": running,
        "started": running,
        "restartCount": 0,
        "state": state,
    }


def _condition(kind: str, status: str, reason: str = "", message: str = "") -> Object:
    return {"type": kind, "status": status, "reason": reason, "message": message, "lastTransitionTime": _now()}


def _path(pod: Object) -> str:
    return f"/api/v1/namespaces/{pod['metadata']['namespace']}/pods/{pod['metadata']['name']}"


def _now(*, ago: float = 0) -> str:
    return (datetime.datetime.now(datetime.UTC) - datetime.timedelta(seconds=ago)).strftime("%Y-%m-%dT%H:%M:%SZ")
