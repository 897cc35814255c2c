"""Debian packages: nothing starts a service while they install, and a machine's own policy stays."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.cluster import packages


@pytest.fixture
def apt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A machine that lacks runc; tells what its policy for services was when apt-get installed."""
    seen: list[str] = []
    policy = tmp_path / "policy-rc.d"

    def run(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        if "install" in command:
            seen.append(policy.read_text())
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(packages, "POLICY", policy)
    monkeypatch.setattr(packages, "missing_packages", lambda: ["runc"])
    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(shutil, "which", lambda _: "/usr/bin/apt-get")
    return seen


def test_services_are_refused_while_packages_install_and_only_then(apt: list[str]) -> None:
    packages.ensure_packages()
    assert apt == ["#!/bin/sh\nexit 101\n"]
    assert not packages.POLICY.exists()


def test_a_policy_that_was_there_is_used_and_stays(apt: list[str]) -> None:
    packages.POLICY.write_text("own\n")
    packages.ensure_packages()
    assert apt == ["own\n"]
    assert packages.POLICY.read_text() == "own\n"


def test_somebody_who_may_not_install_is_told_what_to_install(apt: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(packages.PackagesMissing, match="these Debian packages: runc"):
        packages.ensure_packages()
    assert apt == []
