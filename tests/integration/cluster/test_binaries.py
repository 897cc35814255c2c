"""Programs come from $KUBEBUILDER_ASSETS, the cache, the envtest archive (from a loopback server here), or Go, in that order."""

from __future__ import annotations

import hashlib
import io
import os
import platform
import shutil
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml

from tests.cluster import binaries, envtest
from tests.cluster.binaries import KUBERNETES_VERSION, BinaryUnavailable
from tests.cluster.fixtures import require_program

REPOSITORY = Path(__file__).parents[3]
MINOR = KUBERNETES_VERSION.rpartition(".")[0]
MACHINE = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
PLATFORM = f"{platform.system().lower()}-{MACHINE}"


def test_a_good_archive_gives_the_three_programs_and_is_fetched_once(archive: Archive, machine: Machine) -> None:
    archive.offers(f"{MINOR}.0", PLATFORM)
    for _ in range(2):
        found = machine.provide("etcd", "kube-apiserver", "kubectl")
        assert [run(path) for path in found] == [f"{name} {MINOR}.0" for name in ("etcd", "kube-apiserver", "kubectl")]
    assert archive.requests == ["/index.yaml", f"/envtest-{MINOR}.0-{PLATFORM}.tar.gz"]


def test_the_newest_patch_of_the_pinned_minor_version_for_this_platform_is_taken(
    archive: Archive, machine: Machine
) -> None:
    archive.offers("v1.99.0", PLATFORM)
    archive.offers(f"{MINOR}.10", PLATFORM)
    archive.offers(f"{MINOR}.9", PLATFORM)
    archive.offers(f"{MINOR}.11", "plan9-mips")
    assert [run(path) for path in machine.provide("etcd")] == [f"etcd {MINOR}.10"]


def test_an_archive_with_the_wrong_checksum_is_never_installed(archive: Archive, machine: Machine) -> None:
    archive.offers(f"{MINOR}.0", PLATFORM, checksum="0" * 128)
    failure = machine.fail_to_provide("etcd")
    assert "the index says 0000000000000000" in failure
    assert [path.name for path in (machine.cache / "bin").iterdir()] == [".lock"]


def test_an_archive_that_lacks_a_program_is_never_installed(archive: Archive, machine: Machine) -> None:
    archive.offers(f"{MINOR}.0", PLATFORM, programs=("etcd", "kubectl"))
    assert "lacks kube-apiserver" in machine.fail_to_provide("etcd")


def test_paths_inside_the_archive_lead_nowhere_else(archive: Archive, machine: Machine, tmp_path: Path) -> None:
    archive.offers(f"{MINOR}.0", PLATFORM, folder="../../../escaped")
    (found,) = machine.provide("etcd")
    assert machine.cache in found.parents
    assert not list(tmp_path.rglob("escaped"))


@pytest.mark.parametrize("slow", ["index", "archive"])
def test_a_slow_server_is_given_up_within_the_limit(archive: Archive, tmp_path: Path, slow: str) -> None:
    archive.offers(f"{MINOR}.0", PLATFORM)
    archive.drips = "/index.yaml" if slow == "index" else ".tar.gz"
    started = time.monotonic()
    with pytest.raises(envtest.ArchiveUnavailable, match="timed out"):
        envtest.fetch(tmp_path, KUBERNETES_VERSION, limit=1)
    assert time.monotonic() - started < 15
    assert list(tmp_path.iterdir()) == []


def test_without_archive_and_go_the_message_says_what_to_install(archive: Archive, machine: Machine) -> None:
    failure = machine.fail_to_provide("etcd", "kube-apiserver")
    assert "tests need etcd, kube-apiserver" in failure
    assert "Install Go" in failure


def test_the_controller_manager_is_in_no_archive(archive: Archive, machine: Machine) -> None:
    archive.offers(f"{MINOR}.0", PLATFORM)
    assert "tests need kube-controller-manager and" in machine.fail_to_provide("etcd", "kube-controller-manager")


def test_programs_of_kubebuilder_assets_come_first(archive: Archive, machine: Machine, tmp_path: Path) -> None:
    archive.offers(f"{MINOR}.0", PLATFORM)
    assets = tmp_path / "assets"
    assets.mkdir()
    for name in ("etcd", "kube-controller-manager"):
        (assets / name).write_text(script(f"my own {name}"))
        (assets / name).chmod(0o755)
    machine.env["KUBEBUILDER_ASSETS"] = str(assets)
    found = machine.provide("etcd", "kube-apiserver", "kube-controller-manager")
    assert [run(path) for path in found] == [
        "my own etcd",
        f"kube-apiserver {MINOR}.0",
        "my own kube-controller-manager",
    ]


def test_two_processes_at_once_fetch_once(archive: Archive, machine: Machine) -> None:
    archive.offers(f"{MINOR}.0", PLATFORM)
    archive.answers_after = 1  # longer than the second needs to come
    both = [machine.start("etcd") for _ in range(2)]
    assert [process.wait() for process in both] == [0, 0]
    assert archive.requests.count("/index.yaml") == 1


