"""The images that the end-to-end test runs: made of this working tree, kept while it does not change.

    build_images()
    images = ensure_images()

images/operator and images/trainer are built from the Dockerfiles that users build, with buildah, on a base that debootstrap
makes: no image registry is needed. Each image's tag is a hash of all that goes into it, so a tag that containerd has is
never made again. A change of the code makes only the last, small layer anew: half a minute instead of several.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from tests.cluster.binaries import cache
from tests.cluster.containerd import ImageStore

REPOSITORY = Path(__file__).parents[2]
SOURCES = ("pyproject.toml", "uv.lock", "README.md", "LICENSE", ".dockerignore")
PACKAGES = ("crds/finetune_api", "operator/finetune_operator", "trainer/finetune_trainer")

DEBIAN = "bookworm"
DEBIAN_PACKAGES = "python3,python3-venv,ca-certificates"
# Where the machine trusts authorities of its own (a company's proxy), builds must too. They see these folders read-only.
CERTIFICATES = ("/etc/ssl/certs", "/usr/share/ca-certificates", "/usr/local/share/ca-certificates")
BUNDLE = "/etc/ssl/certs/ca-certificates.crt"

FIRST_BUILD_GB = 25
"""Torch with its CUDA libraries lies in buildah's storage, in the layout, and twice in containerd's store."""
NEXT_BUILD_GB = 5


class TooLittleDisk(RuntimeError):
    """The images would not fit; nothing was built."""


@dataclass(frozen=True)
class Images:
    """Names under which containerd has them."""

    operator: str
    trainer: str
    pause: str


def main() -> None:
    try:
        require_disk()
        build_images()
        print(ensure_images())
    except TooLittleDisk as error:
        sys.exit(str(error))


def build_images() -> None:
    """Builds what has changed, for which there need be no containerd yet. One caller at a time; `require_disk` comes first."""
    for name in sorted(vars(wanted_images()).values()):
        if not _has_image(name):
            with _step(f"building {name}"):
                _build(name)
                _copy_to_layout(name)


def ensure_images() -> Images:
    """Brings what was built into containerd's store. One caller at a time; `build_images` comes first."""
    images = wanted_images()
    wanted = set(vars(images).values())
    with ImageStore(containerd_root()) as store:
        if missing := wanted - store.names():
            for name in sorted(missing):
                with _step(f"importing {name} into containerd"):
                    _copy_to_layout(name)  # what is there already is not written again
                    store.load(_layout(), name)
            _forget_old_builds(wanted)
        store.keep_only(wanted)
    _share_blobs()
    return images


def containerd_root() -> Path:
    """Where containerd keeps images between the runs."""
    return _folder() / "containerd"


def wanted_images() -> Images:
    """The images of the working tree as it is; their tags are hashes of all that goes into them."""
    base = _hash([DEBIAN, DEBIAN_PACKAGES, BUNDLE])
    code = [path for package in PACKAGES for path in sorted((REPOSITORY / package).rglob("*")) if _is_source(path)]
    code += [REPOSITORY / name for name in SOURCES]

    def tag(kind: str) -> str:
        return _hash([base, *_contents([REPOSITORY / "images" / kind / "Dockerfile", *code])])

    return Images(
        operator=f"localhost/finetune-operator:{tag('operator')}",
        trainer=f"localhost/finetune-trainer:{tag('trainer')}",
        pause=f"localhost/pause:{_hash([_pause_source().read_text()])}",
    )


def _build(name: str) -> None:
    kind = name.removeprefix("localhost/").rpartition(":")[0]
    if kind == "pause":
        _build_pause(name)
    else:
        _build_from_dockerfile(kind.removeprefix("finetune-"), name)


def _copy_to_layout(name: str) -> None:
    # Uncompressed layers keep their digest, so that the gigabytes which did not change are seen to be here already.
    storage = _folder() / "buildah"
    source = f"containers-storage:[overlay@{storage}+{storage}-run]{name}"
    target = f"oci:{_layout()}:{name.rpartition(':')[2]}"
    _run(["skopeo", "copy", "--quiet", "--dest-oci-accept-uncompressed-layers", source, target])


def _build_from_dockerfile(kind: str, name: str) -> None:
    base = _ensure_base()
    downloads = Path(
        os.environ.get("UV_CACHE_DIR") or Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "uv"
    )
    downloads.mkdir(parents=True, exist_ok=True)
    _buildah(
        "build",
        "--layers",
        f"--ignorefile={REPOSITORY / '.dockerignore'}",
        f"--file={REPOSITORY / 'images' / kind / 'Dockerfile'}",
        f"--build-arg=BASE={base}",
        "--build-arg=UV_CACHE_DIR=/uv-cache",
        f"--volume={downloads}:/uv-cache",  # what `uv sync` fetched for the tests is not fetched again
        *(f"--volume={folder}:{folder}:ro" for folder in CERTIFICATES if Path(folder).is_dir()),
        f"--tag={name}",
        str(REPOSITORY),
    )


