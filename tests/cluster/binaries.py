"""The server programs that tests run: found, fetched or built, in that order.

`python -m tests.cluster.binaries etcd kube-apiserver …` makes them ready beforehand and prints where they lie.

1. The folder $KUBEBUILDER_ASSETS, for the four programs of a control plane.
2. The per-user cache, keyed by what the programs are built from; safe to delete.
3. The envtest archive of the kubernetes-sigs project, for etcd, kube-apiserver and kubectl: 20 seconds at most.
4. `go build` from the module in `go/`, which pins them all.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import hashlib
import math
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.cluster import envtest

GO_MODULE = Path(__file__).parent / "go"
CONTROL_PLANE = ("etcd", "kube-apiserver", "kubectl", "kube-controller-manager")
_pinned = re.search(r"^\s*(?:require )?k8s\.io/kubernetes (\S+)", (GO_MODULE / "go.mod").read_text(), re.MULTILINE)
assert _pinned
KUBERNETES_VERSION = _pinned[1]
LINKER_FLAGS = (
    "-s -w"
    # Without a version stamped in, clients take the server for v0.0.0 and refuse features.
    f" -X k8s.io/component-base/version.gitVersion={KUBERNETES_VERSION}"
    " -X k8s.io/component-base/version.gitMajor=1"
    f" -X k8s.io/component-base/version.gitMinor={KUBERNETES_VERSION.split('.')[1]}"
)
# What debuggers read, the linker would drop anyway: not to write it is an eighth of a build's CPU time.
FLAGS = ("-trimpath", "-buildvcs=false", "-gcflags=all=-dwarf=false", "-ldflags", LINKER_FLAGS)


@dataclass(frozen=True)
class Program:
    """One command: its Go package, what for, and seconds of a cold build on 2 cores, of what those above it do not have."""

    package: str
    purpose: str
    seconds: int


PROGRAMS = {
    "kube-apiserver": Program("k8s.io/kubernetes/cmd/kube-apiserver", "the Kubernetes API", 200),
    "kube-controller-manager": Program(
        "k8s.io/kubernetes/cmd/kube-controller-manager", "the Job controller and its like", 50
    ),
    "kubectl": Program("k8s.io/kubernetes/cmd/kubectl", "the command users type", 20),
    "etcd": Program("go.etcd.io/etcd/server/v3", "the API server's store", 15),
    "helm": Program("helm.sh/helm/v4/cmd/helm", "installs the chart", 40),
    "versitygw": Program("github.com/versity/versitygw/cmd/versitygw", "the S3 server", 60),
    "kube-scheduler": Program("k8s.io/kubernetes/cmd/kube-scheduler", "gives pods a node", 10),
    "kubelet": Program("k8s.io/kubernetes/cmd/kubelet", "runs pods on a node", 20),
    "kube-proxy": Program("k8s.io/kubernetes/cmd/kube-proxy", "service addresses on a node", 10),
    "containerd": Program("github.com/containerd/containerd/v2/cmd/containerd", "runs containers", 40),
    "containerd-shim-runc-v2": Program(
        "github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2", "keeps a container", 5
    ),
    "ctr": Program("github.com/containerd/containerd/v2/cmd/ctr", "imports images", 10),
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
        if built := _build_folder():
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
    for name in names:
        say(f"{name} ({PROGRAMS[name].purpose}) is not there yet")
    minutes = math.ceil(sum(PROGRAMS[name].seconds for name in names) / 60)
    say(
        f"building from the Go module in {GO_MODULE}: about {minutes} min on two cores the first time, then never again"
    )
    target = _build_folder()
    assert target is not None  # Go is there
    target.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target, prefix=".building-") as temporary:
        started = time.monotonic()
        _run_go(["build", *FLAGS, "-v", "-o", f"{temporary}/", *(PROGRAMS[name].package for name in names)])
        for name in names:
            made = Path(temporary) / _made_as(PROGRAMS[name].package)
            made.replace(target / name)  # atomic: half a program is never seen
    say(f"built in {time.monotonic() - started:.0f} s: {target}")


def _made_as(package: str) -> str:
    """What `go build` calls a package's program: by the last element that is no version."""
    *_, above, last = package.split("/")
    return above if re.fullmatch(r"v\d+", last) else last


def _run_go(arguments: list[str]) -> None:
    """Runs `go`, which names each package it has compiled, and turns that into a line every 15 seconds."""
    lines: list[str] = []
    environment = {
        "GOGC": "off",  # each compiler lives for seconds: collecting its garbage is a third of a build's CPU time
        "GOMEMLIMIT": "2GiB",  # but not beyond what a small machine has
        **os.environ,
        "CGO_ENABLED": "0",  # static: runs on any distribution, needs no C library at build time
    }
    go = subprocess.Popen(["go", *arguments], cwd=GO_MODULE, env=environment, stderr=subprocess.PIPE, text=True)
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
        raise BinaryUnavailable(f"`go {' '.join(arguments)}` failed in {GO_MODULE}:\n{said}")


def _build_folder() -> Path | None:
    """Where built programs lie; None without Go, whose version is part of the key."""
    go = _go_env()
    if go is None:
        return None
    key = hashlib.sha256()
    for part in ((GO_MODULE / "go.mod").read_bytes(), (GO_MODULE / "go.sum").read_bytes(), *map(str.encode, FLAGS), go):
        key.update(part)
        key.update(b"\0")
    return cache() / f"go-{key.hexdigest()[:16]}"


@functools.cache
def _go_env() -> bytes | None:
    """Go's version (which go.mod may raise) and the platform; None where Go is missing or too old."""
    if not shutil.which("go"):
        return None
    asked = ["go", "env", "GOVERSION", "GOOS", "GOARCH"]
    done = subprocess.run(asked, cwd=GO_MODULE, capture_output=True, check=False)
    return done.stdout if done.returncode == 0 else None


@contextlib.contextmanager
def locked() -> Iterator[None]:
    with (cache() / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _go_missing(names: list[str]) -> str:
    return (
        f"The tests need {', '.join(names)} and found it neither in $KUBEBUILDER_ASSETS, nor in {cache()}, nor in an envtest "
        "archive, and cannot build it because `go` is not on the PATH.\n"
        "Install Go (https://go.dev/doc/install; tests/cluster/go/go.mod says which version) and run again."
    )


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
