"""A training on this machine: attempts one after another, restarted by the rules that the Job controller has in a cluster."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from finetune_api.progress import Progress
from finetune_operator.worlds.local.lock import RunLock
from finetune_operator.worlds.local.process import Attempt
from finetune_operator.worlds.protocol import AttemptPhase, AttemptSeen, Ending, Limits, StartTraining, Training
from finetune_operator.worlds.restarts import ending_after

RETRY_SECONDS, LONGEST_RETRY_SECONDS = 1.0, 60.0
"""Pause before the first restart; each next one waits twice as long."""
LOOK_SECONDS = 0.5
"""Between two looks at what the trainer says of itself."""
LONGEST_REPORT = 8192
GRACE_SECONDS = 120.0
"""Time to save before a trainer that was told to stop is killed, the same as a pod's."""


class Supervisor:
    """Runs one training to its end. `changed` is called whenever `training` or `attempts` say something new.

    `folder` is the training's own while `lock` is held. Of what it puts there only the lock stays.
    """

    def __init__(
        self,
        start: StartTraining,
        trainer: Sequence[str],
        folder: Path,
        lock: RunLock,
        on_line: Callable[[str], None],
        on_report: Callable[[str, Progress], None],
        changed: Callable[[], None],
    ) -> None:
        now = datetime.now(UTC)
        self.training = Training(
            name=start.name,
            uid=f"{start.name}-{now.timestamp()}",
            run_id=start.run.run.id,
            created=now,
            started=now,
            limits=start.limits,
            asked=start.limits,
            placement=start.placement,
        )
        self.progress = folder / "progress.jsonl"
        self._run, self._trainer, self._folder, self._lock = start.run, trainer, folder, lock
        self._on_line, self._on_report, self._changed = on_line, on_report, changed
        self._attempts: list[Attempt] = []
        self._stopping = asyncio.Event()
        self._killed = False
        self._too_late = False
        self._ended_at = 0.0
        self._deadline: asyncio.TimerHandle | None = None
        self._set_deadline()
        self._task = asyncio.create_task(self._supervise())

    @property
    def attempts(self) -> tuple[AttemptSeen, ...]:
        """Of the running one with for how long its trainer has said nothing."""
        return tuple(self._with_silence(attempt.seen) for attempt in self._attempts)

    def _with_silence(self, seen: AttemptSeen) -> AttemptSeen:
        if seen.phase is not AttemptPhase.RUNNING or seen.started is None:
            return seen
        since = (datetime.now(UTC) - seen.started).total_seconds()
        with suppress(FileNotFoundError):
            since = min(since, time.time() - self.progress.stat().st_mtime)
        return replace(seen, silent_for=max(0.0, since))

    def stop_attempt(self, uid: str) -> None:
        """Tell this attempt to save and end, and kill it if it does not; another one follows."""
        for attempt in self._attempts:
            if attempt.seen.uid == uid and attempt.seen.phase is not AttemptPhase.ENDED and not attempt.seen.deleting:
                attempt.stop()
                asyncio.get_running_loop().call_later(GRACE_SECONDS, attempt.kill)

    def seen(self) -> Training:
        """The training as it is now."""
        if self.training.ending is None:
            return self.training
        return replace(self.training, ended_for=time.monotonic() - self._ended_at)

    def change_limits(self, limits: Limits) -> None:
        self.training = replace(self.training, limits=limits, asked=limits)
        self._set_deadline()

    def stop(self) -> None:
        """Tell the running attempt to save and end; `ended` says when it has."""
        self.training = replace(self.training, deleting=True)
        self._stopping.set()

    def kill(self) -> None:
        """End at once, saving nothing more."""
        self._killed = True
        self.stop()
        for attempt in self._attempts:
            attempt.kill()

    async def ended(self) -> None:
        """Until no attempt runs and none will."""
        await self._task

    async def _supervise(self) -> None:
        try:
            self.progress.unlink(missing_ok=True)  # of a process that was killed
            while not self._stopping.is_set():
                await self._attempt()
                ending = ending_after(self.attempts, self.training.limits)
                if ending is Ending.COMPLETE or (ending is not None and not self._too_late):
                    return self._end(ending)
                await self._pause(min(RETRY_SECONDS * 2 ** (len(self._attempts) - 1), LONGEST_RETRY_SECONDS))
            if self._too_late:
                self._end(Ending.DEADLINE_EXCEEDED)
        except Exception as error:
            self._end(Ending.OTHER, f"the trainer cannot be run: {error}")
        finally:
            if self._deadline is not None:
                self._deadline.cancel()
            self.progress.unlink(missing_ok=True)
            self._lock.release()
            self._changed()

    async def _attempt(self) -> None:
        """Run one attempt to its end, or until told to stop and saved."""
        attempt = await Attempt.start(
            self._trainer,
            self._run,
            self.training,
            len(self._attempts) + 1,
            folder=self._folder / "attempt",
            progress=self.progress,
            lock_fd=self._lock.fd,
            on_line=self._on_line,
        )
        self._attempts.append(attempt)
        self._changed()
        following = asyncio.create_task(self._follow(attempt.seen.name, self.newest()))
        ending = asyncio.create_task(attempt.wait())
        stopping = asyncio.create_task(self._stopping.wait())
        await asyncio.wait({ending, stopping}, return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if not ending.done():
            if self._killed:
                attempt.kill()  # it was only starting when everything else was killed
            attempt.stop()
            self._changed()
            await asyncio.wait({ending}, timeout=GRACE_SECONDS)
            attempt.kill()
        await ending
        following.cancel()
        self._changed()

    def newest(self) -> Progress | None:
        """What a trainer said last."""
        try:
            with self.progress.open("rb") as file:
                file.seek(max(0, self.progress.stat().st_size - LONGEST_REPORT))
                lines = file.read().splitlines()
        except FileNotFoundError:
            return None
        # The last line may be half written.
        for line in reversed(lines):
            with suppress(ValueError):
                return Progress.model_validate_json(line)
        return None

    async def _follow(self, attempt: str, last: Progress | None) -> None:
        """Hand on what this attempt says; `last` is what an earlier one said."""
        while True:
            newest = self.newest()
            if newest is not None and newest != last:
                self._on_report(attempt, newest)
                last = newest
            await asyncio.sleep(LOOK_SECONDS)

    async def _pause(self, delay: float) -> None:
        """Wait before the next attempt, or until told to stop."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), delay)

    def _set_deadline(self) -> None:
        """It counts from the training's start, also when it is changed."""
        if self._deadline is not None:
            self._deadline.cancel()
        limit = self.training.limits.active_deadline_seconds
        if limit is not None:
            left = limit - (datetime.now(UTC) - self.training.created).total_seconds()
            self._deadline = asyncio.get_running_loop().call_later(max(0.0, left), self._expire)

    def _expire(self) -> None:
        self._too_late = True
        self._stopping.set()

    def _end(self, ending: Ending, message: str = "") -> None:
        self._ended_at = time.monotonic()
        self.training = replace(self.training, ending=ending, ended=datetime.now(UTC), message=message)
