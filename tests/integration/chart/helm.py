"""Helm, as the chart's tests use it."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import yaml

from tests.cluster.binaries import provide
from tests.cluster.control_plane import ControlPlane

REPOSITORY = Path(__file__).parents[3]
CHART = REPOSITORY / "charts" / "finetune-operator"

Manifest = dict[str, Any]


class HelmFailed(RuntimeError):
    """helm ended with an error; the message is what it printed."""


def helm(*arguments: str) -> str:
    done = subprocess.run([provide("helm")["helm"], *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise HelmFailed(done.stderr)
    return done.stdout


def helm_in(cluster: ControlPlane, namespace: str, *arguments: str, kubeconfig: Path | None = None) -> str:
    """As administrator unless told otherwise."""
    return helm(*arguments, f"--namespace={namespace}", f"--kubeconfig={kubeconfig or cluster.kubeconfig}")


def render(values: list[str]) -> list[Manifest]:
    return manifests(helm("template", "release", str(CHART), *set_values(values)))


def manifests(rendered: str) -> list[Manifest]:
    # libyaml reads the kind, a quarter of a megabyte, in an eighth of the time.
    return [manifest for manifest in yaml.load_all(rendered, Loader=yaml.CSafeLoader) if manifest]


def set_values(values: list[str]) -> list[str]:
    return [f"--set={value}" for value in values]


def only(found: list[Manifest], kind: str) -> Manifest:
    (one,) = (manifest for manifest in found if manifest["kind"] == kind)
    return one


def named(found: list[Manifest], kind: str, name: str) -> Manifest:
    (one,) = (manifest for manifest in found if (manifest["kind"], manifest["metadata"]["name"]) == (kind, name))
    return one


def container(found: list[Manifest]) -> Manifest:
    """The operator's."""
    first: Manifest = only(found, "Deployment")["spec"]["template"]["spec"]["containers"][0]
    return first
