"""The archive of etcd, kube-apiserver and kubectl that the Kubernetes project publishes for tests.

An index lists each archive with its SHA-512. Fetching is a shortcut, never a need: whatever goes wrong, or takes longer than
`LIMIT` seconds in all, ends in ArchiveUnavailable and the caller builds the programs instead.
"""

from __future__ import annotations

import hashlib
import os
import platform
import re
import subprocess
import tarfile
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml

# Set $FINETUNE_ENVTEST_INDEX to use a mirror.
INDEX = "https://raw.githubusercontent.com/kubernetes-sigs/controller-tools/HEAD/envtest-releases.yaml"
LIMIT = 20.0
PROGRAMS = ("etcd", "kube-apiserver", "kubectl")


class ArchiveUnavailable(RuntimeError):
    """No usable archive within the time limit; the message says why."""


def cached(cache: Path, version: str) -> list[Path]:
    """Folders of archives fetched before, of the same minor version as `version` (`v1.36.3`), newest patch first."""
    folders = cache.glob(f"envtest-{_minor(version)}.*-{_platform()}-*")
    return sorted(folders, key=_patch, reverse=True)


def fetch(cache: Path, version: str, limit: float = LIMIT) -> Path:
    """Unpacks the newest patch of `version`'s minor version into `cache` and returns its folder.

    Raises ArchiveUnavailable.
    """
    deadline = time.monotonic() + limit
    with tempfile.TemporaryDirectory(dir=cache, prefix=".fetching-") as temporary:
        index = Path(temporary) / "index.yaml"
        _download(os.environ.get("FINETUNE_ENVTEST_INDEX") or INDEX, index, deadline)
        name, archive = _choose(index, version)
        packed = Path(temporary) / name
        _download(archive["selfLink"], packed, deadline)
        _check(packed, archive["hash"])
        unpacked = Path(temporary) / "unpacked"
        _unpack(packed, unpacked)
        folder = cache / f"{name.removesuffix('.tar.gz')}-{archive['hash'][:16]}"
        if not folder.exists():  # atomic, and keyed by content: who came first has the same
            unpacked.replace(folder)
        return folder


def _download(url: str, target: Path, deadline: float) -> None:
    """By curl, because its --max-time covers name lookup, connection and transfer together."""
    seconds = deadline - time.monotonic()
    if seconds <= 0:
        raise ArchiveUnavailable(f"no time left for {url}")
    command = [
        "curl",
        "--fail",
        "--location",
        "--silent",
        "--show-error",
        "--output",
        str(target),
        "--max-time",
        f"{seconds:.1f}",
    ]
    try:
        done = subprocess.run([*command, url], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise ArchiveUnavailable("curl is not installed") from None
    if done.returncode:
        raise ArchiveUnavailable(f"{url}: {done.stderr.strip()}")


def _choose(index: Path, version: str) -> tuple[str, dict[str, str]]:
    """The archive's file name and its entry (`hash`, `selfLink`)."""
    try:
        releases: dict[str, Any] = yaml.safe_load(index.read_text())["releases"]
        names = {name: entry for release in releases.values() for name, entry in release.items()}
    except (yaml.YAMLError, UnicodeDecodeError, KeyError, TypeError, AttributeError):
        raise ArchiveUnavailable("the index is not one of envtest releases") from None
    wanted = re.compile(rf"envtest-{re.escape(_minor(version))}\.\d+-{_platform()}\.tar\.gz")
    if matching := [name for name in names if wanted.fullmatch(name)]:
        name = max(matching, key=lambda name: _patch(Path(name)))
        return name, names[name]
    raise ArchiveUnavailable(f"the index has none for {_minor(version)} on {_platform()}")


def _check(packed: Path, sha512: str) -> None:
    with packed.open("rb") as file:
        found = hashlib.file_digest(file, "sha512").hexdigest()
    if found != sha512:
        raise ArchiveUnavailable(f"{packed.name} has SHA-512 {found[:16]}…, the index says {sha512[:16]}…")


def _unpack(packed: Path, target: Path) -> None:
    """Only the programs, by name and without the archive's folders, so that no path in it can lead elsewhere."""
    target.mkdir()
    try:
        with tarfile.open(packed) as archive:
            for member in archive:
                if member.isfile() and (name := Path(member.name).name) in PROGRAMS:
                    content = archive.extractfile(member)
                    assert content is not None  # isfile() said so
                    (target / name).write_bytes(content.read())
                    (target / name).chmod(0o755)
    except tarfile.TarError as error:
        raise ArchiveUnavailable(f"{packed.name}: {error}") from None
    if missing := [name for name in PROGRAMS if not (target / name).exists()]:
        raise ArchiveUnavailable(f"{packed.name} lacks {', '.join(missing)}")


def _minor(version: str) -> str:
    return version.rpartition(".")[0]


def _patch(path: Path) -> int:
    found = re.match(r"envtest-v\d+\.\d+\.(\d+)-", path.name)
    return int(found[1]) if found else -1


def _platform() -> str:
    machine = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
    return f"{platform.system().lower()}-{machine}"
