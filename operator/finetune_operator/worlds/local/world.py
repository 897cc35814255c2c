"""The local world: one FineTuneJob in memory, its runs as subprocesses, its state in a folder of the user's."""

from __future__ import annotations

import asyncio
import getpass
import hashlib
import os
from collections.abc import AsyncIterator, Callable, Collection, Coroutine, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from finetune_api import KIND
from finetune_api.failures import FailureReason
from finetune_api.progress import Progress
from finetune_operator.worlds.local.lock import RunLock
from finetune_operator.worlds.local.supervisor import Supervisor
from finetune_operator.worlds.protocol import (
    Action,
    AttemptSeen,
    ChangeLimits,
    Decision,
    Job,
    Key,
    Observed,
    Refusal,
    StartTraining,
    StopTraining,
)

NAMESPACE = "local"


def state_home() -> Path:
    """Where locks, logs and progress of local runs lie; results lie in `spec.output.uri`."""
    home = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(home) / "finetune-operator"


class LocalWorld:
    """One job at a time, as `finetune run` needs it."""

    def __init__(
        self, name: str, spec: Mapping[str, Any], *, state: Path | None = None, on_line: Callable[[str], None] = print
    ) -> None:
        self.key = Key(KIND, NAMESPACE, name)
        # The owner of a run must be the same when the same person runs it again, or the claim on its folder would look foreign.
        self._job = Job(uid=f"{getpass.getuser()}@{os.uname().nodename}", generation=1, spec=spec)
        self._state = state or state_home()
        self._on_line = on_line
        self._trainings: dict[str, Supervisor] = {}
        self._past_attempts: list[AttemptSeen] = []
        self._changes: asyncio.Queue[Key] = asyncio.Queue()
        self._tasks: set[asyncio.Task[None]] = set()

    def edit(self, **changes: Any) -> None:
        """Change the job's spec, as `kubectl edit` does in a cluster."""
        self._job = replace(self._job, spec={**self._job.spec, **changes}, generation=self._job.generation + 1)
        self._announce()

    def kill(self) -> None:
        """End everything at once."""
        for supervisor in self._trainings.values():
            supervisor.kill()

    def progress(self) -> Progress | None:
        """The newest report of the running trainer."""
        for supervisor in self._trainings.values():
            try:
                with supervisor.progress.open("rb") as file:
                    file.seek(max(0, supervisor.progress.stat().st_size - 8192))
                    lines = file.read().splitlines()
            except FileNotFoundError:
                continue
            # The last line may be half written.
            for line in reversed(lines):
                try:
                    return Progress.model_validate_json(line)
                except ValueError:
                    continue
        return None

    # The World protocol.

    async def changes(self) -> AsyncIterator[Key]:
        while True:
            yield await self._changes.get()

    def keys(self) -> Collection[Key]:
        return (self.key,)

    async def observe(self, key: Key) -> Observed:
        if key != self.key:
            return Observed(key, None)
        supervisors = tuple(self._trainings.values())
        attempts = (*self._past_attempts, *(attempt for s in supervisors for attempt in s.attempts))
        return Observed(key, self._job, tuple(s.training for s in supervisors), attempts)

    async def act(self, key: Key, action: Action) -> Refusal | None:
        match action:
            case StartTraining(name=name) if name not in self._trainings:
                return self._start(action)
            case StopTraining(name=name, uid=uid):
                supervisor = self._trainings.get(name)
                if supervisor and supervisor.training.uid == uid and not supervisor.training.deleting:
                    self._spawn(self._stop(supervisor))
            case ChangeLimits(name=name, uid=uid, limits=limits):
                supervisor = self._trainings.get(name)
                if supervisor and supervisor.training.uid == uid:
                    supervisor.change_limits(limits)
        return None

    async def report(self, key: Key, decision: Decision) -> None:
        if decision.status is not None and decision.status != self._job.status:
            self._job = replace(self._job, status=decision.status)

    # Details.

    def _start(self, action: StartTraining) -> Refusal | None:
        uri = action.run.run.uri
        folder = self._state / f"{action.name}-{hashlib.sha256(uri.encode()).hexdigest()[:8]}"
        lock = RunLock.take(folder / "lock")
        if lock is None:
            return Refusal(
                FailureReason.OUTPUT_CONFLICT,
                f"another process on this machine is training {uri} right now",
                field="spec.output.uri",
            )
        (folder / "progress.jsonl").unlink(missing_ok=True)
        self._trainings[action.name] = Supervisor(action, folder, lock, self._on_line, self._announce)
        return None

    async def _stop(self, supervisor: Supervisor) -> None:
        await supervisor.stop()
        self._past_attempts.extend(supervisor.attempts)
        del self._trainings[supervisor.training.name]
        self._announce()

    def _spawn(self, coroutine: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _announce(self) -> None:
        self._changes.put_nowait(self.key)
