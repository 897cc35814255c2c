"""The commands of the documentation do what it says: those of each section are run on a real API server."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest

from tests.cluster.monitoring import definitions
from tests.integration.chart.helm import CHART, REPOSITORY, helm
from tests.integration.chart.site import KIND, Site

DOCS = REPOSITORY / "docs"
NEEDS_A_NODE = ("rollout status", "logs")
"""Asks for a pod that runs, and here is no node."""
LIFE = (
    "Install",
    "The first job",
    "Proxy, hub mirror, private authorities",
    "Metrics and alerts",
    "When something is wrong",
    "Upgrade",
    "Roll back",
    "Uninstall",
)
"""The sections whose commands are about one release, in the order of the page."""


def sections(page: str) -> dict[str, list[list[str]]]:
    """The commands of each section, as the shell splits them."""
    begin, *parts = re.split(r"^## (.+)$", (DOCS / page).read_text("utf-8"), flags=re.MULTILINE)
    texts = {"": begin, **dict(zip(parts[::2], parts[1::2], strict=True))}
    return {heading: commands(text) for heading, text in texts.items()}


def commands(text: str) -> list[list[str]]:
    blocks = "".join(re.findall(r"^```sh\n(.*?)^```$", text, re.MULTILINE | re.DOTALL))
    lines = blocks.replace("\\\n", " ").replace("$REGISTRY", "registry.example.com/ml").splitlines()
    return [shlex.split(line, comments=True) for line in lines if line.strip()]


@pytest.fixture
def desk(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    """Where the commands are typed: a folder with the chart and a certificate in it."""
    (tmp_path / "charts").symlink_to(CHART.parent)
    (tmp_path / "examples").symlink_to(REPOSITORY / "examples")
    (tmp_path / "ca.crt").write_bytes(site.cluster.authority.certificate.read_bytes())
    monkeypatch.chdir(tmp_path)
    return site


def type_in(site: Site, command: list[str]) -> str:
    program, *arguments = command
    if any(words in " ".join(arguments) for words in NEEDS_A_NODE):
        return ""
    if program == "helm":
        return helm(*arguments, f"--kubeconfig={site.cluster.kubeconfig}")
    assert program == "kubectl", command
    return site.cluster.kubectl(*arguments)


def operator_in(site: Site, namespace: str) -> str:
    return site.cluster.kubectl("get", "deployment", "finetune-operator", f"--namespace={namespace}", "-o", "yaml")


def test_a_release_lives_as_the_page_says(desk: Site) -> None:
    page = sections("operations.md")
    for kind in definitions():
        desk.cluster.kubectl("apply", "-f", "-", input=json.dumps(kind))
    for section in LIFE:
        for command in page[section]:
            if "patch" in command:
                job = REPOSITORY / "examples" / "quickstart.yaml"
                desk.cluster.kubectl("apply", "--namespace=research", "-f", str(job))
            if command[:3] == ["kubectl", "delete", "ftj"]:
                assert "topics" in desk.cluster.kubectl("get", "ftj", "--all-namespaces")
            type_in(desk, command)
        if section in LIFE[2:-1]:
            assert "--trainer-trusted-ca=corporate-ca/ca.crt" in operator_in(desk, "finetune-system")
        if section == "Metrics and alerts":
            kinds = "servicemonitors,prometheusrules,configmaps"
            made = desk.cluster.kubectl("get", kinds, "--namespace=finetune-system", "-o", "name")
            assert made.count("finetune-operator-metrics") == 3
    desk.cluster.kubectl("delete", "crd", *(kind["metadata"]["name"] for kind in definitions()))
    assert not desk.has_kind()


@pytest.mark.parametrize(
    ("section", "namespace", "said"),
    [("One namespace", "team-a", "--namespace=team-a"), ("OpenShift", "finetune-system", "--no-fixed-ids")],
)
def test_other_ways_to_install_it_work_as_the_page_says(desk: Site, section: str, namespace: str, said: str) -> None:
    page = sections("operations.md")
    assert {name for name, typed in page.items() if typed} == {section, *LIFE} | {"One namespace", "OpenShift"}
    for command in page[section]:
        type_in(desk, command)
    assert said in operator_in(desk, namespace)


def test_what_users_type_works(desk: Site) -> None:
    desk.cluster.kubectl("apply", "-f", str(CHART / "files" / "crd.yaml"))
    desk.cluster.kubectl("wait", "crd", KIND, "--for=condition=Established")
    desk.make_job()
    for page in ("jobs.md", "reference/troubleshooting.md"):
        for command in (command for section in sections(page).values() for command in section):
            type_in(desk, [*command, f"--namespace={desk.here}"])
