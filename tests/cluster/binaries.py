"""The server programs that tests run: found, fetched or built, in that order.

`python -m tests.cluster.binaries etcd kube-apiserver …` makes them ready beforehand and prints where they lie.

1. The folder $KUBEBUILDER_ASSETS, for the four programs of a control plane.
2. The per-user cache, keyed by what the programs are built from; safe to delete.
3. The envtest archive of the kubernetes-sigs project, for etcd, kube-apiserver and kubectl: 20 seconds at most.
4. `go build` from the modules pinned in `go/`.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import math
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.cluster import envtest

GO_MODULES = Path(__file__).parent / "go"
CONTROL_PLANE = ("etcd", "kube-apiserver", "kubectl", "kube-controller-manager")
KUBERNETES_VERSION = next(
    line.split()[1]
    for line in (GO_MODULES / "kubernetes" / "go.mod").read_text().splitlines()
    if line.strip().startswith("k8s.io/kubernetes ")
)
LINKER_FLAGS = {
    # Without a version stamped in, clients take the server for v0.0.0 and refuse features.
    "kubernetes": "-s -w"
    f" -X k8s.io/component-base/version.gitVersion={KUBERNETES_VERSION}"
    " -X k8s.io/component-base/version.gitMajor=1"
    f" -X k8s.io/component-base/version.gitMinor={KUBERNETES_VERSION.split('.')[1]}",
}


@dataclass(frozen=True)
class Program:
    """One command: the folder of `go/` that pins it, its Go package, what for, and minutes of a cold build on 2 cores."""

    folder: str
    package: str
    purpose: str
    minutes: float


PROGRAMS = {
    "etcd": Program("etcd", "go.etcd.io/etcd/server/v3", "the API server's store", 1),
    "kube-apiserver": Program("kubernetes", "k8s.io/kubernetes/cmd/kube-apiserver", "the Kubernetes API", 3.5),
    "kube-controller-manager": Program(
        "kubernetes", "k8s.io/kubernetes/cmd/kube-controller-manager", "the Job controller and its like", 1
    ),
    "kubectl": Program("kubernetes", "k8s.io/kubernetes/cmd/kubectl", "the command users type", 0.5),
    "kube-scheduler": Program("kubernetes", "k8s.io/kubernetes/cmd/kube-scheduler", "gives pods a node", 0.2),
    "kubelet": Program("kubernetes", "k8s.io/kubernetes/cmd/kubelet", "runs pods on a node", 0.4),
    "kube-proxy": Program("kubernetes", "k8s.io/kubernetes/cmd/kube-proxy", "service addresses on a node", 0.2),
    "containerd": Program("containerd", "github.com/containerd/containerd/v2/cmd/containerd", "runs containers", 0.7),
    "containerd-shim-runc-v2": Program(
        "containerd", "github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2", "keeps a container", 0.1
    ),
    "ctr": Program("containerd", "github.com/containerd/containerd/v2/cmd/ctr", "imports images", 0.2),
    "helm": Program("helm", "helm.sh/helm/v4/cmd/helm", "installs the chart", 2),
    "versitygw": Program("versitygw", "github.com/versity/versitygw/cmd/versitygw", "the S3 server", 1),
}


class BinaryUnavailable(RuntimeError):
    """A program was neither found nor could it be fetched or built; the message says what to install."""


def main() -> None:
    names = sys.argv[1:]
    unknown = [name for name in names if name not in PROGRAMS]
    if not names or unknown:
        wrong = f"{', '.join(unknown)}: unknown. " if unknown else ""
        sys.exit(f"{wrong}Usage: python -m tests.cluster.binaries NAME…, each one of {', '.join(PROGRAMS)}")
    try:
        found = provide(*names)
    except BinaryUnavailable as error:
        sys.exit(str(error))
    for name, path in found.items():
        print(f"{name:<24} {path}")


def provide(*names: str) -> dict[str, Path]:
    """The programs' paths by name; what is missing is fetched or built first, with progress on stderr.

    Raises BinaryUnavailable with what to install.
    """
    found = _cached(names)
    if missing := [name for name in names if name not in found]:
        with locked():  # a second process waits here, and then finds what the first one made
            found |= _cached(missing)
            _fetch_archive([name for name in missing if name not in found])
            found |= _cached(missing)
            _build([name for name in missing if name not in found])
            found |= _cached(missing)
    return {name: found[name] for name in names}


def cache() -> Path:
    """The folder of this project's binaries, made if it is not there."""
    base = os.environ.get("FINETUNE_CACHE") or (
        Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "finetune-operator"
    )
    folder = Path(base) / "bin"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _cached(names: Iterable[str]) -> dict[str, Path]:
    found = {}
    for name in names:
        candidates = []
        if name in CONTROL_PLANE and (assets := os.environ.get("KUBEBUILDER_ASSETS")):
            candidates.append(Path(assets) / name)
        if built := _build_folder(PROGRAMS[name].folder):
            candidates.append(built / name)
        if name in envtest.PROGRAMS:
            candidates += (folder / name for folder in envtest.cached(cache(), KUBERNETES_VERSION))
        if path := next((path for path in candidates if os.access(path, os.X_OK)), None):
            found[name] = path
    return found


