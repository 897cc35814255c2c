"""The batch Job of a run: what its pod is, may do and may not do."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from finetune_api import API_VERSION, KIND
from finetune_api.exit_codes import NEVER_RETRIED, NOT_COUNTED
from finetune_api.job import FineTuneJobSpec
from finetune_api.placement import Toleration
from finetune_api.run import (
    ATTEMPT_ENV,
    RUN_ENV,
    SERVER_CA_ENV,
    SERVER_ENV,
    SERVER_TOKEN_ENV,
    TRUSTED_CA_ENV,
    WORKSPACE_ENV,
)
from finetune_operator.worlds.kube import names
from finetune_operator.worlds.kube.bearer import AUDIENCE
from finetune_operator.worlds.kube.client import Object
from finetune_operator.worlds.kube.platform import DEFAULTS, Platform, TrustedCa
from finetune_operator.worlds.kube.queueing import labels_of
from finetune_operator.worlds.protocol import Key, Limits, StartTraining

SECONDS_TO_SAVE = 120
"""From SIGTERM to SIGKILL: long enough to write a checkpoint to object storage."""
SECONDS_TO_SAVE_MORE = 600
"""The same of several GPUs, which train models whose checkpoints are larger: of full tuning 12 bytes for each parameter."""
SECONDS_OUT_OF_TOUCH = 60
"""How long a pod stays on a node that is out of touch before it is given up and another one begins. Kubernetes' own 300 seconds are for
what is worth more than the work since the last checkpoint."""
OUT_OF_TOUCH = ("node.kubernetes.io/unreachable", "node.kubernetes.io/not-ready")
"""Taints of such a node."""
USER = 65532
"""`nonroot` of the trainer image; any other number would do, in group 0 too: nothing in the image is written."""
WORKSPACE = "/workspace"
CACHES = {
    "HOME": WORKSPACE,
    "USER": "finetune",  # some libraries ask for a name, and a user that the cluster chose has none
    "TMPDIR": "/tmp",  # noqa: S108 (an emptyDir of this pod alone)
    "XDG_CACHE_HOME": f"{WORKSPACE}/.cache",
    "HF_HOME": f"{WORKSPACE}/.cache/huggingface",
    "MPLCONFIGDIR": f"{WORKSPACE}/.cache/matplotlib",
    "TORCHINDUCTOR_CACHE_DIR": f"{WORKSPACE}/.cache/torchinductor",
    "TRITON_CACHE_DIR": f"{WORKSPACE}/.cache/triton",
}
"""The root of the file system is read-only; whatever libraries want to write goes to the workspace."""
PROGRESS_VOLUME, PROGRESS_FOLDER = "progress", "/var/run/finetune/progress"
TOKEN_SECONDS = 3600
"""How long a pod's token for progress is good for; the kubelet replaces it in time."""
TRUSTED_CA_VOLUME, TRUSTED_CA_FOLDER, TRUSTED_CA_FILE = "trusted-ca", "/etc/finetune/trusted-ca", "ca.crt"


@dataclass(frozen=True)
class Endpoint:
    """Where trainers tell how far they are.

    No part of the platform's digest: a pod that waits without it, or with an earlier one, is not replaced for this.
    """

    url: str
    authority: str
    """The certificate authority by which its server is known, as PEM."""


_PLACEMENT = re.compile("[0-9a-f]{16}")


