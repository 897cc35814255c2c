"""What a folder on a disk needs beside obstore: compare and swap, links instead of copies, and tidying up."""

from __future__ import annotations

import fcntl
import glob
import hashlib
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

COPY_BUFFER = 1024 * 1024
"""Bytes. Small enough to be hashed and written out of the processor's cache."""


@contextmanager
def exclusive(file: Path) -> Iterator[None]:
    """Hold `.<name>.lock` beside `file`, against threads and processes alike.

    Everybody who replaces the file holds it while comparing and writing, and creation is atomic by itself (a hard link that must
    not exist), so no change can come between the two. The kernel lets go of the lock when its holder dies. The empty lock file
    stays: deleting it would let two hold different files of the same name.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    with (file.parent / f".{file.name}.lock").open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def is_lock(name: str) -> bool:
    last = name.rpartition("/")[2]
    return last.startswith(".") and last.endswith(".lock")


def put(source: Path, target: Path) -> str:
    """Make `target` the file `source`, atomically: by a link within a file system, else by a copy. Returns its SHA-256 (hex)."""
    target.parent.mkdir(parents=True, exist_ok=True)
    staged = target.with_name(
        f"{target.name}#{secrets.randbelow(10**9)}"
    )  # named as obstore names what it has half written
    try:
        os.link(source.resolve(), staged)
    except OSError:  # another file system, or one without links
        sha256 = _copy(source, staged)
    else:
        with source.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    staged.replace(target)
    staged.unlink(missing_ok=True)  # which still exists if `target` was this very file before
    return sha256


def _copy(source: Path, target: Path) -> str:
    digest, buffer = hashlib.sha256(), memoryview(bytearray(COPY_BUFFER))
    with source.open("rb", buffering=0) as reader, target.open("wb", buffering=0) as writer:
        while count := reader.readinto(buffer):
            digest.update(buffer[:count])
            rest = buffer[:count]
            while rest:  # a raw write may take a part
                rest = rest[writer.write(rest) :]
    return digest.hexdigest()


def is_half_written(name: str) -> bool:
    """Whether a file of this name is one that is still being written, as obstore has it: listings do not show it."""
    last = name.rpartition("/")[2]
    number = last.partition("#")[2]
    return number.isascii() and number.isdigit()


def sweep(path: Path, top: Path) -> None:
    """Remove what was half-written of the file `path`, or below the directory, and then the directories below `top` that are empty."""
    beside = path.parent.glob(f"{glob.escape(path.name)}#*")
    for found in [*beside, *path.rglob("*#*")]:
        if is_half_written(found.name) and found.is_file():
            found.unlink(missing_ok=True)
            remove_empty(found.parent, top)


def remove_empty(directory: Path, top: Path) -> None:
    """Remove `directory` if it is empty, and so on upwards, below `top`."""
    while directory != top and directory.is_relative_to(top):
        try:
            directory.rmdir()
        except OSError:
            return
        directory = directory.parent
