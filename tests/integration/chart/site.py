"""A cluster in which releases come and go."""

from __future__ import annotations

import contextlib
import re
import shlex
import shutil
import uuid
from pathlib import Path

import yaml

from tests.cluster.api import ApiError
from tests.cluster.control_plane import ControlPlane
from tests.cluster.waiting import eventually
from tests.integration.chart.helm import CHART, REPOSITORY, helm, helm_in

KIND = "finetunejobs.finetune.dev"
KIND_PATH = f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{KIND}"


def with_any_spec(folder: Path) -> Path:
    """The chart with a kind that takes any spec: an API server takes seconds to compile the rules of the real one, each time it is new, and
    nothing of whose it is depends on them."""
    chart = folder / "chart"
    shutil.copytree(CHART, chart)
    file = chart / "files" / "crd.yaml"
    crd = yaml.load(file.read_text(), Loader=yaml.CSafeLoader)
    anything = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    for version in crd["spec"]["versions"]:
        version["schema"] = {
            "openAPIV3Schema": {"type": "object", "properties": {"spec": anything, "status": anything}}
        }
    file.write_text(yaml.safe_dump(crd))
    return chart


class Site:
    """A cluster without the kind and without releases, and two namespaces."""

    def __init__(self, cluster: ControlPlane, chart: Path = CHART) -> None:
        """`chart` is what is installed where none is named."""
        self.cluster = cluster
        self.chart = chart
        self.here, self.there = (f"{name}-{uuid.uuid4().hex[:6]}" for name in ("here", "there"))
        for namespace in (self.here, self.there):
            cluster.make_namespace(namespace)

    def install(self, name: str, namespace: str, *arguments: str, chart: Path | None = None) -> str:
        return helm_in(self.cluster, namespace, "install", name, str(chart or self.chart), *arguments)

    def upgrade(self, name: str, namespace: str, *arguments: str, chart: Path | None = None) -> str:
        return helm_in(self.cluster, namespace, "upgrade", name, str(chart or self.chart), *arguments)

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
        for line in helm("list", "--all-namespaces", f"--kubeconfig={self.cluster.kubeconfig}").splitlines()[1:]:
            name, namespace, *_ = line.split()
            self.uninstall(name, namespace)
        with contextlib.suppress(ApiError):
            self.cluster.api.patch(KIND_PATH, {"metadata": {"finalizers": None}})
            self.cluster.api.delete(KIND_PATH)
        eventually(lambda: not self.has_kind())

    def has_kind(self) -> bool:
        try:
            return bool(self.cluster.api.get(KIND_PATH))
        except ApiError as error:
            return error.status != 404