def training_job(
    key: Key,
    uid: str,
    start: StartTraining,
    platform: Platform = DEFAULTS,
    progress: Endpoint | None = None,
) -> Object:
    """The Job that trains this run for the FineTuneJob `key` with `uid`."""
    spec = start.run.spec
    annotations = (spec.pod.annotations or {}) | dict(start.queueing.topology)
    if progress is not None:  # in an annotation, out of which the pod makes a file: no ConfigMap in each namespace
        annotations |= {names.PROGRESS_CA_ANNOTATION: progress.authority}
    labels = {
        "app.kubernetes.io/name": "finetune-trainer",
        "app.kubernetes.io/instance": key.name,
        "app.kubernetes.io/managed-by": "finetune-operator",
        names.JOB_LABEL: key.name,
        names.UID_LABEL: uid,
        names.RUN_LABEL: start.run.run.id,
    }
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": start.name,
            "namespace": key.namespace,
            "labels": labels | labels_of(start.queueing),
            "annotations": {
                names.PLACEMENT_ANNOTATION: start.placement,
                names.PLATFORM_ANNOTATION: platform.digest,
                **limits_asked(start.limits),
            },
            # No blockOwnerDeletion: setting it takes the right to update finalizers on some clusters.
            "ownerReferences": [
                {"apiVersion": API_VERSION, "kind": KIND, "name": key.name, "uid": uid, "controller": True}
            ],
        },
        "spec": {
            **limits(start.limits),
            "podReplacementPolicy": "Failed",  # never two pods of one run at a time
            "podFailurePolicy": {"rules": _failure_rules()},
            "template": {
                "metadata": _without_none(
                    {"labels": (spec.pod.labels or {}) | labels, "annotations": annotations or None}
                ),
                "spec": _pod(start, spec, platform, progress),
            },
        },
    }


def limits(limits: Limits) -> Object:
    """The fields of a Job's spec that may change while it runs; as a merge patch, None takes a limit away."""
    return {
        "backoffLimit": limits.backoff_limit,
        "activeDeadlineSeconds": limits.active_deadline_seconds,
        "ttlSecondsAfterFinished": limits.ttl_seconds_after_finished,
    }


def limits_asked(asked: Limits) -> dict[str, str]:
    """The annotation that remembers them: what the spec says later may be a webhook's doing, and nobody fights over it."""
    return {names.LIMITS_ANNOTATION: json.dumps(limits(asked))}


def read_limits_asked(annotations: dict[str, str]) -> Limits | None:
    """The limits in that annotation; None when it is not there or not ours."""
    try:
        asked = json.loads(annotations[names.LIMITS_ANNOTATION])
        found = Limits(asked["backoffLimit"], asked["activeDeadlineSeconds"], asked["ttlSecondsAfterFinished"])
    except (KeyError, TypeError, ValueError, RecursionError):
        return None
    others = (found.active_deadline_seconds, found.ttl_seconds_after_finished)
    whole = type(found.backoff_limit) is int and all(value is None or type(value) is int for value in others)
    return found if whole else None


def read_placement(annotations: dict[str, str]) -> str | None:
    """The digest in its annotation; None when it is not there or not ours."""
    found = annotations.get(names.PLACEMENT_ANNOTATION, "")
    return found if _PLACEMENT.fullmatch(found) else None


