"""A training on this machine: attempts one after another, restarted by the rules that the Job controller has in a cluster."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from finetune_operator.worlds.local.lock import RunLock
from finetune_operator.worlds.local.process import Attempt
from finetune_operator.worlds.protocol import AttemptSeen, Ending, Limits, StartTraining, Training
from finetune_operator.worlds.restarts import ending_after

RETRY_SECONDS = 2.0
"""Pause before the first restart; each next one waits twice as long."""
GRACE_SECONDS = 120.0
"""Time to save before a trainer that was told to stop is killed, the same as a pod's."""


class Supervisor:
    """Runs one training to its end. `changed` is called whenever `training` or `attempts` say something new."""

    def __init__(
        self,
        start: StartTraining,
        folder: Path,
        lock: RunLock,
        on_line: Callable[[str], None],
        changed: Callable[[], None],
    ) -> None:
        now = datetime.now(UTC)
        self.training = Training(
            name=start.name,
            uid=f"{start.name}-{now.timestamp():.0f}",
            run_id=start.run.run.id,
            created=now,
            limits=start.limits,
            placement=start.placement,
        )
        self.progress = folder / "progress.jsonl"
        self._run, self._folder, self._lock = start.run, folder, lock
        self._on_line, self._changed = on_line, changed
        self._attempts: list[Attempt] = []
        self._stopping = asyncio.Event()
        self._task = asyncio.create_task(self._supervise())

    @property
    def attempts(self) -> tuple[AttemptSeen, ...]:
        return tuple(attempt.seen for attempt in self._attempts)

    def change_limits(self, limits: Limits) -> None:
        self.training = replace(self.training, limits=limits)

    async def stop(self) -> None:
        """Tell the running attempt to save and end, and wait until it has."""
        self.training = replace(self.training, deleting=True)
        self._stopping.set()
        for attempt in self._attempts:
            attempt.stop()
        await self._task

    def kill(self) -> None:
        """End at once, saving nothing more."""
        self._stopping.set()
        for attempt in self._attempts:
            attempt.kill()

    async def _supervise(self) -> None:
        try:
            while not self._stopping.is_set():
                await self._attempt()
                if self._stopping.is_set():
                    return
                ending = ending_after(self.attempts, self.training.limits)
                if ending is not None:
                    self._end(ending)
                    return
                await self._pause(min(RETRY_SECONDS * 2 ** (len(self._attempts) - 1), 60.0))
        except TimeoutError:
            self._end(Ending.DEADLINE_EXCEEDED)
        finally:
            self._lock.release()
            self._changed()

    async def _attempt(self) -> None:
        """Run one attempt to its end; raises TimeoutError at the deadline."""
        number = len(self._attempts) + 1
        name = f"{self.training.name}-{number}"
        folder = self._folder / f"attempt-{number}"
        shutil.rmtree(folder, ignore_errors=True)
        attempt = await Attempt.start(self._run, self.training, name, folder, self._lock.fd, self.progress)
        self._attempts.append(attempt)
        self._changed()
        reading = asyncio.create_task(self._read_lines(attempt))
        ending = asyncio.create_task(attempt.wait())
        stopping = asyncio.create_task(self._stopping.wait())
        try:
            await asyncio.wait({ending, stopping}, timeout=self._seconds_left(), return_when=asyncio.FIRST_COMPLETED)
            if not ending.done():
                late = not stopping.done()
                attempt.stop()
                if not (await asyncio.wait({ending}, timeout=GRACE_SECONDS))[0]:
                    attempt.kill()
                await ending
                if late:
                    raise TimeoutError
            await reading
        finally:
            stopping.cancel()
            shutil.rmtree(folder / "workspace", ignore_errors=True)
            self._changed()

    async def _read_lines(self, attempt: Attempt) -> None:
        assert attempt.process.stdout is not None
        while line := await attempt.process.stdout.readline():
            self._on_line(line.decode(errors="replace").rstrip("\n"))

    def _seconds_left(self) -> float | None:
        limit = self.training.limits.active_deadline_seconds
        if limit is None:
            return None
        return max(0.0, limit - (datetime.now(UTC) - self.training.created).total_seconds())

    async def _pause(self, delay: float) -> None:
        left = self._seconds_left()
        try:
            await asyncio.wait_for(self._stopping.wait(), delay if left is None else min(delay, left))
        except TimeoutError:
            if left is not None and left <= delay:
                raise

    def _end(self, ending: Ending) -> None:
        self.training = replace(self.training, ending=ending, ended=datetime.now(UTC))
