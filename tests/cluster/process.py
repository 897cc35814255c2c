"""A server process that tests start: it dies with its parent, stops when asked, and shows its log when it fails to start."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path


class ServerFailed(RuntimeError):
    """A server ended or did not answer in time; the message ends with the tail of its log."""


class ServerProcess:
    """A running server; `log` holds what it wrote."""

    def __init__(
        self, name: str, command: Sequence[str | Path], log: Path, *, env: Mapping[str, str] | None = None
    ) -> None:
        self.name = name
        self.log = log
        with log.open("wb") as out:
            self._process = subprocess.Popen(
                [*_with_parent(), *(str(part) for part in command)],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                env=env,
                start_new_session=True,  # Ctrl-C is for the tests; they then stop their servers in order
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    def wait_until(self, ready: Callable[[], bool], seconds: float) -> None:
        """Returns once `ready()` holds. Raises ServerFailed when the process ends or the time is over."""
        deadline = time.monotonic() + seconds
        while not ready():
            if self._process.poll() is not None:
                raise ServerFailed(f"{self.name} ended with {self._process.returncode}.\n{self.log_tail()}")
            if time.monotonic() > deadline:
                raise ServerFailed(f"{self.name} was not ready after {seconds:.0f} s.\n{self.log_tail()}")
            time.sleep(0.05)

    def stop(self, seconds: float = 5) -> None:
        """Asks it to end, and ends it after `seconds`."""
        self._process.terminate()
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def log_tail(self, lines: int = 30) -> str:
        return f"{self.log}:\n" + "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])


class ReservedPort:
    """A free TCP port that stays ours: the server binds it too (SO_REUSEPORT), nobody else can come first."""

    def __init__(self, address: str) -> None:
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        self._socket.bind((address, 0))
        self.number: int = self._socket.getsockname()[1]

    def release(self) -> None:
        self._socket.close()


def _with_parent() -> list[str]:
    """A prefix that has the kernel kill the server when the thread that started it ends, however it ends (Linux only).

    Not a preexec_fn: Python code between fork and exec can hang a process that has threads.
    """
    setpriv = shutil.which("setpriv") if sys.platform == "linux" else None
    return [setpriv, "--pdeathsig", "KILL"] if setpriv else []
