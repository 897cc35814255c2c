"""Where and with what the training pod runs: the parts of a pod that users choose."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from finetune_api.base import (
    MAX_INT32,
    NULL_IS_ABSENT,
    DnsLabel,
    LabelKey,
    LabelValue,
    Model,
    ObjectName,
    Quantity,
    Rule,
    amount,
    says,
)

ResourceName = LabelKey
WITHOUT_A_DOMAIN = ("cpu", "memory", "ephemeral-storage")
_COUNT = re.compile("^[0-9]{1,9}$", re.ASCII)

# In CEL. To Kubernetes 1.31 to 1.33 a quantity in a map may be as long as a whole request, and reading it is so dear that of each key no
# more can be asked than one regular expression of at most four characters, and no `string(…)` or `quantity(…)`.
_IS_A_DEVICE = "(k.contains('/') && !k.contains('kubernetes.io/'))"
_LIMIT, _REQUEST = "self.limits[k]", "self.requests[k]"


def _is_a_count(value: str) -> str:
    return f"(type({value}) == int ? {value} <= 999999999 : size({value}) <= 9 && !{value}.matches(r'\\D'))"


def is_a_device(name: str) -> bool:
    """Whether a resource of this name is one that a plugin hands out whole, such as `nvidia.com/gpu`."""
    return "/" in name and "kubernetes.io/" not in name


_ACCELERATORS = re.compile(r"gpu|/mig-|tpu|npu|neuron|gaudi|ascend|mlu|dcu|/i915$|/xe$", re.IGNORECASE)
_SHARES = re.compile(r"mem|cores$|percentage|monitoring", re.IGNORECASE)
"""Of a device, in units that are none."""


def accelerators(limits: Mapping[str, Any]) -> int:
    """GPUs, slices of them such as `nvidia.com/mig-1g.10gb`, and their kin, in what a pod may use; a network card is none."""
    counts = [
        str(count)
        for name, count in limits.items()
        if is_a_device(name) and _ACCELERATORS.search(name) and not _SHARES.search(name.partition("/")[2])
    ]
    return sum(int(count) for count in counts if _COUNT.match(count))


_OF_SPEC = "self.resources.limits[k]"
HAS_A_DEVICE = (
    "(self.?resources.?claims.hasValue() && size(self.resources.claims) > 0) || (self.?resources.?limits.hasValue() && "
    f"self.resources.limits.exists(k, {_IS_A_DEVICE} && "
    f"(type({_OF_SPEC}) == int ? {_OF_SPEC} > 0 : !{_OF_SPEC}.matches('^0*$'))))"
)
"""In CEL, of a spec, `Resources.have_a_device`."""


def has_more_gpus_than(number: str) -> str:
    """In CEL, of a spec, `Resources.gpus > number`. What is no count is refused by a rule of its own."""
    return (
        "self.?resources.?limits.hasValue() && self.resources.limits.exists(k, k.endsWith('/gpu') && "
        f"{_is_a_count(_OF_SPEC)} && int({_OF_SPEC}) > {number})"
    )


def _written_alike(name: str, request: int | str, limit: int | str) -> bool:
    counts = is_a_device(name) and all(_COUNT.match(str(value)) for value in (request, limit))
    return request == limit or (counts and int(request) == int(limit))


class DeviceClaim(Model):
    """One of the pod's resource claims, for the training container."""

    name: DnsLabel
    """The name of the claim in `pod.resourceClaims`."""

    request: DnsLabel | None = None
    """One of the requests of the claim. Default: all that it has."""


