"""A folder in an object store: s3, gs, az, file or memory, behind one small set of operations.

Every operation may be called from any thread, is retried while the store does not answer, and ends as JobError
(StorageDenied, StorageUnavailable) with the URI in its message. In the main thread a signal is served while it waits.
"""

from __future__ import annotations

import contextlib
import hashlib
import random
import threading
import time
from builtins import list as List  # `list` is a method of Folder  # noqa: N812
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import obstore
from obstore.store import ObjectStore

from finetune_api.failures import FailureReason, JobError
from finetune_api.job import Storage
from finetune_trainer.log import logger
from finetune_trainer.shortage import shortage
from finetune_trainer.store import disk
from finetune_trainer.store.conditions import Conditions
from finetune_trainer.store.errors import NotThere, WasChanged, explain, may_pass, no_store
from finetune_trainer.store.locations import Location, locate

PATIENCE = 120.0
"""Seconds that an operation is retried while the store does not answer."""
LONGEST_PAUSE = 10.0
"""Seconds between two tries, at most."""
CHUNK = 8 * 1024 * 1024
"""Bytes a part of an upload."""
MOST_PARTS = 9000
"""S3 allows 10,000."""
PARALLEL_PARTS = 8
PARALLEL_FILES = 4

T = TypeVar("T")
_waiting = ThreadPoolExecutor(max_workers=16, thread_name_prefix="store")


@dataclass(frozen=True)
class StoredFile:
    """What a listing tells of a file."""

    size: int
    """Bytes."""
    stamp: str
    """Another whenever the content is: the ETag, or the time of the last change where there is none."""

    @classmethod
    def of(cls, meta: Any) -> StoredFile:
        return cls(meta["size"], meta["e_tag"] or meta["last_modified"].isoformat())