def _ensure_base() -> str:
    """A small Debian with its Python, under a name that changes with what it is made of."""
    name = f"localhost/debian-python:{_hash([DEBIAN, DEBIAN_PACKAGES, BUNDLE])}"
    if _has_image(name):
        return name
    with tempfile.TemporaryDirectory(dir=_folder()) as root, _step(f"making a base image of Debian {DEBIAN}"):
        _run(["debootstrap", "--variant=minbase", f"--include={DEBIAN_PACKAGES}", DEBIAN, root])
        shutil.rmtree(f"{root}/var/cache/apt/archives")
        Path(root).chmod(0o755)
        container = _buildah("from", "scratch")
        _buildah("add", "--quiet", container, root, "/")
        # pip and uv bring their own list of authorities; here they shall read Debian's.
        _buildah("config", f"--env=SSL_CERT_FILE={BUNDLE}", f"--env=PIP_CERT={BUNDLE}", container)
        _buildah("commit", "--quiet", "--rm", container, name)
    return name


def _build_pause(name: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        _run(["cc", "-static", "-Os", "-s", "-o", f"{folder}/pause", str(_pause_source())])
        container = _buildah("from", "scratch")
        _buildah("add", "--quiet", container, f"{folder}/pause", "/pause")
        _buildah("config", '--entrypoint=["/pause"]', "--user=65532:65532", container)
        _buildah("commit", "--quiet", "--rm", container, name)


def _forget_old_builds(wanted: set[str]) -> None:
    """Old images go from buildah's storage; the layers that a new one shares stay."""
    for line in _buildah("images", "--format={{.Name}}:{{.Tag}}").split():
        if line.startswith("localhost/") and line not in wanted and not line.startswith("localhost/debian-python:"):
            _buildah("rmi", line)


def _share_blobs() -> None:
    """The layout's blobs become links to containerd's equal ones; what containerd has dropped goes from the layout."""
    stored = containerd_root() / "io.containerd.content.v1.content/blobs/sha256"
    for blob in (_layout() / "blobs/sha256").iterdir():
        twin = stored / blob.name
        if not twin.exists():
            blob.unlink()
        elif not twin.samefile(blob):
            blob.unlink()
            blob.hardlink_to(twin)


def require_disk() -> None:
    """Raises TooLittleDisk where the first images, or the next ones, would not fit."""
    first = not (_layout() / "index.json").exists()
    needed = FIRST_BUILD_GB if first else NEXT_BUILD_GB
    free = shutil.disk_usage(_folder()).free / 1e9
    if free < needed:
        raise TooLittleDisk(
            f"Building the images takes up to {needed} GB and {_folder()} has {free:.0f} GB free.\n"
            "Free some space, or let FINETUNE_CACHE name a folder on a larger disk. Nothing was built."
        )


def _has_image(name: str) -> bool:
    return name in _buildah("images", "--format={{.Name}}:{{.Tag}}").split()


def _buildah(*arguments: str) -> str:
    storage = _folder() / "buildah"
    # vfs would copy the whole image at each step, and a rootless or systemd set-up is not to be relied on.
    options = [f"--root={storage}", f"--runroot={storage}-run", "--storage-driver=overlay"]
    return _run(["buildah", *options, *arguments], env={**os.environ, "BUILDAH_ISOLATION": "chroot"}).strip()


def _run(command: list[str], env: dict[str, str] | None = None) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=env)
    if done.returncode:
        said = f"{done.stdout}\n{done.stderr}".strip()
        raise RuntimeError(f"`{' '.join(command)}` ended with {done.returncode}:\n{said[-4000:]}")
    return done.stdout


class _step:  # noqa: N801, used like a function
    """Says what takes long, and how long it took."""

    def __init__(self, what: str) -> None:
        self._what = what

    def __enter__(self) -> None:
        self._started = time.monotonic()
        print(f"{self._what} …", file=sys.stderr, flush=True)

    def __exit__(self, *_: object) -> None:
        print(f"{self._what}: {time.monotonic() - self._started:.0f} s", file=sys.stderr, flush=True)


def _layout() -> Path:
    return _folder() / "layout"


def _folder() -> Path:
    folder = cache().parent / "node"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _pause_source() -> Path:
    return Path(__file__).with_name("pause.c")


def _is_source(path: Path) -> bool:
    return path.is_file() and "__pycache__" not in path.parts


def _contents(paths: list[Path]) -> list[str]:
    return [f"{path.relative_to(REPOSITORY)}\0{path.read_text(errors='surrogateescape')}" for path in paths]


def _hash(parts: list[str]) -> str:
    return hashlib.sha256("\0".join(parts).encode(errors="surrogateescape")).hexdigest()[:16]


if __name__ == "__main__":
    main()