class Resources(Model):
    """Resources of the training pod, as in every container of Kubernetes."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "a resource without a domain is cpu, memory, ephemeral-storage or hugepages-SIZE; write any other one with its "
            "domain, such as nvidia.com/gpu",
            " && ".join(
                f"(!has(self.{block}) || self.{block}.all(k, k.contains('/') || k.startsWith('hugepages-') || "
                f"k in {list(WITHOUT_A_DOMAIN)}))"
                for block in ("limits", "requests")
            ),
            lambda r: all(
                "/" in k or k.startswith("hugepages-") or k in WITHOUT_A_DOMAIN
                for k in {**(r.limits or {}), **(r.requests or {})}
            ),
        ),
        Rule(
            "a device such as nvidia.com/gpu is counted; give limits of it as a whole number, such as 1",
            f"!has(self.limits) || self.limits.all(k, !{_IS_A_DEVICE} || {_is_a_count(_LIMIT)})",
            lambda r: all(_COUNT.match(str(v)) for k, v in (r.limits or {}).items() if is_a_device(k)),
        ),
        Rule(
            "a device such as nvidia.com/gpu, and hugepages, are never shared, so requests of them need limits of the same; "
            "give them in limits only",
            f"!has(self.requests) || self.requests.all(k, !({_IS_A_DEVICE} || k.startsWith('hugepages-')) || "
            f"(has(self.limits) && k in self.limits && ({_REQUEST} == {_LIMIT} || ({_IS_A_DEVICE} && int({_REQUEST}) == int({_LIMIT})))))",
            lambda r: all(
                k in (r.limits or {}) and _written_alike(k, v, r.limits[k])
                for k, v in (r.requests or {}).items()
                if is_a_device(k) or k.startswith("hugepages-")
            ),
        ),
        Rule(
            "requests must not be larger than limits; lower the request, or raise the limit",
            f"!has(self.requests) || !has(self.limits) || {list(WITHOUT_A_DOMAIN)}.all(k, !(k in self.requests) || !(k in self.limits) || "
            f"quantity(string({_REQUEST})).compareTo(quantity(string({_LIMIT}))) <= 0)",
            lambda r: all(
                amount(v) <= amount(r.limits[k])
                for k, v in (r.requests or {}).items()
                if k in WITHOUT_A_DOMAIN and k in (r.limits or {})
            ),
        ),
    )

    limits: Annotated[dict[ResourceName, Quantity], Field(max_length=16), NULL_IS_ABSENT] | None = None
    """The most the pod may use, such as `{nvidia.com/gpu: 1, memory: 16Gi}`. Default: none, and no GPU."""

    requests: Annotated[dict[ResourceName, Quantity], Field(max_length=16), NULL_IS_ABSENT] | None = None
    """What the scheduler sets aside. Default: the limits."""

    claims: Annotated[list[DeviceClaim], Field(max_length=8)] | None = None
    """Devices that drivers hand out by dynamic resource allocation (DRA): those of `pod.resourceClaims` that the training may use. Whatever
    is claimed, one process trains, on the first GPU of it; several GPUs are asked for in limits. Default: none."""

    @property
    def have_a_device(self) -> bool:
        counted = any(is_a_device(name) and amount(count) > 0 for name, count in (self.limits or {}).items())
        return counted or bool(self.claims)

    @property
    def gpus(self) -> int:
        """Whole GPUs, such as `nvidia.com/gpu`, of the maker of whom there are most: others do not work together. A slice of one counts
        as none, as one process cannot use several and several do not work together either."""
        return max((int(amount(n)) for name, n in (self.limits or {}).items() if name.endswith("/gpu")), default=0)


class Toleration(Model):
    """A taint of nodes that the pod puts up with."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "operator Exists takes no value; remove value, or write Equal",
            "!has(self.operator) || self.operator != 'Exists' || !has(self.value) || self.value == ''",
            lambda t: t.operator != "Exists" or not t.value,
        ),
        Rule(
            "without a key it is about every taint and needs `operator: Exists`; write that, or name a key",
            "has(self.key) || (has(self.operator) && self.operator == 'Exists')",
            lambda t: t.key is not None or t.operator == "Exists",
        ),
        Rule(
            "tolerationSeconds is for `effect: NoExecute` only; write that effect, or remove it",
            "!has(self.tolerationSeconds) || (has(self.effect) && self.effect == 'NoExecute')",
            lambda t: t.toleration_seconds is None or t.effect == "NoExecute",
        ),
    )

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


