"""A world in memory, with clocks that only tests move: trainings and attempts do what the test says.

It keeps the promises of the protocol as strictly as the real ones, so that what holds here holds there; the conformance suite of
the tests runs against all of them.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from finetune_api import KIND
from finetune_api.failures import FailureReason
from finetune_api.placement import accelerators
from finetune_api.progress import Progress
from finetune_api.status import FineTuneJobStatus
from finetune_operator.worlds.protocol import (
    Action,
    Announcement,
    AttemptPhase,
    AttemptSeen,
    Backoff,
    ChangeLimits,
    Decision,
    Ending,
    ForgetAttempt,
    Job,
    Key,
    Observed,
    Refusal,
    Report,
    StartTraining,
    StopAttempt,
    StopTraining,
    Training,
)
from finetune_operator.worlds.restarts import ending_after


@dataclass
class FakeWorld:
    """Jobs by key, their trainings by name, and their attempts in the order they began."""

    now: datetime = datetime(2026, 1, 1, tzinfo=UTC)
    nodes_ahead: timedelta = timedelta()
    """How far the clocks of the nodes, which say when attempts start and end, are ahead of `now`."""
    controller_ahead: timedelta = timedelta()
    """The same of whoever says when a training has ended."""
    controller_away: bool = False
    """Whether nobody starts attempts again or says how trainings end, until `controller_returns`."""
    queue: str = ""
    """Of trainings that start while it is set."""
    backoff: Backoff | None = None
    """Of trainings that start while it is set; without one the next attempt follows at once."""
    default_image: str | None = "trainer:test"
    allowed_pod_keys: tuple[str, ...] | None = ()
    jobs: dict[Key, Job] = field(default_factory=dict)
    trainings: dict[tuple[str, str], tuple[Key | None, Training]] = field(default_factory=dict)
    """By namespace and name, with the job that owns it; None for somebody else's."""
    attempts: dict[Key, list[AttemptSeen]] = field(default_factory=dict)
    heard: dict[Key, Report] = field(default_factory=dict)
    """What trainers said last; here nobody writes too often."""
    refuses: dict[type[Action], Refusal] = field(default_factory=dict)
    """The answer to every action of that kind, such as that of a policy."""
    policy: Callable[[Training], Training] = lambda training: training
    """What the place makes of every training before it begins, as a cluster's policies do with Jobs."""
    acted: list[Action] = field(default_factory=list)
    reports: list[tuple[Key, FineTuneJobStatus]] = field(default_factory=list)
    """Writes only: a report that changes nothing leaves no trace."""
    events: list[Announcement] = field(default_factory=list)
    _changes: asyncio.Queue[Key] = field(default_factory=asyncio.Queue)
    _ends_seen: dict[str, datetime] = field(default_factory=dict)
    """By the UID of a training, or the name of an attempt whose trainer has ended."""
    _unseen: dict[str, datetime] = field(default_factory=dict)
    """Since when a training has had an attempt that nobody sees, by its UID."""
    _due: dict[str, tuple[datetime, Key]] = field(default_factory=dict)
    """When the next attempt of a training begins, by its UID."""
    _devices: dict[str, int] = field(default_factory=dict)
    """Of each attempt of a training, by its UID."""
    _count: int = 0

    # -- the protocol ----------------------------------------------------------------------------------------------

    async def changes(self) -> AsyncIterator[Key]:
        while True:
            yield await self._changes.get()

    def keys(self) -> Collection[Key]:
        return list(self.jobs)

    async def observe(self, key: Key) -> Observed:
        return Observed(
            key=key,
            job=self.jobs.get(key),
            trainings=tuple(self._seen(key, training) for owner, training in self.trainings.values() if owner == key),
            attempts=tuple(self._since(key, attempt) for attempt in self.attempts.get(key, ())),
            report=self.heard.get(key),
            default_image=self.default_image,
            allowed_pod_keys=self.allowed_pod_keys,
        )

    async def act(self, key: Key, action: Action) -> Refusal | None:
        place = (key.namespace, action.name)
        if refusal := self.refuses.get(type(action)):
            return refusal
        match action:
            case StartTraining():
                refusal = self._start(key, place, action)
                if refusal is not None:
                    return refusal
            case StopTraining():
                self._stop(key, place, action)
            case StopAttempt():
                self._change_attempts(key, lambda a: replace(a, deleting=True) if a.uid == action.uid else a)
            case ForgetAttempt():
                self._forget(key, action.uid)
            case ChangeLimits():
                owner, training = self.trainings[place]
                self.trainings[place] = owner, replace(training, limits=action.limits, asked=action.limits)
        self.acted.append(action)
        self._changes.put_nowait(key)
        return None

    async def report(self, key: Key, decision: Decision) -> None:
        job = self.jobs.get(key)
        if job is None or decision.status is None or decision.status == job.status:
            return
        if not may_follow(job.status, decision.status):
            raise AssertionError(f"a cluster would not take back that {key} has finished: {decision.status}")
        self.jobs[key] = replace(job, status=decision.status)
        self.reports.append((key, decision.status))
        if decision.announcement is not None:
            self.events.append(decision.announcement)
        self._changes.put_nowait(key)

    def _seen(self, key: Key, training: Training) -> Training:
        """With how long its attempt is nowhere to be seen, or how long it has ended."""
        if training.active and not any(a.training == training.uid for a in self.attempts.get(key, ())):
            first = self._unseen.setdefault(training.uid, self.now)
            training = replace(training, unseen_for=(self.now - first).total_seconds())
        else:
            self._unseen.pop(training.uid, None)
        if training.ending is None:
            return training
        first = self._ends_seen.setdefault(training.uid, self.now)
        return replace(training, ended_for=(self.now - first).total_seconds())

    def _since(self, key: Key, attempt: AttemptSeen) -> AttemptSeen:
        """With how long it has ended in a pod that goes on, or has said nothing."""
        if attempt.phase is not AttemptPhase.RUNNING:
            return attempt
        if attempt.exit_code is None:
            report = self.heard.get(key)
            heard = report.at if report is not None and report.attempt == attempt.name else attempt.started or self.now
            return replace(attempt, silent_for=(self.now - heard).total_seconds())
        first = self._ends_seen.setdefault(attempt.name, self.now)
        return replace(attempt, ended_for=(self.now - first).total_seconds())

    def _start(self, key: Key, place: tuple[str, str], action: StartTraining) -> Refusal | None:
        if place in self.trainings:
            if self.trainings[place][0] == key:
                return None
            return Refusal(FailureReason.NAME_CONFLICT, f"A Job named {action.name} is there already and not ours")
        self._count += 1
        training = Training(
            name=action.name,
            run_id=action.run.run.id,
            uid=f"training-{self._count}",
            created=self.now,
            limits=action.limits,
            asked=action.limits,
            image=action.image,
            placement=action.placement,
            started=self.now,
            queue=action.queueing.queue or self.queue,
            backoff=self.backoff,
        )
        training = self.policy(training)
        self.trainings[place] = key, training
        self._devices[training.uid] = accelerators(action.run.spec.resources.limits or {})
        self._begin_attempt(key, training, action.image)
        return None

    def _stop(self, key: Key, place: tuple[str, str], action: StopTraining) -> None:
        if place not in self.trainings or self.trainings[place][1].uid != action.uid:
            return
        owner, training = self.trainings[place]
        mine = [a for a in self.attempts.get(key, []) if a.training == action.uid]
        if any(a.phase is AttemptPhase.RUNNING for a in mine):
            self.trainings[place] = owner, replace(training, deleting=True)
            self._change_attempts(key, lambda a: replace(a, deleting=True) if a in mine else a)
        else:
            self.remove_training(key)

    def _forget(self, key: Key, uid: str) -> None:
        """As in a cluster, where such a pod stays as long as its Job is there, and a Job that is deleted goes with its last pod."""
        gone = next((a for a in self.attempts.get(key, []) if a.uid == uid), None)
        place = next((p for p, (_, t) in self.trainings.items() if gone and t.uid == gone.training), None)
        if gone is None or (place is not None and not self.trainings[place][1].deleting):
            return
        self.attempts[key].remove(gone)
        others = [a for a in self.attempts[key] if a.training == gone.training and a.phase is AttemptPhase.RUNNING]
        if place is not None and not others:
            self.remove_training(key)

    # -- what tests do to it ---------------------------------------------------------------------------------------

    def pass_time(self, seconds: float) -> None:
        before, self.now = self.now, self.now + timedelta(seconds=seconds)
        for uid, (due, key) in [*self._due.items()]:
            if due <= self.now:
                del self._due[uid]
                training = next((t for _, t in self.trainings.values() if t.uid == uid), None)
                if training is not None and training.ending is None and not training.deleting:
                    self._begin_attempt(key, training, self.attempts[key][-1].image, max(before, due))

    def apply(self, name: str, spec: Mapping[str, Any], namespace: str = "default") -> Key:
        """What `kubectl apply` does: a new job, or another spec for the one of that name."""
        key = Key(KIND, namespace, name)
        old = self.jobs.get(key)
        if old is None:
            self._count += 1
            self.jobs[key] = Job(uid=f"job-{self._count}", generation=1, spec=dict(spec))
        elif old.spec != spec:
            self.jobs[key] = replace(old, generation=old.generation + 1, spec=dict(spec))
        self._changes.put_nowait(key)
        return key

    def delete(self, key: Key) -> None:
        """Deletes the job, and as a cluster does, what it owns."""
        self.jobs.pop(key, None)
        self.attempts.pop(key, None)
        self.trainings = {place: (owner, t) for place, (owner, t) in self.trainings.items() if owner != key}
        self._changes.put_nowait(key)

    def run_attempt(self, key: Key, node: str = "node-1") -> None:
        """The waiting attempt starts to run."""
        self.change_latest(
            key,
            phase=AttemptPhase.RUNNING,
            started=self.now + self.nodes_ahead,
            node=node,
            waiting=None,
            on_its_way=None,
        )

    def hold_attempt(self, key: Key, reason: FailureReason, message: str) -> None:
        """The waiting attempt cannot start."""
        self.change_latest(key, waiting=Refusal(reason, message))

    def end_attempt(self, key: Key, exit_code: int | None = 0, message: str = "", **facts: Any) -> None:
        """The latest attempt ends; the training goes on as the Job controller would have it."""
        ended = self.now + self.nodes_ahead
        self.change_latest(
            key,
            phase=AttemptPhase.ENDED,
            ended=ended,
            finished=ended,
            exit_code=exit_code,
            termination_message=message,
            **facts,
        )
        if not self.controller_away:
            self._controller_follows(key, self.attempts[key][-1].training)

    def controller_returns(self) -> None:
        self.controller_away = False
        for key, attempts in self.attempts.items():
            latest = {attempt.training: attempt for attempt in attempts}
            for uid, attempt in latest.items():
                training = next((t for _, t in self.trainings.values() if t.uid == uid), None)
                if attempt.phase is AttemptPhase.ENDED and training is not None and training.ending is None:
                    self._controller_follows(key, uid)

    def end_trainer(self, key: Key, exit_code: int, message: str = "", *held_by: str) -> None:
        """The trainer of the latest attempt ends, and these other containers keep its pod."""
        ended = self.now + self.nodes_ahead
        self.change_latest(key, ended=ended, exit_code=exit_code, termination_message=message, held_by=held_by)

    def say(self, key: Key, progress: Progress) -> None:
        """The trainer of the latest attempt reports."""
        self.heard[key] = Report(self.attempts[key][-1].name, progress, self.now)
        self._changes.put_nowait(key)

    def change_latest(self, key: Key, **facts: Any) -> None:
        """The latest attempt shows these facts."""
        self.attempts[key][-1] = replace(self.attempts[key][-1], **facts)
        self._changes.put_nowait(key)

    def end_training(self, key: Key, ending: Ending, message: str = "") -> None:
        self._end(self._training_of(key)[0], ending, message)

    def change_training(self, key: Key, **facts: Any) -> None:
        self._change(self._training_of(key)[0], **facts)

    def remove_training(self, key: Key) -> None:
        """The training is gone, by whoever's hand, and its attempts with it; of several, one that was told to stop."""
        mine = [(place, training) for place, (owner, training) in self.trainings.items() if owner == key]
        place, training = next((found for found in mine if found[1].deleting), mine[0])
        del self.trainings[place]
        self.attempts[key] = [a for a in self.attempts.get(key, []) if a.training != training.uid]
        self._changes.put_nowait(key)

    def orphan_attempts(self, key: Key) -> None:
        """The training is gone, and its attempts, told to stop, still end: deleted in the background, in a cluster's words."""
        place, training = self._training_of(key)
        del self.trainings[place]
        mine = [a for a in self.attempts.get(key, []) if a.training == training.uid]
        self._change_attempts(key, lambda a: replace(a, deleting=True) if a in mine else a)
        self._changes.put_nowait(key)

    def _controller_follows(self, key: Key, uid: str) -> None:
        """After the end of an attempt: with the end of its training, or with another attempt."""
        place = next((p for p, (_, t) in self.trainings.items() if t.uid == uid), None)
        if place is None:
            return
        _, training = self.trainings[place]
        ending = ending_after([a for a in self.attempts[key] if a.training == uid], training.limits)
        if ending is not None:
            self._end(place, ending)
        elif training.backoff is not None:
            ends = [a.ended for a in self.attempts[key] if a.training == uid and a.ended]
            self._due[uid] = max(ends) + training.backoff.delay(len(ends)), key
        elif not training.deleting:  # a deleted one stays until `remove_training`, as it does in a cluster for a moment
            self._begin_attempt(key, training, [a for a in self.attempts[key] if a.training == uid][-1].image)

    def _end(self, place: tuple[str, str], ending: Ending, message: str = "") -> None:
        self._change(place, ending=ending, ended=self.now + self.controller_ahead, message=message)

    def _change(self, place: tuple[str, str], **facts: Any) -> None:
        owner, training = self.trainings[place]
        self.trainings[place] = owner, replace(training, **facts)
        if owner is not None:
            self._changes.put_nowait(owner)

    def _training_of(self, key: Key) -> tuple[tuple[str, str], Training]:
        return next((place, t) for place, (owner, t) in self.trainings.items() if owner == key)

    def _begin_attempt(self, key: Key, training: Training, image: str | None, created: datetime | None = None) -> None:
        self._count += 1
        attempt = AttemptSeen(
            name=f"{training.name}-{self._count}",
            run_id=training.run_id,
            training=training.uid,
            phase=AttemptPhase.WAITING,
            created=created or self.now,
            uid=f"attempt-{self._count}",
            devices=self._devices.get(training.uid, 0),
            image=image,
        )
        self.attempts.setdefault(key, []).append(attempt)

    def _change_attempts(self, key: Key, change: Any) -> None:
        self.attempts[key] = [change(attempt) for attempt in self.attempts.get(key, [])]


def may_follow(before: FineTuneJobStatus, after: FineTuneJobStatus) -> bool:
    """Whether an API server lets `after` be written over `before`: by the rule of the status in `finetune_api.crd`."""
    failure = before.failure
    refused = failure is not None and failure.attempt is None and failure.reason in ("InvalidSpec", "OutputConflict")
    if not _finished(before) or before.run is None or before.start_time is None or refused:
        return True
    if _finished(after) and before.progress == after.progress:
        return True
    if after.run is not None:
        return after.run.id != before.run.id
    return after.start_time is None and after.conditions is not None


def _finished(status: FineTuneJobStatus) -> bool:
    return any(c.type == "Finished" and c.status == "True" for c in status.conditions or [])
