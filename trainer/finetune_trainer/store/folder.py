"""A folder in an object store: s3, gs, az, file or memory, behind one small set of operations.

Every operation may be called from any thread, is retried while the store does not answer, and ends as JobError
(StorageDenied, StorageUnavailable) with the URI in its message. In the main thread a signal is served while it waits.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from finetune_api.job import Storage

PATIENCE = 120.0
"""Seconds that an operation is retried while the store does not answer."""


@dataclass(frozen=True)
class StoredFile:
    """What a listing tells of a file."""

    size: int
    """Bytes."""
    etag: str | None


@dataclass(frozen=True)
class Version:
    """Which state of a file was read: opaque, for `replace`."""

    etag: str | None
    generation: str | None


@dataclass(frozen=True)
class Content:
    """A small file as read."""

    data: bytes
    version: Version


@dataclass(frozen=True)
class Digest:
    """What a file holds."""

    size: int
    """Bytes."""
    sha256: str
    """Hexadecimal."""


def open_folder(uri: str, storage: Storage, *, patience: float = PATIENCE) -> Folder:
    """The folder at `uri`: `s3://bucket/path`, `gs://bucket/path`, `az://container/path`, `file:///path`, or `memory://name/path`
    (shared by name within the process).

    Credentials come from the environment or the cloud's identity, never from the URI. Raises JobError StorageDenied when an
    endpoint is named and there are no credentials for it; nothing is asked of the store yet.
    """
    raise NotImplementedError


class Folder:
    """Names are relative to the folder, with `/`. Writes are atomic: a reader sees the old content, the new, or none."""

    uri: str

    def below(self, prefix: str) -> Folder:
        """The folder at `prefix` in this one."""
        raise NotImplementedError

    def patient(self, seconds: float) -> Folder:
        """The same folder with another patience."""
        raise NotImplementedError

    def list(self, prefix: str = "") -> dict[str, StoredFile]:
        """Every file below the folder `prefix`, by name (relative to this folder, `prefix` included), sorted."""
        raise NotImplementedError

    def read(self, name: str) -> Content | None:
        """A small file, or None when there is none."""
        raise NotImplementedError

    def write(self, name: str, data: bytes) -> None:
        """Write a small file, whatever was there."""
        raise NotImplementedError

    def create(self, name: str, data: bytes) -> bool:
        """Write a file that must not exist yet. False when it does; of several at once exactly one gets True."""
        raise NotImplementedError

    def replace(self, name: str, data: bytes, version: Version) -> bool:
        """Write a file that must still be as read. False when it was changed or deleted since."""
        raise NotImplementedError

    def delete(self, names: Iterable[str]) -> None:
        """Delete files; those that do not exist are no error."""
        raise NotImplementedError

    def upload(self, path: Path, name: str) -> Digest:
        """Upload one file of any size; its hash is taken meanwhile."""
        raise NotImplementedError

    def download(self, name: str, path: Path) -> Digest:
        """Download one file of any size to `path`, making its parents. Raises FileNotFoundError when there is none."""
        raise NotImplementedError

    def upload_all(self, directory: Path, prefix: str = "") -> dict[str, Digest]:
        """Upload all files below `directory` to `prefix`, several at a time. Names are relative to `directory`, sorted."""
        raise NotImplementedError

    def download_all(self, names: Iterable[str], directory: Path) -> dict[str, Digest]:
        """Download these files, several at a time, to the same names below `directory`."""
        raise NotImplementedError
