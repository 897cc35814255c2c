"""Labels, annotations and paths, each named once."""

from __future__ import annotations

from finetune_api import GROUP, PLURAL, VERSION
from finetune_api.job import QUEUE_LABEL as QUEUE_LABEL

JOB_LABEL = f"{GROUP}/job"
UID_LABEL = f"{GROUP}/uid"
RUN_LABEL = f"{GROUP}/run"
PLACEMENT_ANNOTATION = f"{GROUP}/placement"
PLATFORM_ANNOTATION = f"{GROUP}/platform"
PROGRESS_CA_ANNOTATION = f"{GROUP}/progress-ca"
ADDRESS_ANNOTATION = f"{GROUP}/progress-address"
LIMITS_ANNOTATION = f"{GROUP}/limits"
QUEUE_PRIORITY_LABEL = "kueue.x-k8s.io/priority-class"
TOPOLOGY_ANNOTATIONS = tuple(
    f"kueue.x-k8s.io/podset-{how}-topology" for how in ("required", "preferred", "unconstrained")
)
"""Of a pod's template, and of the FineTuneJob that it is made from."""

CONTAINER = "trainer"
OURS = UID_LABEL
"""Label selector of everything this operator makes."""


GROUPS = "/apis"
"""What the API server offers."""


REVIEWS = "/apis/authentication.k8s.io/v1/tokenreviews"


def finetunejobs(namespace: str | None = None) -> str:
    return _collection(f"/apis/{GROUP}/{VERSION}", namespace, PLURAL)


def jobs(namespace: str | None = None) -> str:
    return _collection("/apis/batch/v1", namespace, "jobs")


def pods(namespace: str | None = None) -> str:
    return _collection("/api/v1", namespace, "pods")


def config_maps(namespace: str) -> str:
    return _collection("/api/v1", namespace, "configmaps")


def secrets(namespace: str) -> str:
    return _collection("/api/v1", namespace, "secrets")


def leases(namespace: str) -> str:
    return _collection("/apis/coordination.k8s.io/v1", namespace, "leases")


def core_events(namespace: str) -> str:
    return _collection("/api/v1", namespace, "events")


def events(namespace: str) -> str:
    return _collection("/apis/events.k8s.io/v1", namespace, "events")


def _collection(group: str, namespace: str | None, plural: str) -> str:
    return f"{group}/namespaces/{namespace}/{plural}" if namespace else f"{group}/{plural}"
