"""What a platform sets for all training pods: it reaches them, it is waited for, and it moves no job that is there."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from finetune_operator.worlds.kube.client import Client
from finetune_operator.worlds.kube.platform import TrustedCa
from finetune_operator.worlds.kube.trust import missing_trust
from tests.cluster.api import ApiError, Object
from tests.cluster.control_plane import ControlPlane
from tests.cluster.kubelet import run_on, waits
from tests.cluster.waiting import eventually
from tests.integration.chart.helm import container, named, only, render
from tests.integration.operator.lab import Account, Lab, Site, operating

VALUES = [
    "trainer.env.HTTPS_PROXY=http://proxy.example:3128",
    "trainer.env.NOTE=costs $(HOME) $5",
    "trainer.trustedCa.configMap=corporate-ca",
    "trainer.trustedCa.key=bundle.pem",
    "podSecurity.fixedIds=false",
]
CONFIG_MAPS = "/api/v1/namespaces/{}/configmaps"


def trust(lab: Lab, **data: str) -> None:
    path = CONFIG_MAPS.format(lab.namespace)
    lab.cluster.api.post(path, {"metadata": {"name": "corporate-ca"}, "data": data})


def authority(lab: Lab) -> str:
    return lab.cluster.authority.certificate.read_text()


def arguments(values: list[str]) -> list[str]:
    """What the chart gives the operator beside what the lab does, as it reads them once the kubelet has expanded it."""
    given = [a.replace("$$", "$") for a in container(render(values))["args"]]
    return [a for a in given if a.startswith("--trainer-") and not a.startswith("--trainer-image")] + [
        a for a in given if a == "--no-fixed-ids"
    ]


@pytest.fixture
def platform_lab(own_lab: Lab) -> Lab:
    """Its operator has the rights that the chart gives it with these values."""
    found = render([*VALUES, f"watchNamespace={own_lab.namespace}"])
    rules = named(found, "Role", "release-finetune-operator")["rules"]
    return Lab(own_lab.site, own_lab.namespace, Account(own_lab.cluster, own_lab.namespace, rules))


def test_a_jobs_pod_gets_what_the_platform_sets_once_its_certificates_are_there(
    platform_lab: Lab, tmp_path: Path
) -> None:
    lab = platform_lab
    with operating(lab.account, tmp_path, f"--namespace={lab.namespace}", *arguments(VALUES)):
        lab.apply()
        status = lab.until(phase="Pending", reason="TrustedCaInvalid")
        assert status["message"] == (
            f"There is no ConfigMap corporate-ca in namespace {lab.namespace}, which every training pod needs. "
            "Ask whoever runs the cluster to bring the ConfigMap of the chart's trainer.trustedCa to this namespace."
        )
        assert lab.jobs() == []
        trust(lab, **{"bundle.pem": authority(lab)})
        lab.edit(backoffLimit=1)  # instead of half a minute of patience
        lab.until(phase="Running")
        pod = lab.pods()[0]["spec"]
        environment = {e["name"]: e.get("value") for e in pod["containers"][0]["env"]}
        assert environment["HTTPS_PROXY"] == "http://proxy.example:3128"
        assert environment["NOTE"] == "costs $$(HOME) $$5"  # a kubelet makes one of each two
        assert environment["FINETUNE_TRUSTED_CA"] == "/etc/finetune/trusted-ca/ca.crt"
        assert {"name": "trusted-ca", "mountPath": "/etc/finetune/trusted-ca", "readOnly": True} in pod["containers"][
            0
        ]["volumeMounts"]
        (volume,) = (v["configMap"] for v in pod["volumes"] if v["name"] == "trusted-ca")
        assert (volume["name"], volume["items"]) == ("corporate-ca", [{"key": "bundle.pem", "path": "ca.crt"}])
        assert not {"runAsUser", "runAsGroup", "fsGroup"} & set(pod["securityContext"])
        # A pod that comes later finds them gone.
        lab.pods_are(waits("ContainerCreating", ""))
        lab.cluster.api.delete(f"{CONFIG_MAPS.format(lab.namespace)}/corporate-ca")
        lab.kubectl("delete", "pod", lab.pods()[0]["metadata"]["name"], "--wait=false")
        lab.until(phase="Starting", reason="TrustedCaInvalid")


def test_another_setting_stops_no_job_and_makes_no_run_another(platform_lab: Lab, tmp_path: Path) -> None:
    lab = platform_lab
    trust(lab, **{"bundle.pem": authority(lab)})
    with operating(lab.account, tmp_path, f"--namespace={lab.namespace}"):
        lab.apply("old")
        run = lab.until("old", phase="Running")["run"]
    before = lab.versions()
    with operating(lab.account, tmp_path, f"--namespace={lab.namespace}", *arguments(VALUES)) as operator:
        lab.apply("new")
        assert lab.until("new", phase="Running")["run"]["fingerprint"] == run["fingerprint"]
        eventually(lambda: operator.reconciles() >= 3)
        assert [version for version in lab.versions() if version in before] == before


@pytest.mark.parametrize(
    ("config_map", "said"),
    [
        (None, "There is no ConfigMap c in namespace"),
        ({"data": {"other": "x"}}, "The key ca.crt of the ConfigMap c in namespace {} is missing"),
        ({"data": {"ca.crt": ""}}, "{} holds no certificates in PEM form"),
        ({"data": {"ca.crt": "# to come"}}, "{} holds no certificates in PEM form"),
        ({"data": {"ca.crt": "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----"}}, "number 1, that cannot"),
        ({"data": {"ca.crt": "# Autorité\nCA"}}, ""),
        ({"binaryData": {"ca.crt": "CA"}}, ""),
    ],
    ids=["none", "another key", "empty", "a note", "a broken one", "in text", "in bytes"],
)
async def test_certificates_are_read_before_a_pod_mounts_them(
    config_map: Object | None, said: str, control_plane: ControlPlane, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pem = control_plane.authority.certificate.read_text()
    text = base64.b64encode(pem.encode()).decode() if config_map and "binaryData" in config_map else pem
    if config_map is not None:
        ((kind, entries),) = config_map.items()
        filled = {
            kind: {key: value.replace("CA", text) if value.endswith("CA") else value for key, value in entries.items()}
        }
        control_plane.api.post(CONFIG_MAPS.format(namespace), {"metadata": {"name": "c"}, **filled})
    monkeypatch.setenv("KUBECONFIG", str(control_plane.kubeconfig))
    async with Client.from_environment() as client:
        refusal = await missing_trust(client, namespace, TrustedCa("c", "ca.crt"))
    assert (refusal is None) is (said == "")
    if refusal is not None:
        assert said.format(namespace) in refusal.message


async def test_an_operator_without_the_right_to_look_says_so(own_lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", str(own_lab.account.kubeconfig))
    async with Client.from_environment() as client:
        refusal = await missing_trust(client, own_lab.namespace, TrustedCa("c", "ca.crt"))
    assert refusal is not None
    assert f"The operator may not read the ConfigMap c in namespace {own_lab.namespace}: " in refusal.message


def test_pods_without_fixed_numbers_are_admitted_where_the_cluster_chooses_them(
    control_plane: ControlPlane, site: Site, own_lab: Lab, tmp_path: Path
) -> None:
    """As OpenShift's restricted-v2 has it: a pod may name a user or group only of its namespace's own range."""
    lab = own_lab
    refuse_other_ids(control_plane, lab.namespace)
    operator_pod = only(render(["serviceAccount.create=false"]), "Deployment")["spec"]["template"]["spec"]
    free_pod = only(render(["serviceAccount.create=false", "podSecurity.fixedIds=false"]), "Deployment")["spec"][
        "template"
    ]
    path = f"/api/v1/namespaces/{lab.namespace}/pods?dryRun=All"

    def admitted(spec: Any) -> bool:
        try:
            return bool(control_plane.api.post(path, {"metadata": {"name": "operator"}, "spec": spec}))
        except ApiError as error:
            if "not in the range" not in str(error):
                raise
            return False

    eventually(lambda: not admitted(operator_pod))
    assert admitted(free_pod["spec"])
    lab.pods_are(run_on())
    with operating(lab.account, tmp_path, f"--namespace={lab.namespace}"):
        lab.apply()
        lab.until(reason="AdmissionDenied")
    with operating(lab.account, tmp_path, f"--namespace={lab.namespace}", "--no-fixed-ids"):
        lab.until(
            phase="Running"
        )  # it was made anew: a job that waits is not to wait for ever for a setting that was wrong


def refuse_other_ids(cluster: ControlPlane, namespace: str) -> None:
    name = f"ranges-of-{namespace}"
    group = "/apis/admissionregistration.k8s.io/v1"
    fields = " && ".join(f"!has(c.{field})" for field in ("runAsUser", "runAsGroup", "fsGroup"))
    policy = {
        "metadata": {"name": name},
        "spec": {
            "matchConstraints": {
                "resourceRules": [
                    {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}
                ]
            },
            "validations": [
                {
                    "expression": f"!has(object.spec.securityContext) || [object.spec.securityContext].all(c, {fields})",
                    "message": "not in the range of this namespace",
                }
            ],
        },
    }
    binding = {
        "metadata": {"name": name},
        "spec": {
            "policyName": name,
            "validationActions": ["Deny"],
            "matchResources": {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}}},
        },
    }
    cluster.api.post(f"{group}/validatingadmissionpolicies", json.loads(json.dumps(policy)))
    cluster.api.post(f"{group}/validatingadmissionpolicybindings", binding)
