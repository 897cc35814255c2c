"""Releases come, go and live side by side: the kind and its jobs outlive them, and no two operators act on the same jobs."""

from __future__ import annotations

import contextlib
import re
import shlex
import shutil
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from tests.cluster.api import ApiError
from tests.cluster.control_plane import ControlPlane
from tests.cluster.fixtures import require_program
from tests.cluster.waiting import eventually
from tests.integration.chart.helm import CHART, REPOSITORY, HelmFailed, helm_in

KIND = "finetunejobs.finetune.dev"
KIND_PATH = f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{KIND}"
RBAC = "/apis/rbac.authorization.k8s.io/v1"


@pytest.fixture(scope="module")
def cluster() -> Iterator[ControlPlane]:
    """Of this module's own: the kind is one for all namespaces, and comes and goes here."""
    require_program("kube-apiserver")
    with ControlPlane() as cluster:
        yield cluster


class Site:
    """A cluster without the kind and without releases, and two namespaces."""

    def __init__(self, cluster: ControlPlane) -> None:
        self.cluster = cluster
        self.here, self.there = (f"{name}-{uuid.uuid4().hex[:6]}" for name in ("here", "there"))
        for namespace in (self.here, self.there):
            cluster.make_namespace(namespace)

    def install(self, name: str, namespace: str, *arguments: str, chart: Path = CHART) -> str:
        return helm_in(self.cluster, namespace, "install", name, str(chart), *arguments)

    def upgrade(self, name: str, namespace: str, *arguments: str, chart: Path = CHART) -> str:
        return helm_in(self.cluster, namespace, "upgrade", name, str(chart), *arguments)

    def uninstall(self, name: str, namespace: str) -> None:
        helm_in(self.cluster, namespace, "uninstall", name)

    def make_job(self) -> None:
        self.cluster.kubectl(
            "apply", f"--namespace={self.here}", "-f", str(REPOSITORY / "examples" / "quickstart.yaml")
        )

    def job_uid(self) -> str:
        return self.cluster.kubectl(
            "get", "ftj", "topics", f"--namespace={self.here}", "-o", "jsonpath={.metadata.uid}"
        )

    def columns(self) -> list[str]:
        versions = self.cluster.api.get(KIND_PATH)["spec"]["versions"]
        return [column["name"] for column in versions[0]["additionalPrinterColumns"]]

    def obey(self, message: str) -> str:
        """Runs the commands that a message proposes, one a line; returns what it says to install with."""
        for line in re.findall(r"^\s+kubectl (.+)$", message, re.MULTILINE):
            self.cluster.kubectl(*shlex.split(line))
        return " ".join(re.findall(r"--force-conflicts", message))

    def clean(self) -> None:
        for namespace in (self.here, self.there):
            for name in helm_in(self.cluster, namespace, "list", "--short").split():
                self.uninstall(name, namespace)
        with contextlib.suppress(ApiError):
            self.cluster.api.patch(KIND_PATH, {"metadata": {"finalizers": None}})
            self.cluster.api.delete(KIND_PATH)
        eventually(lambda: not self._has_kind())

    def _has_kind(self) -> bool:
        try:
            return bool(self.cluster.api.get(KIND_PATH))
        except ApiError as error:
            return error.status != 404


@pytest.fixture
def site(cluster: ControlPlane) -> Iterator[Site]:
    site = Site(cluster)
    yield site
    site.clean()


@pytest.fixture(scope="module")
def older(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The chart as an earlier version might be: its kind lacks a column, and its values what is new."""
    chart = tmp_path_factory.mktemp("older") / "chart"
    shutil.copytree(CHART, chart)
    crd = yaml.safe_load((chart / "files" / "crd.yaml").read_text())
    crd["spec"]["versions"][0]["additionalPrinterColumns"].pop()
    (chart / "files" / "crd.yaml").write_text(yaml.safe_dump(crd))
    values = yaml.safe_load((chart / "values.yaml").read_text())
    values.pop("podSecurity", None)
    values["trainer"] = {"image": values["trainer"]["image"]}
    (chart / "values.yaml").write_text(yaml.safe_dump(values))
    return chart


# ------------------------------------------------------------------------------------------------- one after the other


def test_an_upgrade_brings_the_newer_kind_and_uninstalling_keeps_it_with_its_jobs(site: Site, older: Path) -> None:
    site.install("release", site.here, chart=older)
    site.make_job()
    uid, before = site.job_uid(), site.columns()
    site.upgrade("release", site.here, "--reuse-values")  # those of a version that did not know all of today's
    assert len(site.columns()) == len(before) + 1
    site.uninstall("release", site.here)
    assert site.job_uid() == uid
    assert "release-finetune-operator" not in site.cluster.kubectl("get", "deployments", "-A")
    assert "release-finetune-operator" not in site.cluster.kubectl("get", "clusterroles,clusterrolebindings")


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
    said = site.install("release", site.here)
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


def test_one_namespace_takes_no_right_outside_it(site: Site) -> None:
    """Whoever may do everything in a namespace, and nothing outside, can install there once the kind is there."""
    site.cluster.kubectl("apply", "-f", str(CHART / "files" / "crd.yaml"))
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
    helm_in(site.cluster, site.here, "install", "release", str(CHART), *values, kubeconfig=team)
    helm_in(site.cluster, site.here, "upgrade", "release", str(CHART), *values, kubeconfig=team)
    with pytest.raises(HelmFailed, match="is an operator of the FineTuneJobs in namespace"):
        helm_in(site.cluster, site.here, "install", "second", str(CHART), *values, kubeconfig=team)
