"""One attempt as a subprocess: a trainer in a session of its own that saves and ends when its parent dies."""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import sys
from asyncio.subprocess import PIPE, STDOUT, Process
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from finetune_api.run import ATTEMPT_ENV, PROGRESS_ENV, RESULT_ENV, RUN_ENV, WORKSPACE_ENV, Run
from finetune_operator.worlds.protocol import AttemptPhase, AttemptSeen, Training

TRAINER = (sys.executable, "-m", "finetune_trainer")
_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None


def _end_with_parent(parent: int) -> None:
    # Runs in the child before exec. A new session keeps the terminal's Ctrl-C away from the trainer.
    os.setsid()
    if _LIBC is not None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # it died before the request was in place
            os._exit(128 + signal.SIGTERM)


def _out_of_memory_kills() -> int:
    """How many processes the kernel has killed for memory since boot; 0 where it does not say."""
    try:
        lines = Path("/proc/vmstat").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), 0)


@dataclass
class Attempt:
    """A running or ended trainer process, and what became of it."""

    seen: AttemptSeen
    process: Process
    folder: Path
    oom_kills_before: int

    @classmethod
    async def start(
        cls, run: Run, training: Training, name: str, folder: Path, lock_fd: int, progress: Path
    ) -> Attempt:
        """Start a trainer whose scratch files and termination message go to `folder`."""
        folder.mkdir(parents=True, exist_ok=True)
        parent = os.getpid()
        environment = os.environ | {
            RUN_ENV: run.to_env(),
            PROGRESS_ENV: progress.as_uri(),
            RESULT_ENV: str(folder / "termination-message"),
            WORKSPACE_ENV: str(folder / "workspace"),
            ATTEMPT_ENV: name,
            "PYTHONUNBUFFERED": "1",
        }
        process = await asyncio.create_subprocess_exec(
            *TRAINER,
            env=environment,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=PIPE,
            stderr=STDOUT,
            pass_fds=(lock_fd,),
            preexec_fn=lambda: _end_with_parent(parent),
        )
        now = datetime.now(UTC)
        seen = AttemptSeen(
            name=name,
            run_id=training.run_id,
            training=training.uid,
            phase=AttemptPhase.RUNNING,
            created=now,
            started=now,
            node=os.uname().nodename,
        )
        return cls(seen, process, folder, _out_of_memory_kills())

    async def wait(self) -> None:
        """Until the process is gone; `seen` then says how it ended."""
        code = await self.process.wait()
        message = self.folder / "termination-message"
        self.seen = replace(
            self.seen,
            phase=AttemptPhase.ENDED,
            ended=datetime.now(UTC),
            exit_code=code if code >= 0 else 128 - code,
            out_of_memory=code == -signal.SIGKILL and _out_of_memory_kills() > self.oom_kills_before,
            termination_message=message.read_text(errors="replace") if message.exists() else "",
        )

    def stop(self) -> None:
        """Ask it to save and end."""
        self.seen = replace(self.seen, deleting=True)
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        self._signal(signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        if self.process.returncode is None:
            os.killpg(self.process.pid, number)