def _fetch_archive(names: list[str]) -> None:
    wanted = [name for name in names if name in envtest.PROGRAMS]
    if not wanted:
        return
    say(f"{', '.join(wanted)}: trying the envtest archive for Kubernetes {KUBERNETES_VERSION} (20 s at most)")
    try:
        folder = envtest.fetch(cache(), KUBERNETES_VERSION)
    except envtest.ArchiveUnavailable as error:
        say(f"no archive: {error}")
    else:
        say(f"fetched, checksum right: {folder}")


def _build(names: list[str]) -> None:
    if not names:
        return
    if not shutil.which("go"):
        raise BinaryUnavailable(_go_missing(names))
    for folder in dict.fromkeys(PROGRAMS[name].folder for name in names):
        _go_build(folder, [name for name in names if PROGRAMS[name].folder == folder])


def _go_build(folder: str, names: list[str]) -> None:
    for name in names:
        say(f"{name} ({PROGRAMS[name].purpose}) is not there yet")
    minutes = math.ceil(sum(PROGRAMS[name].minutes for name in names))
    say(
        f"building from the Go modules pinned in go/{folder}: about {minutes} min on two cores the first time, then never again"
    )
    target = _build_folder(folder)
    assert target is not None  # Go is there, _build saw it
    target.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target, prefix=".building-") as temporary:
        # A package's last element does not always name its program (etcd), so a single one is named outright.
        output = f"{temporary}/{names[0]}" if len(names) == 1 else f"{temporary}/"
        packages = [PROGRAMS[name].package for name in names]
        started = time.monotonic()
        _run_go(["build", *_flags(folder), "-v", "-o", output, *packages], GO_MODULES / folder)
        for name in names:
            (Path(temporary) / name).replace(target / name)  # atomic: half a program is never seen
    say(f"built in {time.monotonic() - started:.0f} s: {target}")


def _run_go(arguments: list[str], module: Path) -> None:
    """Runs `go`, which names each package it has compiled, and turns that into a line every 15 seconds."""
    lines: list[str] = []
    environment = {
        "GOGC": "off",  # each compiler lives for seconds: collecting its garbage is a third of a build's CPU time
        "GOMEMLIMIT": "2GiB",  # but not beyond what a small machine has
        **os.environ,
        "CGO_ENABLED": "0",  # static: runs on any distribution, needs no C library at build time
    }
    go = subprocess.Popen(["go", *arguments], cwd=module, env=environment, stderr=subprocess.PIPE, text=True)
    assert go.stderr is not None
    started = spoke = time.monotonic()
    for line in go.stderr:
        lines.append(line)
        if time.monotonic() - spoke > 15:
            spoke = time.monotonic()
            downloaded = sum(entry.startswith("go: downloading") for entry in lines)
            compiled = len(lines) - downloaded
            say(f"  {downloaded} modules downloaded, {compiled} packages compiled after {spoke - started:.0f} s")
    if go.wait():
        said = "".join(line for line in lines[-20:] if not line.startswith("go: downloading"))
        raise BinaryUnavailable(f"`go {' '.join(arguments)}` failed in {module}:\n{said}")


def _build_folder(folder: str) -> Path | None:
    """Where the programs of one module lie; None without Go, whose version is part of the key."""
    go = _go_env(folder)
    if go is None:
        return None
    key = hashlib.sha256()
    module = GO_MODULES / folder
    for part in (
        (module / "go.mod").read_bytes(),
        (module / "go.sum").read_bytes(),
        *(f.encode() for f in _flags(folder)),
        go,
    ):
        key.update(part)
        key.update(b"\0")
    return cache() / f"{folder}-{key.hexdigest()[:16]}"


_go_envs: dict[str, bytes | None] = {}


def _go_env(folder: str) -> bytes | None:
    """Go's version (which a go.mod may raise) and the platform; None where Go is missing or too old."""
    if folder not in _go_envs:
        done = None
        if shutil.which("go"):
            done = subprocess.run(
                ["go", "env", "GOVERSION", "GOOS", "GOARCH"], cwd=GO_MODULES / folder, capture_output=True, check=False
            )
        _go_envs[folder] = done.stdout if done and done.returncode == 0 else None
    return _go_envs[folder]


def _flags(folder: str) -> list[str]:
    return ["-trimpath", "-buildvcs=false", "-ldflags", LINKER_FLAGS.get(folder, "-s -w")]


@contextlib.contextmanager
def locked() -> Iterator[None]:
    with (cache() / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _go_missing(names: list[str]) -> str:
    return (
        f"The tests need {', '.join(names)} and found it neither in $KUBEBUILDER_ASSETS, nor in {cache()}, nor in an envtest "
        "archive, and cannot build it because `go` is not on the PATH.\n"
        "Install Go (https://go.dev/doc/install; tests/cluster/go/*/go.mod say which version) and run again."
    )


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
