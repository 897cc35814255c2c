"""The Helm chart: what it renders is accepted by a real API server, and wrong values are refused before anything is sent."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cluster.binaries import provide
from tests.cluster.control_plane import ControlPlane
from tests.cluster.fixtures import require_program

REPOSITORY = Path(__file__).parents[3]
CHART = REPOSITORY / "charts" / "finetune-operator"

Manifest = dict[str, Any]
Render = Callable[..., list[Manifest]]

VARIANTS = {
    "as it comes": [],
    "one namespace": ["watchNamespace=default"],
    "every option": [
        "watchNamespace=default",
        "logFormat=json",
        "crds.keep=false",
        "metrics.service.enabled=true",
        "metrics.service.annotations.prometheus\\.io/scrape=yes",
        "image.repository=registry.example:5000/team/operator",
        f"image.digest=sha256:{'a' * 64}",
        "trainer.image.tag=v2_with-CUDA.13",
        "imagePullSecrets[0].name=registry",
        "serviceAccount.name=operator",
        "serviceAccount.annotations.team=ml",
        "podLabels.team=ml",
        "podAnnotations.note=hello",
        "nodeSelector.disk=ssd",
        "tolerations[0].key=dedicated",
        "tolerations[0].operator=Exists",
        "priorityClassName=",
        "fullnameOverride=tuner",
    ],
    "without CRD, RBAC and service account": [
        "crds.enabled=false",
        "rbac.create=false",
        "rbac.aggregate=false",
        "serviceAccount.create=false",
    ],
    "a long release name": ["nameOverride=an-operator-with-a-name-that-is-nearly-as-long-as-allowed"],
}

WRONG_VALUES = {
    "a misspelt value": ("image.repo=x", "image"),
    "two replicas, which would both act": ("replicas=2", "replicas"),
    "a log format that is none": ("logFormat=xml", "logFormat"),
    "a digest that is a tag": ("image.digest=v1", "digest"),
    "an image without a name": ("trainer.image.repository=", "repository"),
    "a namespace in capitals": ("watchNamespace=Team", "watchNamespace"),
    "a switch that is a word": ("crds.keep=sometimes", "keep"),
}


@pytest.mark.parametrize("values", VARIANTS.values(), ids=VARIANTS.keys())
def test_the_api_server_accepts_every_manifest(values: list[str], control_plane: ControlPlane, namespace: str) -> None:
    rendered = _helm("template", "release", str(CHART), f"--namespace={namespace}", *_set(values))
    said = control_plane.kubectl("apply", "--dry-run=server", "--validate=strict", "-f", "-", input=rendered)
    assert len(said.splitlines()) == len(_manifests(rendered))


def test_the_operators_pod_passes_restricted_pod_security(control_plane: ControlPlane, namespace: str) -> None:
    template = _only(_render(["serviceAccount.create=false"]), "Deployment")["spec"]["template"]
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "operator"}, "spec": template["spec"]}
    created = control_plane.api.post(f"/api/v1/namespaces/{namespace}/pods?dryRun=All", pod)
    assert created["metadata"]["name"] == "operator"


def test_a_release_can_be_installed_by_helm_itself(control_plane: ControlPlane, namespace: str) -> None:
    said = _helm(
        "install", "release", str(CHART), f"--namespace={namespace}", "--dry-run=server", "--set=crds.enabled=false",
        f"--kubeconfig={control_plane.kubeconfig}",
    )  # fmt: skip
    assert "The operator watches FineTuneJobs in all namespaces." in said


def test_lint_finds_nothing() -> None:
    assert "0 chart(s) failed" in _helm("lint", "--strict", str(CHART))


@pytest.mark.parametrize(("value", "said"), WRONG_VALUES.values(), ids=WRONG_VALUES.keys())
def test_the_schema_refuses(value: str, said: str) -> None:
    with pytest.raises(HelmFailed, match="values don't meet the specifications of the schema") as refusal:
        _helm("template", "release", str(CHART), f"--set={value}")
    assert said in str(refusal.value)


def test_every_value_is_in_the_schema_and_documented() -> None:
    """`additionalProperties: false` refuses a value that the schema does not know, so the defaults passing shows the rest."""
    schema = yaml.safe_load((CHART / "values.schema.json").read_text())
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    assert set(values) == set(schema["properties"]) - {"global"}


def test_the_crd_is_the_generated_one() -> None:
    crd = _only(_render([]), "CustomResourceDefinition")
    generated = yaml.safe_load((CHART / "files" / "crd.yaml").read_text())
    assert crd["spec"] == generated["spec"]


def test_an_upgrade_brings_the_newer_kind_and_uninstalling_keeps_it_with_its_jobs(tmp_path: Path) -> None:
    """In a cluster of its own: the kind is one for all namespaces."""
    require_program("kube-apiserver")
    older = tmp_path / "chart"
    shutil.copytree(CHART, older)
    crd = yaml.safe_load((older / "files" / "crd.yaml").read_text())
    (version,) = crd["spec"]["versions"]
    newest = version["additionalPrinterColumns"].pop()["name"]
    (older / "files" / "crd.yaml").write_text(yaml.safe_dump(crd))
    with ControlPlane() as cluster:
        helm = partial(_helm_in, cluster)
        helm("install", "release", str(older))
        cluster.kubectl("apply", "-f", str(REPOSITORY / "examples" / "quickstart.yaml"))
        assert newest.upper() not in cluster.kubectl("get", "ftj", "-o", "wide")
        helm("upgrade", "release", str(CHART))
        assert newest.upper() in cluster.kubectl("get", "ftj", "-o", "wide")
        helm("uninstall", "release")
        assert "topics" in cluster.kubectl("get", "ftj")
        assert "release-finetune-operator" not in cluster.kubectl("get", "deployments")


def test_uninstalling_keeps_the_jobs_unless_told_otherwise() -> None:
    kept = _only(_render([]), "CustomResourceDefinition")
    assert kept["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}
    assert "annotations" not in _only(_render(["crds.keep=false"]), "CustomResourceDefinition")["metadata"]


def test_the_operator_gets_exactly_the_documented_rules() -> None:
    rules = yaml.safe_load((CHART / "files" / "operator-rules.yaml").read_text())
    assert (
        next(m for m in _render([]) if m["metadata"]["name"] == "release-finetune-operator" and "rules" in m)["rules"]
        == rules
    )


def test_an_operator_of_one_namespace_has_no_right_outside_it() -> None:
    manifests = _render(["watchNamespace=team", "rbac.aggregate=false"])
    assert not [m for m in manifests if m["kind"] in ("ClusterRole", "ClusterRoleBinding")]
    assert _only(manifests, "Role")["metadata"]["namespace"] == "team"
    assert "--namespace=team" in _container(manifests)["args"]


def test_the_operator_has_no_right_to_read_secrets() -> None:
    rules = [rule for m in _render([]) if m["kind"] == "ClusterRole" for rule in m["rules"]]
    assert not [rule for rule in rules if {"secrets", "*"} & set(rule["resources"])]


def test_it_is_alive_by_the_age_of_its_watches_and_ready_once_each_was_heard() -> None:
    container = _container(_render([]))
    assert container["livenessProbe"]["httpGet"]["path"] == "/healthz"
    assert container["readinessProbe"]["httpGet"]["path"] == "/readyz"


def test_two_operators_never_run_at_the_same_time() -> None:
    spec = _only(_render([]), "Deployment")["spec"]
    assert (spec["replicas"], spec["strategy"]) == (1, {"type": "Recreate"})


def test_a_digest_wins_over_a_tag() -> None:
    digest = f"sha256:{'a' * 64}"
    container = _container(_render(["image.repository=r/op", "image.tag=v1", f"image.digest={digest}"]))
    assert container["image"] == f"r/op@{digest}"


def test_the_tag_is_the_charts_version_unless_given() -> None:
    version = yaml.safe_load((CHART / "Chart.yaml").read_text())["appVersion"]
    container = _container(_render(["trainer.image.repository=r/trainer"]))
    assert container["image"] == f"finetune-operator:{version}"
    assert f"--trainer-image=r/trainer:{version}" in container["args"]


def test_labels_of_the_user_do_not_replace_those_the_deployment_selects_by() -> None:
    spec = _only(_render(["podLabels.team=ml", "podLabels.app\\.kubernetes\\.io/name=other"]), "Deployment")["spec"]
    labels = spec["template"]["metadata"]["labels"]
    assert spec["selector"]["matchLabels"].items() <= labels.items()
    assert labels["team"] == "ml"


class HelmFailed(RuntimeError):
    """helm ended with an error; the message is what it printed."""


def _helm(*arguments: str) -> str:
    done = subprocess.run([provide("helm")["helm"], *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise HelmFailed(done.stderr)
    return done.stdout


def _helm_in(cluster: ControlPlane, *arguments: str) -> str:
    return _helm(*arguments, "--namespace=default", f"--kubeconfig={cluster.kubeconfig}")


def _render(values: list[str]) -> list[Manifest]:
    return _manifests(_helm("template", "release", str(CHART), *_set(values)))


def _manifests(rendered: str) -> list[Manifest]:
    return [manifest for manifest in yaml.safe_load_all(rendered) if manifest]


def _set(values: list[str]) -> list[str]:
    return [f"--set={value}" for value in values]


def _only(manifests: list[Manifest], kind: str) -> Manifest:
    (found,) = (manifest for manifest in manifests if manifest["kind"] == kind)
    return found


def _container(manifests: list[Manifest]) -> Manifest:
    container: Manifest = _only(manifests, "Deployment")["spec"]["template"]["spec"]["containers"][0]
    return container
