"""One process a run: a lock that lives exactly as long as somebody trains."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import Self


class RunLock:
    """An exclusive lock on a run, held by this process and by every subprocess that inherits `fd`.

    The kernel drops it when the last of them is gone, so a killed parent leaves no stale lock, and a trainer that is still saving
    after its parent's death keeps others out.
    """

    def __init__(self, fd: int) -> None:
        self.fd = fd

    @classmethod
    def take(cls, path: Path) -> Self | None:
        """The lock at `path`, or None when another process holds it."""
        path.parent.mkdir(parents=True, exist_ok=True)
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            return None
        return cls(fd)

    def release(self) -> None:
        """Let go of it; a subprocess that inherited it goes on holding it."""
        os.close(self.fd)
