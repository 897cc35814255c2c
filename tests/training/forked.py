"""The trainer in a process that has its libraries already: a fork of a server that imported them, instead of ten seconds of imports."""

from __future__ import annotations

import faulthandler
import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

server = multiprocessing.get_context("forkserver")
"""Whose processes have the libraries."""
server.set_forkserver_preload(["tests.training.libraries"])


class ForkedTrainer:
    """What is used of `subprocess.Popen`, for `python -m finetune_trainer` with nothing but `environment`."""

    def __init__(self, environment: dict[str, str], log: Path, first: Callable[[], None] | None = None) -> None:
        """`first` is called in the process before all else."""
        self._process = server.Process(target=_be_the_trainer, args=(environment, log, first), daemon=True)
        self._process.start()

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        code = self._process.exitcode
        if code is None:
            raise subprocess.TimeoutExpired("finetune_trainer", timeout or 0)
        return code

    def send_signal(self, number: signal.Signals) -> None:
        if self.poll() is None:
            assert self._process.pid is not None
            os.kill(self._process.pid, number)


def _be_the_trainer(environment: dict[str, str], log: Path, first: Callable[[], None] | None) -> None:
    with log.open("wb") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    faulthandler.enable()  # a hang says where
    assert "torch" in sys.modules, "the server did not import what it should have"
    os.environ.clear()
    os.environ.update(environment)
    if first is not None:
        first()
    sys.argv = ["finetune_trainer"]
    runpy.run_module("finetune_trainer", run_name="__main__", alter_sys=True)
