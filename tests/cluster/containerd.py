"""containerd for the nodes: its content store outlives the runs, so that an image is imported once.

`ImageStore` is containerd without Kubernetes, to bring images in; `start_runtime` is the one a kubelet talks to. A second one, for
another node, gets a root of its own by `with_images_of`.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path
from typing import IO, Any, Self

from tests.cluster.binaries import provide
from tests.cluster.process import ServerProcess

NAMESPACE = "k8s.io"  # the one that Kubernetes' side of containerd uses
START_SECONDS = 120
METADATA = "io.containerd.metadata.v1.bolt"
SNAPSHOTS = "io.containerd.snapshotter.v1.overlayfs"
CONTENT = "io.containerd.content.v1.content"
"""Folders of containerd's root."""

WITHOUT_KUBERNETES = """
version = 3
root = "{root}"
state = "{state}/containerd"
disabled_plugins = ["io.containerd.cri.v1.images", "io.containerd.cri.v1.runtime", "io.containerd.grpc.v1.cri"]
[grpc]
  address = "{state}/containerd.sock"
"""

FOR_KUBERNETES = """
version = 3
root = "{root}"
state = "{state}/containerd"
[grpc]
  address = "{state}/containerd.sock"
[plugins."io.containerd.cri.v1.images"]
  snapshotter = "overlayfs"
[plugins."io.containerd.cri.v1.images".pinned_images]
  sandbox = "{pause}"
[plugins."io.containerd.cri.v1.runtime"]
  # Without CAP_SYS_RESOURCE no process may lower its score, and every pod would fail to start.
  restrict_oom_score_adj = true
[plugins."io.containerd.cri.v1.runtime".cni]
  bin_dirs = ["/usr/lib/cni"]
  conf_dir = "{cni}"
"""


class ImageStore:
    """The images that pods can run. Enter it before the runtime starts: one containerd at a time may hold `root`."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            self._state = Path(tempfile.mkdtemp(prefix="image-store-"))
            stack.callback(shutil.rmtree, self._state, ignore_errors=True)
            config = WITHOUT_KUBERNETES.format(root=self._root, state=self._state)
            server = _start(config, self._state)
            stack.callback(server.stop)
            self._remove_containers()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def names(self) -> set[str]:
        """Names of the images that are there, unpacked and ready to run."""
        return set(self._ctr("images", "ls", "--quiet").split())

    def load(self, layout: Path, name: str) -> None:
        """Imports the image `name` from an OCI image layout; layers that are already here are not read again."""
        tag = name.rpartition(":")[2]
        index = json.loads((layout / "index.json").read_text())
        manifest = next(m for m in index["manifests"] if m["annotations"]["org.opencontainers.image.ref.name"] == tag)
        manifest["annotations"] = {"io.containerd.image.name": name}
        present = set(self._ctr("content", "ls", "--quiet").split())
        command = self._command("images", "import", "-")
        importing = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        assert importing.stdin is not None
        assert importing.stdout is not None
        with contextlib.suppress(BrokenPipeError):  # it then says itself what is wrong
            _write_layout(importing.stdin, layout, manifest, present)
        said = importing.stdout.read().decode()
        if importing.wait():
            raise RuntimeError(f"containerd refused the image {name}: {said}")

    def keep_only(self, names: set[str]) -> None:
        """Removes every other image and the space it took."""
        for name in self.names() - names:
            self._ctr("images", "rm", "--sync", name)

    def _remove_containers(self) -> None:
        """What the last run left; its processes died with their namespace."""
        for container in self._ctr("containers", "ls", "--quiet").split():
            self._ctr("containers", "rm", container)

    def _ctr(self, *arguments: str) -> str:
        done = subprocess.run(self._command(*arguments), capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"ctr {' '.join(arguments)}: {done.stderr.strip()}")
        return done.stdout

    def _command(self, *arguments: str) -> list[str]:
        return [
            str(provide("ctr")["ctr"]),
            f"--address={self._state}/containerd.sock",
            f"--namespace={NAMESPACE}",
            *arguments,
        ]


def with_images_of(root: Path, own: Path) -> Path:
    """`own`, made the root of another containerd that has the images of `root` and can change nothing of them.

    Before either of them runs. The mounts go with the mount namespace.
    """
    for database in (f"{METADATA}/meta.db", f"{SNAPSHOTS}/metadata.db"):
        (own / database).parent.mkdir(parents=True)
        shutil.copy(root / database, own / database)
    for layer in (root / SNAPSHOTS / "snapshots").iterdir():
        place = own / SNAPSHOTS / "snapshots" / layer.name
        place.mkdir(parents=True)
        subprocess.run(["mount", "-o", "bind,ro", layer, place], check=True)
    content, upper, work = own / CONTENT, own / "content-upper", own / "content-work"
    for folder in (content, upper, work):
        folder.mkdir()
    options = f"lowerdir={root / CONTENT},upperdir={upper},workdir={work}"
    subprocess.run(["mount", "-t", "overlay", "overlay", "-o", options, content], check=True)
    return own


def start_runtime(root: Path, state: Path, pause: str, cni: Path) -> ServerProcess:
    """containerd for a kubelet at `state`/containerd.sock; `cni` is the folder of the pod network's configuration."""
    return _start(FOR_KUBERNETES.format(root=root, state=state, pause=pause, cni=cni), state)


def _start(config: str, state: Path) -> ServerProcess:
    programs = provide("containerd", "containerd-shim-runc-v2")
    (state / "containerd.toml").write_text(config)
    # containerd looks for its shim on the PATH.
    path = f"{programs['containerd-shim-runc-v2'].parent}:{os.environ['PATH']}:/usr/sbin:/sbin"
    command: list[str | Path] = [programs["containerd"], "--config", state / "containerd.toml"]
    server = ServerProcess("containerd", command, state / "containerd.log", env={**os.environ, "PATH": path})
    server.wait_until((state / "containerd.sock").is_socket, START_SECONDS)
    return server


def _write_layout(out: IO[bytes], layout: Path, manifest: dict[str, Any], present: set[str]) -> None:
    """An OCI layout of one image as a tar stream, without the blobs in `present`."""
    with out, tarfile.open(fileobj=out, mode="w|") as archive:
        for name, content in (
            ("oci-layout", {"imageLayoutVersion": "1.0.0"}),
            ("index.json", {"schemaVersion": 2, "manifests": [manifest]}),
        ):
            data = json.dumps(content).encode()
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
        described = json.loads(_blob(layout, manifest["digest"]).read_text())
        for digest in (manifest["digest"], described["config"]["digest"], *(e["digest"] for e in described["layers"])):
            if digest not in present:
                archive.add(_blob(layout, digest), arcname=f"blobs/{digest.replace(':', '/')}")


def _blob(layout: Path, digest: str) -> Path:
    return layout / "blobs" / digest.replace(":", "/")