@pytest.mark.skipif(not shutil.which("go"), reason="Go is not installed")
def test_without_an_archive_the_pinned_version_is_built(archive: Archive, machine: Machine) -> None:
    machine.install("go")
    (etcd,) = machine.provide("etcd")
    pinned = (REPOSITORY / "tests/cluster/go/go.mod").read_text()
    version = run(etcd, "--version").split()[2]
    assert f"go.etcd.io/etcd/server/v3 v{version} " in pinned
    built = etcd.stat().st_mtime_ns
    assert [path.stat().st_mtime_ns for path in machine.provide("etcd")] == [built], "the second time it is only found"


def test_what_needs_the_controller_manager_is_skipped_with_a_warning_where_it_cannot_be_had(no_program: None) -> None:
    with pytest.warns(UserWarning, match="not shown by this run"), pytest.raises(pytest.skip.Exception):
        require_program("kube-controller-manager")


def test_what_needs_the_controller_manager_fails_under_ci(no_program: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "true")
    with pytest.raises(BinaryUnavailable):
        require_program("kube-controller-manager")


@dataclass
class Archive:
    """A loopback server of envtest archives. Its programs print their name and version."""

    server: ThreadingHTTPServer
    files: dict[str, bytes] = field(default_factory=dict)
    releases: dict[str, dict[str, dict[str, str]]] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    answers_after: float = 0  # seconds
    drips: str = "nothing"  # paths with this ending are sent a byte at a time

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}"

    def offers(
        self,
        version: str,
        on: str,
        *,
        checksum: str | None = None,
        programs: tuple[str, ...] = envtest.PROGRAMS,
        folder: str = "controller-tools/envtest",
    ) -> None:
        name = f"envtest-{version}-{on}.tar.gz"
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w:gz") as tar:
            for program in programs:
                content = script(f"{program} {version}").encode()
                member = tarfile.TarInfo(f"{folder}/{program}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
        self.files[f"/{name}"] = packed.getvalue()
        sha512 = checksum or hashlib.sha512(packed.getvalue()).hexdigest()
        self.releases.setdefault(version, {})[name] = {"hash": sha512, "selfLink": f"{self.url}/{name}"}
        self.files["/index.yaml"] = yaml.safe_dump({"releases": self.releases}).encode()


@dataclass
class Machine:
    """A machine with curl and nothing else, whose cache is empty."""

    programs: Path
    cache: Path
    env: dict[str, str]

    def install(self, name: str) -> None:
        found = shutil.which(name)
        assert found, f"{name} is not on the PATH"
        (self.programs / name).symlink_to(found)

    def provide(self, *names: str) -> list[Path]:
        process = self.start(*names)
        out, err = process.communicate()
        assert process.returncode == 0, err
        return [Path(line.split()[1]) for line in out.splitlines()]

    def fail_to_provide(self, *names: str) -> str:
        process = self.start(*names)
        _, err = process.communicate()
        assert process.returncode == 1, err
        return err

    def start(self, *names: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "tests.cluster.binaries", *names]
        return subprocess.Popen(
            command, cwd=REPOSITORY, env=self.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )


@pytest.fixture
def archive(monkeypatch: pytest.MonkeyPatch) -> Iterator[Archive]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            made.requests.append(self.path)
            time.sleep(made.answers_after)
            content = made.files.get(self.path)
            if content is None:
                self.send_error(404)
                return
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if not self.path.endswith(made.drips):
                self.wfile.write(content)
                return
            for byte in content[:100]:
                self.wfile.write(bytes([byte]))
                time.sleep(0.5)

        def log_message(self, *_: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        def handle_error(self, *_: object) -> None:
            pass  # a client that gives up is what some tests are about

    with Server(("127.0.0.1", 0), Handler) as server:
        made = Archive(server)
        threading.Thread(target=server.serve_forever).start()
        monkeypatch.setenv("FINETUNE_ENVTEST_INDEX", f"{made.url}/index.yaml")
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        yield made
        server.shutdown()


@pytest.fixture
def machine(archive: Archive, tmp_path: Path) -> Machine:
    programs, cache = tmp_path / "programs", tmp_path / "cache"
    programs.mkdir()
    env = {**os.environ, "PATH": str(programs), "FINETUNE_CACHE": str(cache)}
    env.pop("KUBEBUILDER_ASSETS", None)
    made = Machine(programs, cache, env)
    made.install("curl")
    return made


@pytest.fixture
def no_program(monkeypatch: pytest.MonkeyPatch) -> None:
    def provide(*names: str) -> dict[str, Path]:
        raise BinaryUnavailable(f"no {names}")

    monkeypatch.setattr(binaries, "provide", provide)
    monkeypatch.delenv("CI", raising=False)


def script(says: str) -> str:
    return f"#!/bin/sh\necho '{says}'\n"


def run(path: Path, *arguments: str) -> str:
    return subprocess.run([path, *arguments], capture_output=True, text=True, check=True).stdout.strip()