AffinityRules = Annotated[dict[str, Any], Field(max_length=2)]
"""What is required and what is preferred. Its inside is left to the API server, which checks it when the Job is created."""


class Affinity(Model):
    """Which nodes, and which pods on them, the pod is drawn to or keeps away from; each as in a pod."""

    node_affinity: AffinityRules | None = None
    """Which nodes it may or should run on, by their labels. Default: any."""

    pod_affinity: AffinityRules | None = None
    """Beside which pods it must or should run. Default: any."""

    pod_anti_affinity: AffinityRules | None = None
    """Beside which pods it must not or should not run. Default: none."""


class ResourceClaim(Model):
    """A claim of devices by dynamic resource allocation (DRA)."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "a claim is one that is there or is made from a template; give one of resourceClaimName and resourceClaimTemplateName",
            "has(self.resourceClaimName) != has(self.resourceClaimTemplateName)",
            lambda c: (c.resource_claim_name is None) != (c.resource_claim_template_name is None),
        ),
    )

    name: DnsLabel
    """What `resources.claims` calls it."""

    resource_claim_name: ObjectName | None = None
    """A ResourceClaim of the job's namespace. Default: none, one is made from the template."""

    resource_claim_template_name: ObjectName | None = None
    """A ResourceClaimTemplate of the job's namespace, of which each pod gets a claim of its own. Default: none."""


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
    """Taints of nodes the pod puts up with. Of a node that is out of touch (`node.kubernetes.io/unreachable` and `not-ready`) it does so
    for 60 seconds where they are not listed here, and then another pod goes on. Default: no others."""

    affinity: Affinity | None = None
    """Node and pod affinity, as in a pod. Default: none."""

    priority_class_name: ObjectName | None = None
    """The PriorityClass. Default: the cluster's default."""

    runtime_class_name: ObjectName | None = None
    """The RuntimeClass, such as `nvidia`. Default: the node's default runtime."""

    labels: Annotated[dict[LabelKey, LabelValue], Field(max_length=32), NULL_IS_ABSENT] | None = None
    """More labels of the pod. Those that other systems of the cluster obey (of istio.io, kubernetes.io and the like) keep the job
    from starting, unless the platform allows them. Default: the operator's own only."""

    annotations: (
        Annotated[dict[LabelKey, Annotated[str, Field(max_length=4096)]], Field(max_length=32), NULL_IS_ABSENT] | None
    ) = None
    """More annotations of the pod; of other systems as for labels. What keeps one away, such as `sidecar.istio.io/inject: "false"`,
    may always be written. Default: none."""

    image_pull_secrets: Annotated[list[SecretName], Field(max_length=8)] | None = None
    """Secrets for pulling the image. Default: those of the service account."""

    resource_claims: Annotated[list[ResourceClaim], Field(max_length=8)] | None = None
    """Claims of devices by dynamic resource allocation (DRA); `resources.claims` says that the training uses them. Default: none."""


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


def claims_that_differ(pod: Pod, resources: Resources) -> bool:
    """Whether one of the two names a claim that the other does not, or one twice."""
    made, used = [c.name for c in pod.resource_claims or ()], [c.name for c in resources.claims or ()]
    return sorted(made) != sorted(used) or len(made) != len(set(made))


_MADE = "(has(self.pod) && has(self.pod.resourceClaims) ? self.pod.resourceClaims.map(c, c.name) : [])"
_USED = "(has(self.resources) && has(self.resources.claims) ? self.resources.claims.map(c, c.name) : [])"
CLAIMS_AGREE = (
    "(!self.?pod.?resourceClaims.hasValue() && !self.?resources.?claims.hasValue()) || "
    f"(size({_MADE}) == size({_USED}) && {_MADE}.all(n, {_MADE}.exists_one(m, m == n) && n in {_USED}))"
)
"""In CEL, of a spec, that they do not."""
