"""Compare and swap for files on a disk, which have no conditional write of their own."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


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