@dataclass(frozen=True)
class Version:
    """Which state of a file was read or written: opaque, for `replace`."""

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

    Credentials come from the environment or the cloud's identity, never from the URI. `patience` is in seconds. Raises JobError
    StorageDenied when an endpoint is named and there are no credentials for it; nothing is asked of the store yet.
    """
    return Folder(uri.rstrip("/"), locate(uri, storage, patience))


class Folder:
    """Names are relative to the folder, with `/`. Writes are atomic: a reader sees the old content, the new, or none."""

    def __init__(self, uri: str, location: Location) -> None:
        self.uri = uri
        self._at = location

    @property
    def patience(self) -> float:
        """Seconds that an operation is retried while the store does not answer."""
        return self._at.patience

    def below(self, prefix: str) -> Folder:
        """The folder at `prefix` in this one."""
        return Folder(f"{self.uri}/{prefix}", replace(self._at, path=self._key(prefix)))

    def patient(self, seconds: float) -> Folder:
        """The same folder with another patience."""
        return Folder(self.uri, replace(self._at, patience=seconds))

    @property
    def conditions(self) -> Conditions:
        """By what files are created only once here."""
        return self._at.conditions

    def with_conditions(self, conditions: Conditions) -> Folder:
        """The same folder, in which files are created by what its store can do."""
        return Folder(self.uri, replace(self._at, conditions=conditions))

    def list(self, prefix: str = "") -> dict[str, StoredFile]:
        """Every file below the folder `prefix`, by name (relative to this folder, `prefix` included), sorted."""
        key = self._key(prefix)
        begin = len(self._at.path) + 1 if self._at.path else 0
        found = self._retried(prefix, lambda: obstore.list(self._at.quick, prefix=key or None).collect(), "list it")
        files = {meta["path"][begin:]: StoredFile.of(meta) for meta in found or ()}
        folders = _folders(files)
        # Consoles and mounts make empty objects to show a folder: `reviews/`, of which only the name without its slash comes back.
        markers = {name for name, file in files.items() if not name or (file.size == 0 and name in folders)}
        return {name: files[name] for name in sorted(files.keys() - markers) if not disk.is_lock(name)}

    def stat(self, name: str) -> StoredFile | None:
        """What a listing would tell of one file, or None when there is none."""
        try:
            meta = self._retried(name, lambda: obstore.head(self._at.quick, self._key(name)), "read it")
        except NotThere:
            return None
        if not meta["e_tag"] and meta["last_modified"].timestamp() == 0:
            raise no_store(f"{self.uri}/{name}", self._at.endpoint)
        return StoredFile.of(meta)

    def read(self, name: str) -> Content | None:
        """A small file, or None when there is none."""

        def get() -> Content:
            got = obstore.get(self._at.quick, self._key(name))
            return Content(bytes(got.bytes()), Version(got.meta["e_tag"], got.meta.get("version")))

        try:
            return self._retried(name, get, "read it")
        except NotThere:
            return None

    def part(self, name: str, begin: int, count: int) -> bytes:
        """`count` bytes of a file of any size, from `begin` on. Raises FileNotFoundError when there is none."""

        def get() -> bytes:
            return bytes(obstore.get_range(self._at.quick, self._key(name), start=begin, length=count))

        try:
            return self._retried(name, get, "read it")
        except NotThere as missing:
            raise FileNotFoundError(f"{self.uri}/{name}") from missing

    def write(self, name: str, data: bytes) -> None:
        """Write a small file, whatever was there."""
        self._retried(name, lambda: self._put(name, data, "overwrite"), "write it")

    def create(self, name: str, data: bytes) -> Version | None:
        """Write a file that must not exist yet. None when it does; of several at once exactly one gets a Version.

        None may also follow a write of our own whose answer was lost on the way: read the file to know.
        """
        conditions = self._at.conditions
        if not conditions.standard and not conditions.header:
            return (
                None if self.stat(name) else self._retried(name, lambda: self._put(name, data, "overwrite"), "write it")
            )
        mode = "create" if conditions.standard else "overwrite"
        try:
            return self._retried(name, lambda: self._put(name, data, mode, self._at.creating), "create it")
        except WasChanged:
            return None

    def replace(self, name: str, data: bytes, version: Version) -> Version | None:
        """Write a file that must still be as read. None when it was changed or deleted since, or as for `create`.

        For stores with the standard conditions only; `register.py` knows how to do without.
        """
        known = {"e_tag": version.etag, "version": version.generation}
        mode = {key: value for key, value in known.items() if value is not None}
        try:
            if self._at.is_local:
                return self._retried(name, lambda: self._swap_on_disk(name, data, version), "replace it")
            return self._retried(name, lambda: self._put(name, data, mode), "replace it")
        except (WasChanged, NotThere):
            return None

    def delete(self, names: Iterable[str]) -> None:
        """Delete files; those that do not exist are no error."""
        keys = [self._key(name) for name in names]
        try:
            self._retried("", lambda: obstore.delete(self._at.quick, keys) if keys else None, "delete files of it")
        except NotThere:
            for key in keys:  # a disk deletes one at a time and stops at the first that is gone
                with contextlib.suppress(NotThere):
                    self._retried("", lambda key=key: obstore.delete(self._at.quick, key), "delete files of it")  # type: ignore[misc]
        if self._at.is_local:
            for directory in {(Path("/") / key).parent for key in keys}:
                disk.remove_empty(directory, self._path(""))

    def tidy(self, names: Iterable[str]) -> None:
        """Delete files that nobody needs any more. What cannot be deleted stays, the log says so: no run depends on that."""
        names = sorted(names)
        try:
            self.delete(names)
        except JobError as error:
            rest = f" and {len(names) - 1} more" if len(names) > 1 else ""
            logger.warning("%s%s, needless by now, was not deleted: %s", names[0], rest, error.message)

    def write_in_parts(self, name: str, data: bytes) -> None:
        """Write a small file in the way of large ones, which a store may refuse where it permits the other."""
        key = self._key(name)
        self._retried(name, lambda: obstore.put(self._at.bulk, key, data, use_multipart=True), "upload it in parts")

    def upload(self, path: Path, name: str) -> Digest:
        """Upload one file of any size; its hash is taken meanwhile, of exactly the bytes that are sent.

        Within one file system it is linked instead of copied, so do not write over it afterwards: delete it.
        """
        self._refuse_half_written(name)
        size = path.stat().st_size
        part = max(CHUNK, -(-size // MOST_PARTS))

        def send() -> Digest:
            if self._at.is_local:
                return Digest(size, disk.put(path, self._path(name)))
            chunks = _Chunks(path, part)
            if size <= part:
                obstore.put(self._at.bulk, self._key(name), b"".join(chunks))
            else:
                obstore.put(
                    self._at.bulk, self._key(name), iter(chunks), chunk_size=part, max_concurrency=PARALLEL_PARTS
                )
            return chunks.digest()

        return self._retried(name, send, "write it" if size <= part else "upload it in parts")

    def download(self, name: str, path: Path) -> Digest:
        """Download one file of any size to `path`, making its parents. Raises FileNotFoundError when there is none."""

        def receive() -> Digest:
            digest = hashlib.sha256()
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("wb") as file:
                for chunk in obstore.get(self._at.bulk, self._key(name)).stream(min_chunk_size=CHUNK):
                    digest.update(chunk)
                    file.write(chunk)
                return Digest(file.tell(), digest.hexdigest())

        try:
            return self._retried(name, _of_our_disk(receive), "read it")
        except NotThere as missing:
            raise FileNotFoundError(f"{self.uri}/{name}") from missing

    def digest(self, name: str) -> Digest:
        """What a file of any size holds. Raises FileNotFoundError when there is none."""

        def look() -> Digest:
            sha256, size = hashlib.sha256(), 0
            for chunk in obstore.get(self._at.bulk, self._key(name)).stream(min_chunk_size=CHUNK):
                sha256.update(chunk)
                size += len(chunk)
            return Digest(size, sha256.hexdigest())

        try:
            return self._retried(name, look, "read it")
        except NotThere as missing:
            raise FileNotFoundError(f"{self.uri}/{name}") from missing

    def upload_all(
        self, directory: Path, prefix: str = "", *, may_write: Callable[[], None] = lambda: None
    ) -> dict[str, Digest]:
        """Upload all files below `directory` to `prefix`, several at a time. Names are relative to `directory`, sorted.

        `may_write` is called before each file and may raise.
        """
        names = sorted(path.relative_to(directory).as_posix() for path in directory.rglob("*") if path.is_file())
        begin = f"{prefix}/" if prefix else ""

        def upload(name: str) -> Digest:
            may_write()
            return self.upload(directory / name, begin + name)

        return _in_parallel(names, upload)

    def download_all(self, names: Iterable[str], directory: Path) -> dict[str, Digest]:
        """Download these files, several at a time, to the same names below `directory`."""
        return _in_parallel(names, lambda name: self.download(name, directory / name))

    def sweep(self, name: str) -> None:
        """Remove what killed writers left half-written of the file, or below the folder, `name`. Call it only when nobody else can
        be writing there.

        On a disk these are files beside the ones to be; listings do not show them. A bucket keeps the parts of broken uploads out
        of sight, and removes them by its own rule (AbortIncompleteMultipartUpload) only.
        """
        if self._at.is_local:
            disk.sweep(self._path(name), self._path(""))

    def _key(self, name: str) -> str:
        return "/".join(part for part in (self._at.path, name) if part)

    def _path(self, name: str) -> Path:
        return Path("/") / self._key(name)

    def _refuse_half_written(self, name: str) -> None:
        if self._at.is_local and disk.is_half_written(name):
            raise JobError(
                FailureReason.STORAGE_DENIED,
                f"{self.uri}/{name} cannot be written: on a disk, # and a number end the names of half-written files",
                remedy="Give the file another name.",
            )

    def _put(self, name: str, data: bytes, mode: Any, client: ObjectStore | None = None) -> Version:
        self._refuse_half_written(name)
        done = obstore.put(client or self._at.quick, self._key(name), data, mode=mode)
        return Version(done["e_tag"], done.get("version"))

    def _swap_on_disk(self, name: str, data: bytes, version: Version) -> Version:
        with disk.exclusive(self._path(name)):
            if obstore.head(self._at.quick, self._key(name))["e_tag"] != version.etag:
                raise WasChanged(name)
            return self._put(name, data, "overwrite")

    def _retried(self, name: str, request: Callable[[], T], doing: str) -> T:
        uri = f"{self.uri}/{name}" if name else self.uri
        return _interruptible(lambda: _patiently(request, uri, self._at, doing))


class _Chunks:
    """The chunks of a file, hashed as they are read. For one pass."""

    def __init__(self, path: Path, size: int) -> None:
        self._path = path
        self._chunk = size
        self._sha256 = hashlib.sha256()
        self._size = 0

    def __iter__(self) -> Iterator[bytes]:
        with self._path.open("rb") as file:
            while chunk := file.read(self._chunk):
                self._sha256.update(chunk)
                self._size += len(chunk)
                yield chunk

    def digest(self) -> Digest:
        return Digest(self._size, self._sha256.hexdigest())


def _of_our_disk(work: Callable[[], T]) -> Callable[[], T]:
    """`work`, which writes to this machine's disk: what that is short of is not the store's fault."""

    def do() -> T:
        try:
            return work()
        except OSError as error:  # those of the store are of other kinds
            raise shortage(error) or error from error

    return do


def _folders(names: Iterable[str]) -> set[str]:
    """Every folder that one of these files lies in, also indirectly."""
    found: set[str] = set()
    for name in names:
        while (name := name.rpartition("/")[0]) and name not in found:
            found.add(name)
    return found


def _patiently(request: Callable[[], T], uri: str, at: Location, doing: str) -> T:
    """What `request` returns; tried again with growing pauses until `at.patience` is over."""
    deadline = time.monotonic() + at.patience
    pause = 0.2
    while True:
        is_virtual_host = at.is_virtual_host
        try:
            return request()
        except (NotThere, WasChanged, JobError):
            raise
        except Exception as error:
            if may_pass(error) and time.monotonic() + pause < deadline:
                time.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311
                pause = min(2 * pause, LONGEST_PAUSE)
                continue
            if not is_virtual_host and at.names_bucket_in_host(str(error)):
                continue
            raise explain(error, uri, at.endpoint, doing, secret=at.secret) from error


def _interruptible(request: Callable[[], T]) -> T:
    # obstore serves no signals while it waits, and only the main thread can: it waits for another that waits.
    if threading.current_thread() is threading.main_thread():
        return _waiting.submit(request).result()
    return request()


def _in_parallel(names: Iterable[str], work: Callable[[str], T]) -> dict[str, T]:
    wanted = List(names)
    pool = ThreadPoolExecutor(PARALLEL_FILES, thread_name_prefix="files")
    try:
        return dict(zip(wanted, pool.map(work, wanted), strict=True))
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
