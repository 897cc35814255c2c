"""The part of Kueue's Workload that says why a Job waits in a queue, as a custom resource of a real API server, and Kueue's hand in it.

Its fields are those of Kueue's `workload_types.go` (v1beta2, https://github.com/kubernetes-sigs/kueue, Apache License 2.0); what it
has besides is kept and not checked.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from tests.cluster.api import Api, ApiError, Object
from tests.cluster.waiting import eventually

GROUP, VERSION = "kueue.x-k8s.io", "v1beta2"
NAME = f"workloads.{GROUP}"
TEXT, ANYTHING = {"type": "string"}, {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
CONDITION = {
    "type": "object",
    "required": ["type", "status", "reason", "message", "lastTransitionTime"],
    "properties": dict.fromkeys(("type", "reason", "message", "lastTransitionTime"), TEXT)
    | {"status": {"type": "string", "enum": ["True", "False", "Unknown"]}, "observedGeneration": {"type": "integer"}},
}
CHECK = {
    "type": "object",
    "required": ["name", "state", "message", "lastTransitionTime"],
    "properties": dict.fromkeys(("name", "message", "lastTransitionTime"), TEXT)
    | {"state": {"type": "string", "enum": ["Pending", "Ready", "Retry", "Rejected"]}},
}
SCHEMA = {
    "type": "object",
    "properties": {
        "spec": {
            **ANYTHING,
            "properties": {
                "active": {"type": "boolean", "default": True},
                "queueName": {"type": "string", "maxLength": 253},
                "podSets": {"type": "array", "items": ANYTHING},
            },
        },
        "status": {
            **ANYTHING,
            "properties": {
                "conditions": {
                    "type": "array",
                    "items": CONDITION,
                    "x-kubernetes-list-type": "map",
                    "x-kubernetes-list-map-keys": ["type"],
                },
                "admissionChecks": {"type": "array", "items": CHECK},
            },
        },
    },
}
DEFINITION: dict[str, Any] = {
    "metadata": {
        "name": NAME,
        "annotations": {"api-approved.kubernetes.io": "https://github.com/kubernetes-sigs/kueue/pull/1"},
    },
    "spec": {
        "group": GROUP,
        "names": {"kind": "Workload", "plural": "workloads", "singular": "workload"},
        "scope": "Namespaced",
        "versions": [
            {
                "name": VERSION,
                "served": True,
                "storage": True,
                "schema": {"openAPIV3Schema": SCHEMA},
                "subresources": {"status": {}},
            }
        ],
    },
}


@contextlib.contextmanager
def workloads_served(api: Api) -> Iterator[None]:
    """Meanwhile."""
    definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
    api.post(definitions, DEFINITION)
    try:
        eventually(lambda: _is_served(api), 30)
        yield
    finally:
        api.delete(f"{definitions}/{NAME}")


def _is_served(api: Api) -> bool:
    try:
        api.get(f"/apis/{GROUP}/{VERSION}/workloads")
    except ApiError:
        return False
    return True


class Queue:
    """Kueue's part in one Job: it suspends that, and says why in the Workload that it makes for it."""

    def __init__(self, api: Api, job: Object, queue: str) -> None:
        self._api, meta = api, job["metadata"]
        self._job = f"/apis/batch/v1/namespaces/{meta['namespace']}/jobs/{meta['name']}"
        self._suspend(True)
        owner = {"apiVersion": "batch/v1", "kind": "Job", "name": meta["name"], "uid": meta["uid"], "controller": True}
        name = f"job-{meta['name']}-1a2b3"
        path = f"/apis/{GROUP}/{VERSION}/namespaces/{meta['namespace']}/workloads"
        workload = {
            "apiVersion": f"{GROUP}/{VERSION}",
            "kind": "Workload",
            "metadata": {"name": name, "labels": {f"{GROUP}/job-uid": meta["uid"]}, "ownerReferences": [owner]},
            "spec": {"queueName": queue, "podSets": [{"name": "main", "count": 1}]},
        }
        api.post(path, workload)
        self._status = f"{path}/{name}/status"

    def says(self, reason: str, message: str) -> None:
        """It does not admit the Job."""
        self._condition("QuotaReserved", "False", reason, message)

    def admits(self) -> None:
        self._condition("QuotaReserved", "True", "QuotaReserved", "Quota reserved in ClusterQueue team-a")
        self._condition("Admitted", "True", "Admitted", "The workload is admitted")
        self._suspend(False)

    def _condition(self, kind: str, status: str, reason: str, message: str) -> None:
        known = self._api.get(self._status.removesuffix("/status")).get("status", {}).get("conditions", [])
        said = {"type": kind, "status": status, "reason": reason, "message": message, "lastTransitionTime": "2026-01-01T00:00:00Z"}  # fmt: skip
        conditions = [*(c for c in known if c["type"] != kind), said]
        self._api.patch(self._status, {"status": {"conditions": conditions}})

    def _suspend(self, suspended: bool) -> None:
        self._api.patch(self._job, {"spec": {"suspend": suspended}})
