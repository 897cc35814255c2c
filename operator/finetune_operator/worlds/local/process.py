"""One attempt as a subprocess: a trainer in a session of its own that saves and ends when its parent dies."""

from __future__ import annotations

import asyncio
import ctypes
import os
import shutil
import signal
import sys
from asyncio.subprocess import Process
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

from finetune_api.run import ATTEMPT_ENV, PROGRESS_ENV, RESULT_ENV, RUN_ENV, WORKSPACE_ENV, Run
from finetune_operator.worlds.local.devices import devices
from finetune_operator.worlds.local.memory import out_of_memory_kills
from finetune_operator.worlds.protocol import AttemptPhase, AttemptSeen, Training

TRAINER = (sys.executable, "-m", "finetune_trainer")
LONGEST_LINE = 1024 * 1024
"""Bytes of output without a line's end that are kept; progress bars of libraries write such."""
LAST_OUTPUT_SECONDS = 5.0
"""How long output is still read once the trainer is gone."""
LAST_LINES = 20
"""How much of the output stands in for the termination message of a trainer that left none."""
_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None


@dataclass
class Attempt:
    """A running or ended trainer process, and what became of it. `folder` holds its files and is gone when it has ended."""

    seen: AttemptSeen
    process: Process
    output: asyncio.StreamReader
    folder: Path
    on_line: Callable[[str], None]
    kills_before: int
    last_lines: deque[str] = field(default_factory=lambda: deque(maxlen=LAST_LINES))

    @classmethod
    async def start(
        cls,
        trainer: Sequence[str],
        run: Run,
        training: Training,
        number: int,
        *,
        folder: Path,
        progress: Path,
        lock_fd: int,
        on_line: Callable[[str], None],
    ) -> Attempt:
        """Start attempt `number` at `run`; the trainer holds the lock as long as it lives."""
        name = f"{training.name}-{number}"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        parent, kills = os.getpid(), out_of_memory_kills()
        # A pipe of ours: with one of asyncio's own, `process.wait()` would also wait for whatever else still holds it open.
        output, end_of_trainer = await _pipe()
        try:
            process = await asyncio.create_subprocess_exec(
                *trainer,
                env=os.environ
                | {
                    RUN_ENV: run.to_env(),
                    PROGRESS_ENV: progress.as_uri(),
                    RESULT_ENV: str(folder / "termination-message"),
                    WORKSPACE_ENV: str(folder / "workspace"),
                    ATTEMPT_ENV: f"{name}@{os.uname().nodename}",  # for people: who holds a claim, and where
                    "PYTHONUNBUFFERED": "1",
                },
                stdin=asyncio.subprocess.DEVNULL,
                stdout=end_of_trainer,
                stderr=end_of_trainer,
                pass_fds=(lock_fd,),
                preexec_fn=lambda: _end_with_parent(parent),
            )
        finally:
            os.close(end_of_trainer)
        now = datetime.now(UTC)
        seen = AttemptSeen(
            name=name,
            run_id=training.run_id,
            training=training.uid,
            phase=AttemptPhase.RUNNING,
            created=now,
            uid=name,
            started=now,
            devices=devices(run.spec.resources.gpus),
        )
        return cls(seen, process, output, folder, on_line, kills)

    async def wait(self) -> None:
        """Until the process is gone; `seen` then says how it ended."""
        reading = asyncio.create_task(self._read())
        code = await self.process.wait()
        # What it started and left behind holds the output open, and must not work on without it.
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        # One that has left the session is out of reach, but must not hold up the next attempt.
        with suppress(TimeoutError):
            await asyncio.wait_for(reading, LAST_OUTPUT_SECONDS)
        message = self.folder / "termination-message"
        said = message.read_text(errors="replace") if message.exists() else ""
        self.seen = replace(
            self.seen,
            phase=AttemptPhase.ENDED,
            ended=datetime.now(UTC),
            exit_code=code if code >= 0 else 128 - code,
            out_of_memory=code == -signal.SIGKILL and out_of_memory_kills() > self.kills_before,
            termination_message=said or ("\n".join(self.last_lines) if code != 0 else ""),
        )
        shutil.rmtree(self.folder, ignore_errors=True)

    def stop(self) -> None:
        """Ask it to save and end, once: a second signal would tell the trainer not to wait for its save."""
        if self.process.returncode is None and not self.seen.deleting:
            self.seen = replace(self.seen, deleting=True)
            os.killpg(self.process.pid, signal.SIGTERM)

    def kill(self) -> None:
        """End it at once."""
        if self.process.returncode is None:
            self.seen = replace(self.seen, deleting=True)
            os.killpg(self.process.pid, signal.SIGKILL)

    async def _read(self) -> None:
        while True:
            try:
                line = await self.output.readline()
            except ValueError:  # longer than LONGEST_LINE; what was read of it is dropped
                continue
            if not line:
                return
            text = line.decode(errors="replace").rstrip().rpartition("\r")[2]
            if text:
                self.last_lines.append(text)
                self.on_line(text)


async def _pipe() -> tuple[asyncio.StreamReader, int]:
    """A stream, and the file descriptor whose writers end it; it is the caller's to close."""
    read_end, write_end = os.pipe()
    stream = asyncio.StreamReader(limit=LONGEST_LINE)
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(stream), os.fdopen(read_end, "rb", buffering=0)
    )
    return stream, write_end


def _end_with_parent(parent: int) -> None:
    # Runs in the child before exec. A new session keeps the terminal's Ctrl-C away from the trainer.
    os.setsid()
    if _LIBC is not None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # it died before the request was in place
            os._exit(128 + signal.SIGTERM)
