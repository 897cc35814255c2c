"""The local world: one FineTuneJob in memory, its runs as subprocesses, its state in a folder of the user's."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from finetune_api import KIND
from finetune_api.failures import FailureReason
from finetune_api.progress import Progress
from finetune_operator.worlds.local.identity import identity
from finetune_operator.worlds.local.lock import RunLock
from finetune_operator.worlds.local.process import TRAINER
from finetune_operator.worlds.local.supervisor import Supervisor
from finetune_operator.worlds.protocol import (
    Action,
    AttemptPhase,
    AttemptSeen,
    ChangeLimits,
    Decision,
    Job,
    Key,
    Observed,
    Refusal,
    Report,
    StartTraining,
    StopAttempt,
    StopTraining,
)
from finetune_operator.worlds.reports import Reports

NAMESPACE = "local"


def state_home() -> Path:
    """Where locks, logs and progress of local runs lie; results lie in `spec.output.uri`."""
    home = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(home) / "finetune-operator"


class LocalWorld:
    """One job at a time, as `finetune run` needs it. `on_line` gets each line that a trainer writes."""

    def __init__(
        self,
        name: str,
        spec: Mapping[str, Any],
        *,
        trainer: Sequence[str] = TRAINER,
        state: Path | None = None,
        on_line: Callable[[str], None] = print,
    ) -> None:
        self.key = Key(KIND, NAMESPACE, name)
        self._state = state or state_home()
        # The owner of a run must be the same when the same person runs it again, or the claim on its folder would look foreign.
        self._job = Job(uid=identity(self._state), generation=1, spec=spec)
        self._trainer = trainer
        self._on_line = on_line
        self._trainings: dict[str, Supervisor] = {}
        self._past_attempts: list[AttemptSeen] = []
        self._changes: asyncio.Queue[Key] = asyncio.Queue()
        self._reports = Reports(self._changes.put_nowait)
        self._stops: set[asyncio.Task[None]] = set()
        self._announce()

    def edit(self, **changes: Any) -> None:
        """Change the job's spec, as `kubectl edit` does in a cluster."""
        self._job = replace(self._job, spec={**self._job.spec, **changes}, generation=self._job.generation + 1)
        self._announce()

    def kill(self) -> None:
        """End everything at once."""
        for supervisor in self._trainings.values():
            supervisor.kill()

    async def close(self) -> None:
        """Tell what still runs to save and end, and wait until it has."""
        for supervisor in self._trainings.values():
            supervisor.stop()
        self._reports.forget(self.key)
        await asyncio.gather(*(supervisor.ended() for supervisor in self._trainings.values()), *self._stops)

    def progress(self) -> Progress | None:
        """The newest report of the running trainer."""
        for supervisor in self._trainings.values():
            if (progress := supervisor.newest()) is not None:
                return progress
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
        running = {attempt.name for attempt in attempts if attempt.phase is not AttemptPhase.ENDED}
        return Observed(
            key,
            self._job,
            tuple(s.seen() for s in supervisors),
            attempts,
            report=self._reports.of(key, running),
            remembers=False,
        )

    async def act(self, key: Key, action: Action) -> Refusal | None:
        match action:
            case StartTraining(name=name) if name not in self._trainings:
                return self._start(action)
            case StopTraining(name=name, uid=uid):
                supervisor = self._trainings.get(name)
                if supervisor and supervisor.training.uid == uid and not supervisor.training.deleting:
                    supervisor.stop()
                    stopping = asyncio.create_task(self._remove_ended(supervisor))
                    self._stops.add(stopping)
                    stopping.add_done_callback(self._stops.discard)
            case StopAttempt(uid=uid):
                for supervisor in self._trainings.values():
                    supervisor.stop_attempt(uid)
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
        # By the run's folder and nothing else: that is what two processes must not both write to.
        folder = self._state / f"{action.run.run.id}-{hashlib.sha256(uri.encode()).hexdigest()[:12]}"
        lock = RunLock.take(folder / "lock")
        if lock is None:
            message = f"Another `finetune run` on this machine is training {uri} right now; wait for it, or stop it"
            return Refusal(FailureReason.OUTPUT_CONFLICT, message, field="spec.output.uri")
        self._trainings[action.name] = Supervisor(
            action, self._trainer, folder, lock, self._on_line, self._on_report, self._announce
        )
        return None

    async def _remove_ended(self, supervisor: Supervisor) -> None:
        await supervisor.ended()
        self._past_attempts.extend(supervisor.attempts)
        del self._trainings[supervisor.training.name]
        self._announce()

    def _on_report(self, attempt: str, progress: Progress) -> None:
        self._reports.put(self.key, Report(attempt, progress, datetime.now(UTC)))

    def _announce(self) -> None:
        self._changes.put_nowait(self.key)