def _failure_rules() -> list[Object]:
    def exit_codes(action: str, codes: frozenset[Any]) -> Object:
        values = sorted(int(code) for code in codes)
        return {
            "action": action,
            "onExitCodes": {"containerName": names.CONTAINER, "operator": "In", "values": values},
        }

    return [
        {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
        exit_codes("Ignore", NOT_COUNTED),
        exit_codes("FailJob", NEVER_RETRIED),
    ]


def _pod(start: StartTraining, spec: FineTuneJobSpec, platform: Platform, progress: Endpoint | None) -> Object:
    wanted = spec.pod.model_dump(mode="json", by_alias=True, exclude_none=True, exclude={"labels", "annotations"})
    return {
        **wanted,
        "tolerations": [*wanted.get("tolerations", ()), *_tolerations(spec.pod.tolerations or ())],
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": SECONDS_TO_SAVE_MORE if spec.resources.gpus > 1 else SECONDS_TO_SAVE,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": {
            "runAsNonRoot": True,
            **({"runAsUser": USER, "runAsGroup": USER, "fsGroup": USER} if platform.fixed_ids else {}),
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [_container(start, spec, platform, progress)],
        # Without sizes of their own: spec.resources bounds them. The kubelet evicts a pod whose files outgrow its limit of
        # ephemeral-storage, and makes memory volumes as large as its limit of memory, against which they count.
        "volumes": [
            {"name": "workspace", "emptyDir": {}},
            {"name": "tmp", "emptyDir": {}},
            {"name": "shm", "emptyDir": {"medium": "Memory"}},  # 64 MiB otherwise, too little for NCCL
            *_trusted_ca_volumes(platform.trusted_ca),
            *([_PROGRESS] if progress else []),
        ],
    }


def _tolerations(said: Sequence[Toleration]) -> list[Object]:
    """Of the taints of a node that is out of touch, where the spec does not speak of them."""
    told = {t.key for t in said if t.effect in (None, "NoExecute")}
    silent = [key for key in OUT_OF_TOUCH if not told & {key, None}]
    patience = {"operator": "Exists", "effect": "NoExecute", "tolerationSeconds": SECONDS_OUT_OF_TOUCH}
    return [{"key": key, **patience} for key in silent]


_PROGRESS: Object = {
    "name": PROGRESS_VOLUME,
    "projected": {
        "sources": [
            {"serviceAccountToken": {"audience": AUDIENCE, "expirationSeconds": TOKEN_SECONDS, "path": "token"}},
            {
                "downwardAPI": {
                    "items": [
                        {
                            "path": "ca.crt",
                            "fieldRef": {
                                "apiVersion": "v1",
                                "fieldPath": f"metadata.annotations['{names.PROGRESS_CA_ANNOTATION}']",
                            },
                        }
                    ]
                }
            },
        ]
    },
}


def _trusted_ca_volumes(trusted: TrustedCa | None) -> list[Object]:
    if trusted is None:
        return []
    files = [{"key": trusted.key, "path": TRUSTED_CA_FILE}]
    return [{"name": TRUSTED_CA_VOLUME, "configMap": {"name": trusted.config_map, "items": files}}]


def read_trusted_ca(pod: Object) -> TrustedCa | None:
    """What `training_job` has mounted into this pod."""
    for volume in pod["spec"].get("volumes") or []:
        if volume["name"] == TRUSTED_CA_VOLUME and (source := volume.get("configMap")) and source.get("items"):
            return TrustedCa(source["name"], source["items"][0]["key"])
    return None


def _container(start: StartTraining, spec: FineTuneJobSpec, platform: Platform, progress: Endpoint | None) -> Object:
    environment: list[Object] = [
        {"name": RUN_ENV, "value": start.run.to_env()},
        {"name": ATTEMPT_ENV, "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.name"}}},
        {"name": WORKSPACE_ENV, "value": WORKSPACE},
        *({"name": name, "value": value} for name, value in CACHES.items()),
        # A double $ is one to the kubelet, which would else put other variables into $(…).
        *({"name": name, "value": value.replace("$", "$$")} for name, value in platform.env),
    ]
    if spec.hub is not None:
        token = {"name": spec.hub.token_secret_ref.name, "key": spec.hub.token_secret_ref.key}
        environment.append({"name": "HF_TOKEN", "valueFrom": {"secretKeyRef": token}})
    mounts: list[Object] = [
        {"name": "workspace", "mountPath": WORKSPACE},
        {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108
        {"name": "shm", "mountPath": "/dev/shm"},  # noqa: S108
    ]
    if platform.trusted_ca is not None:
        environment.append({"name": TRUSTED_CA_ENV, "value": f"{TRUSTED_CA_FOLDER}/{TRUSTED_CA_FILE}"})
        mounts.append({"name": TRUSTED_CA_VOLUME, "mountPath": TRUSTED_CA_FOLDER, "readOnly": True})
    if progress is not None:
        told = {
            SERVER_ENV: progress.url,
            SERVER_CA_ENV: f"{PROGRESS_FOLDER}/ca.crt",
            SERVER_TOKEN_ENV: f"{PROGRESS_FOLDER}/token",
        }
        environment.extend({"name": name, "value": value} for name, value in told.items())
        mounts.append({"name": PROGRESS_VOLUME, "mountPath": PROGRESS_FOLDER, "readOnly": True})
    container: Object = {
        "name": names.CONTAINER,
        "image": start.image,
        "env": environment,
        "resources": spec.resources.model_dump(mode="json", by_alias=True, exclude_none=True),
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": mounts,
    }
    if spec.storage.secret_ref is not None:
        container["envFrom"] = [{"secretRef": {"name": spec.storage.secret_ref.name}}]
    return container


def _without_none(fields: Object) -> Object:
    return {name: value for name, value in fields.items() if value is not None}
