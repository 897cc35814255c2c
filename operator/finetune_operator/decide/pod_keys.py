"""Labels and annotations of a pod that other systems of the cluster obey.

Whoever may write FineTuneJobs but no pods must not get by them what those systems give to pods: the secrets of another role, a
network, a sidecar, a way out of a security profile. Their keys are refused unless the platform allows them, but for those that keep
a system away from the pod. What names no domain, or one of the users' own, is theirs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from finetune_api.job import FineTuneJobSpec
from finetune_api.shown import path_text

OTHERS = (
    ("kubernetes.io", "k8s.io", "x-k8s.io", "openshift.io"),  # of clusters themselves
    ("istio.io", "linkerd.io", "kuma.io", "dapr.io", "openservicemesh.io", "cilium.io"),  # meshes
    ("hashicorp.com", "banzaicloud.com", "banzaicloud.io", "bank-vaults.io"),  # secrets
    ("1password.io", "cyberark.com", "doppler.com"),  # secrets
    ("amazonaws.com", "aliyun.com", "alibabacloud.com", "gke.io", "gke-gcsfuse", "spiffe.io"),  # clouds and identities
    ("cncf.io", "multus-cni.io", "ovn.org", "projectcalico.org", "antrea.io"),  # networks
    ("networkservicemesh.io", "tailscale.com"),  # networks
    ("opentelemetry.io", "datadoghq.com", "dynatrace.com", "newrelic.com"),  # code put into processes
    ("jaegertracing.io",),  # sidecars
)
DOMAINS = frozenset(domain for domains in OTHERS for domain in domains)
"""Each with the domains below it."""

HARMLESS: dict[str, tuple[str, ...] | None] = {
    "sidecar.istio.io/inject": ("false",),
    "linkerd.io/inject": ("disabled",),
    "kuma.io/sidecar-injection": ("disabled",),
    "openservicemesh.io/sidecar-injection": ("disabled",),
    "dapr.io/enabled": ("false",),
    "consul.hashicorp.com/connect-inject": ("false",),
    "vault.hashicorp.com/agent-inject": ("false",),
    "sidecar.opentelemetry.io/inject": ("false",),
    "cluster-autoscaler.kubernetes.io/safe-to-evict": None,
}
"""Keys that everybody may write, with the values they may have; None: any."""


def foreign_keys(spec: FineTuneJobSpec, allowed: Sequence[str]) -> Iterator[tuple[str, str]]:
    """The place in the manifest and the domain of each key that belongs to another system.

    `allowed` are the platform's: keys, or domains with all below them.
    """
    for block, pairs in (("labels", spec.pod.labels), ("annotations", spec.pod.annotations)):
        for key, value in (pairs or {}).items():
            domain, slash, _ = key.rpartition("/")
            of_others = slash and any(_within(domain, other) for other in DOMAINS)
            harmless = key in HARMLESS and ((values := HARMLESS[key]) is None or value in values)
            permitted = any(key == this or _within(domain, this) for this in allowed)
            if of_others and not harmless and not permitted:
                yield path_text(("spec", "pod", block, key)), domain


def _within(domain: str, other: str) -> bool:
    return domain == other or domain.endswith(f".{other}")
