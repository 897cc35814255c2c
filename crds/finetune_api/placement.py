"""Where and with what the training pod runs: the parts of a pod that users choose."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from finetune_api.base import MAX_INT32, NULL_IS_ABSENT, LabelKey, LabelValue, Model, ObjectName, Quantity, Rule, says

ResourceName = LabelKey


class Resources(Model):
    """Resources of the training pod, as in every container of Kubernetes."""

    limits: Annotated[dict[ResourceName, Quantity], Field(max_length=16), NULL_IS_ABSENT] | None = None
    """The most the pod may use, such as `{nvidia.com/gpu: 1, memory: 16Gi}`. Default: none, and no GPU."""

    requests: Annotated[dict[ResourceName, Quantity], Field(max_length=16), NULL_IS_ABSENT] | None = None
    """What the scheduler sets aside. Default: the limits."""


class Toleration(Model):
    """A taint of nodes that the pod puts up with."""

    key: LabelKey | None = None
    """The taint's key. Default: every key, with `operator: Exists`."""

    operator: Literal["Equal", "Exists"] = "Equal"
    """How key and value are compared. Default: Equal."""

    value: LabelValue | None = None
    """The taint's value, for `operator: Equal`. Default: an empty value."""

    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None
    """The taint's effect. Default: every effect."""

    toleration_seconds: Annotated[int, Field(ge=0, le=MAX_INT32)] | None = None
    """How long the pod stays after a NoExecute taint appears, in seconds. Default: for ever."""


class SecretName(Model):
    """A Secret in the job's namespace."""

    name: ObjectName
    """The Secret's name."""


class Pod(Model):
    """What the training pod gets beside its container. A change is obeyed by the next pod that is created."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "labels under finetune.dev/ are the operator's own; choose another prefix",
            "!has(self.labels) || self.labels.all(k, !k.startsWith('finetune.dev/'))",
            lambda p: p.labels is None or not any(k.startswith("finetune.dev/") for k in p.labels),
        ),
    )

    service_account_name: ObjectName | None = None
    """The service account, for a cloud identity that may read and write the storage. Its token is not mounted.
    Default: the namespace's default account."""

    node_selector: Annotated[dict[LabelKey, LabelValue], Field(max_length=32), NULL_IS_ABSENT] | None = None
    """Labels a node must have. Default: any node."""

    tolerations: Annotated[list[Toleration], Field(max_length=32)] | None = None
    """Taints of nodes the pod puts up with. Default: none."""

    affinity: (
        Annotated[dict[str, Any], Field(json_schema_extra={"x-kubernetes-preserve-unknown-fields": True})] | None
    ) = None
    """Node and pod affinity, as in a pod. Default: none."""

    priority_class_name: ObjectName | None = None
    """The PriorityClass. Default: the cluster's default."""

    runtime_class_name: ObjectName | None = None
    """The RuntimeClass, such as `nvidia`. Default: the node's default runtime."""

    labels: Annotated[dict[LabelKey, LabelValue], Field(max_length=32), NULL_IS_ABSENT] | None = None
    """More labels of the pod. Default: the operator's own only."""

    annotations: (
        Annotated[dict[LabelKey, Annotated[str, Field(max_length=4096)]], Field(max_length=32), NULL_IS_ABSENT] | None
    ) = None
    """More annotations of the pod. Default: none."""

    image_pull_secrets: Annotated[list[SecretName], Field(max_length=8)] | None = None
    """Secrets for pulling the image. Default: those of the service account."""


class SecretKey(Model):
    """One key of a Secret in the job's namespace."""

    name: ObjectName
    """The Secret's name."""

    key: Annotated[
        str,
        Field(
            pattern=r"^[-._a-zA-Z0-9]+$",
            min_length=1,
            max_length=253,
            json_schema_extra=says("letters, digits, dashes, dots and underscores"),
        ),
    ] = "token"
    """The key in it. Default: token."""
