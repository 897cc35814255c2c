"""Releases come, go and live side by side: the kind and its jobs outlive them, and no two operators act on the same jobs."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from tests.cluster.waiting import eventually
from tests.integration.chart.helm import CHART, HelmFailed, helm_in
from tests.integration.chart.site import KIND, KIND_PATH, Site, with_any_spec

RBAC = "/apis/rbac.authorization.k8s.io/v1"


@pytest.fixture(scope="module")
def chart_with_any_spec(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return with_any_spec(tmp_path_factory.mktemp("any"))


@pytest.fixture
def site(site: Site, chart_with_any_spec: Path) -> Site:
    site.chart = chart_with_any_spec
    return site


@pytest.fixture(scope="module")
def older(tmp_path_factory: pytest.TempPathFactory, chart_with_any_spec: Path) -> Path:
    return older_than(chart_with_any_spec, tmp_path_factory.mktemp("older"))


def older_than(newer: Path, folder: Path) -> Path:
    """The chart as an earlier version might be: its kind lacks a column, its values what is new, and its operator the Lease."""
    chart = folder / "chart"
    shutil.copytree(newer, chart)
    crd = yaml.load((chart / "files" / "crd.yaml").read_text(), Loader=yaml.CSafeLoader)
    crd["spec"]["versions"][0]["additionalPrinterColumns"].pop()
    (chart / "files" / "crd.yaml").write_text(yaml.safe_dump(crd))
    values = yaml.safe_load((chart / "values.yaml").read_text())
    values.pop("podSecurity", None)
    values["trainer"] = {"image": values["trainer"]["image"]}
    values.pop("replicas", None)
    (chart / "values.yaml").write_text(yaml.safe_dump(values))
    (chart / "templates" / "replicas.yaml").unlink()
    deployment = chart / "templates" / "deployment.yaml"
    alone = "  replicas: 1\n  strategy: {type: Recreate}\n  selector:\n    matchLabels"
    text = re.sub(
        r"^  replicas:.*?^  selector:\n    matchLabels", alone, deployment.read_text(), flags=re.DOTALL | re.MULTILINE
    )
    deployment.write_text(re.sub(r"^ *- --lease=.*\n", "", text, flags=re.MULTILINE))
    return chart


# ------------------------------------------------------------------------------------------------- one after the other


def test_an_upgrade_brings_the_newer_kind_and_uninstalling_keeps_it_with_its_jobs(site: Site, tmp_path: Path) -> None:
    site.install("release", site.here, chart=older_than(CHART, tmp_path))
    site.make_job()
    uid, before = site.job_uid(), site.columns()
    site.upgrade(
        "release", site.here, "--reuse-values", chart=CHART
    )  # those of a version that did not know all of today's
    assert len(site.columns()) == len(before) + 1
    site.uninstall("release", site.here)
    assert site.job_uid() == uid
    assert "release-finetune-operator" not in site.cluster.kubectl("get", "deployments", "-A")
    assert "release-finetune-operator" not in site.cluster.kubectl("get", "clusterroles,clusterrolebindings")


def test_an_operator_without_a_lease_is_gone_before_others_act_and_comes_back_only_once_they_are_gone(
    site: Site, older: Path
) -> None:
    path = f"/apis/apps/v1/namespaces/{site.here}/deployments/release-finetune-operator"

    def strategy() -> tuple[int, str]:
        spec = site.cluster.api.get(path)["spec"]
        return spec["replicas"], spec["strategy"]["type"]

    site.install("release", site.here, chart=older)
    assert strategy() == (1, "Recreate")
    site.upgrade("release", site.here, "--reuse-values")
    assert strategy() == (2, "Recreate")
    site.upgrade("release", site.here)
    assert strategy() == (2, "RollingUpdate")
    helm_in(site.cluster, site.here, "rollback", "release", "1")
    assert strategy() == (1, "Recreate")


def test_what_was_uninstalled_can_be_installed_again_under_any_name_anywhere(site: Site) -> None:
    for name, namespace in (
        ("release", site.here),
        ("release", site.here),
        ("release", site.there),
        ("other", site.here),
    ):
        said = site.install(name, namespace)
        is_ours = (name, namespace) == ("release", site.here)
        assert ("The FineTuneJob kind belongs to release release in namespace here-" in said) is not is_ours
        site.uninstall(name, namespace)


def by_another_release(site: Site, older: Path) -> None:
    site.install("gone", site.there, chart=older)
    site.uninstall("gone", site.there)


def by_kubectl(site: Site, older: Path) -> None:
    site.cluster.kubectl("apply", "-f", str(older / "files" / "crd.yaml"))
    site.cluster.kubectl("wait", "crd", KIND, "--for=condition=Established")


@pytest.mark.parametrize("install", [by_another_release, by_kubectl])
def test_another_kind_of_somebody_else_is_refused_with_commands_that_help(
    site: Site, older: Path, install: Callable[[Site, Path], None]
) -> None:
    install(site, older)
    site.make_job()
    uid, before = site.job_uid(), site.columns()
    with pytest.raises(HelmFailed) as refusal:
        site.install("release", site.here)
    said = str(refusal.value)
    assert "is there already" in said
    assert "Set crds.enabled=false" in said
    assert "No FineTuneJob is touched" in said
    site.install("release", site.here, *site.obey(said).split())

    assert len(site.columns()) == len(before) + 1
    assert site.job_uid() == uid
    assert site.upgrade("release", site.here)


def test_the_same_kind_of_somebody_else_stays_as_it_is(site: Site) -> None:
    site.cluster.kubectl("apply", "-f", str(CHART / "files" / "crd.yaml"))
    before = site.cluster.api.get(KIND_PATH)["metadata"]["generation"]
    said = site.install("release", site.here, chart=CHART)
    assert "was not installed by Helm and is the same as this chart's" in said
    assert site.cluster.api.get(KIND_PATH)["metadata"]["generation"] == before


def test_a_kind_that_is_being_deleted_is_waited_for(site: Site) -> None:
    site.install("release", site.here)
    site.uninstall("release", site.here)
    site.cluster.api.patch(KIND_PATH, {"metadata": {"finalizers": ["example.org/slow"]}})
    site.cluster.api.delete(KIND_PATH)
    with pytest.raises(HelmFailed, match="is being deleted, and every FineTuneJob with it"):
        site.install("release", site.here)


# --------------------------------------------------------------------------------------------------------- side by side


def test_releases_of_one_name_serve_a_namespace_each(site: Site) -> None:
    for namespace in (site.here, site.there):
        site.install("release", namespace, f"--set=watchNamespace={namespace}")
    for namespace in (site.here, site.there):
        assert "release-finetune-operator" in site.cluster.kubectl(
            "get", "role,rolebinding", f"--namespace={namespace}"
        )
        assert site.upgrade("release", namespace)
    site.uninstall("release", site.here)
    assert f"{site.there}:release-finetune-operator-edit" in site.cluster.kubectl("get", "clusterroles")


@pytest.mark.parametrize("watched", ["", "here"], ids=["all", "one namespace"])
def test_two_operators_of_the_same_jobs_are_refused(site: Site, watched: str) -> None:
    namespaces = {"": "", "here": site.here, "there": site.there}
    site.install("first", site.here, f"--set=watchNamespace={namespaces[watched]}")
    for second, namespace in namespaces.items():
        if {watched, second} == {"here", "there"}:
            continue
        with pytest.raises(HelmFailed) as refusal:
            site.install("second", site.there, f"--set=watchNamespace={namespace}")
        said = f"Deployment {site.here}/first-finetune-operator is an operator of the FineTuneJobs in"
        assert said in str(refusal.value), second
    site.cluster.kubectl("scale", "deployment/first-finetune-operator", "--replicas=0", f"--namespace={site.here}")
    assert site.install("second", site.there)
    site.upgrade("second", site.there, "--set=fullnameOverride=renamed")  # it is no neighbour of itself


def test_one_namespace_takes_no_right_outside_it(site: Site) -> None:
    """Whoever may do everything in a namespace, and nothing outside, can install there once the kind is there."""
    site.cluster.kubectl("apply", "-f", str(site.chart / "files" / "crd.yaml"))
    team = site.cluster.kubeconfig_for(f"lead-of-{site.here}")
    everything = [{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}]
    role = f"{RBAC}/namespaces/{site.here}"
    site.cluster.api.post(f"{role}/roles", {"metadata": {"name": "lead"}, "rules": everything})
    binding = {
        "metadata": {"name": "lead"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "lead"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": f"lead-of-{site.here}"}],
    }
    site.cluster.api.post(f"{role}/rolebindings", binding)
    values = [f"--set=watchNamespace={site.here}", "--set=crds.enabled=false"]
    eventually(
        lambda: "yes" in site.cluster.kubectl("auth", "can-i", "create", "roles", "-n", site.here, kubeconfig=team)
    )
    helm_in(site.cluster, site.here, "install", "release", str(site.chart), *values, kubeconfig=team)
    helm_in(site.cluster, site.here, "upgrade", "release", str(site.chart), *values, kubeconfig=team)
    with pytest.raises(HelmFailed, match="is an operator of the FineTuneJobs in namespace"):
        helm_in(site.cluster, site.here, "install", "second", str(site.chart), *values, kubeconfig=team)
