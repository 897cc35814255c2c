"""What every world offers: facts about one job, actions in domain words, and a place for its status.

A world knows FineTuneJobs and their trainings. A training is one run in the making: a batch Job in a cluster, a supervised
subprocess on a laptop. It starts attempts (pods, processes) one after another until one succeeds or its limits are reached, and
it does so by itself: the deciding side never restarts an attempt, so training survives while the operator is down.

    seen = await world.observe(key)         # facts
    decision = decide(seen, now)            # pure
    await world.act(key, action)            # None, or a Refusal: one more fact for another decision
    await world.report(key, decision)       # one status write, and only when it changed
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Collection, Hashable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Literal, Protocol

from finetune_api.failures import FailureReason
from finetune_api.progress import Progress
from finetune_api.run import Run
from finetune_api.status import FineTuneJobStatus


@dataclass(frozen=True, order=True)
class Key:
    """Names one object of the work queue."""

    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


# ---------------------------------------------------------------------------------------------------------------- facts


@dataclass(frozen=True)
class Queueing:
    """What a training asks of the system that queues it, such as Kueue."""

    queue: str = ""
    """The queue's name; empty for none."""
    priority: str = ""
    """The class of its priority in that queue; empty for the queue's own."""
    topology: tuple[tuple[str, str], ...] = ()
    """How near to each other its pods have to be, by the queueing system's own annotations."""


@dataclass(frozen=True)
class Job:
    """A FineTuneJob as its user left it, and what was last reported about it."""

    uid: str
    generation: int
    spec: Mapping[str, Any]
    """As written: validation is a rule like any other."""
    status: FineTuneJobStatus = field(default_factory=FineTuneJobStatus)
    """The last report. A world shows its own writes: it never answers with a status older than its last report."""
    deleting: bool = False
    queueing: Queueing = Queueing()
    """As its labels and annotations have it; `spec.queue` says the same in another place."""


@dataclass(frozen=True)
class Limits:
    """What ends a training that does not end by itself."""

    backoff_limit: int
    """Failed attempts that are followed by another; preemptions and disruptions do not count."""
    active_deadline_seconds: int | None = None
    """Seconds from its start after which a training fails."""
    ttl_seconds_after_finished: int | None = None
    """Seconds after its end when a training and its attempts are deleted; asked for once that end is recorded."""


@dataclass(frozen=True)
class Backoff:
    """How much time a world lets pass between two attempts of a training: twice as much after each end, up to a longest time."""

    first: timedelta
    longest: timedelta

    def delay(self, ended: int) -> timedelta:
        """After so many ended attempts, whatever ended them."""
        return min(self.first * 2 ** min(ended - 1, 32), self.longest) if ended else timedelta()


class Ending(StrEnum):
    """How a training ended."""

    COMPLETE = "Complete"
    """An attempt exited with 0."""
    NEVER_RETRIED = "NeverRetried"
    """An attempt exited with a code of `NEVER_RETRIED`."""
    BACKOFF_LIMIT_EXCEEDED = "BackoffLimitExceeded"
    """One more counted failure than `Limits.backoff_limit`."""
    DEADLINE_EXCEEDED = "DeadlineExceeded"
    """Longer than `Limits.active_deadline_seconds`."""
    OTHER = "Other"
    """Something the world did not expect; `Training.message` says what."""


@dataclass(frozen=True)
class Training:
    """One run in the making, owned by the job: a batch Job, or a supervised subprocess."""

    name: str
    """`<job>-<run id>`, see `training_name`; in version 0.1.0 with the dashes of a run id as they are."""
    run_id: str
    uid: str
    created: datetime
    limits: Limits
    """Those in force. A cluster's policy may have made them of others, and has the last word."""
    asked: Limits | None = None
    """Those last asked for; None where nobody remembers, since a cluster's policy may take such notes away."""
    image: str | None = None
    """What its attempts are to run; None in a world without images."""
    placement: str | None = None
    """The `StartTraining.placement` that it was started with; None where nobody remembers."""
    outdated: bool = False
    """Whether it was made when its world gave all attempts other things than now, such as another proxy."""
    unwatched: bool = False
    """Whether its changes are announced to nobody, so that it has to be looked at."""
    disowned: bool = False
    """Whether it would outlive its job, as somebody has taken away what ties it to that."""
    active: int = 0
    """How many attempts the world says are under way, seen or not."""
    unseen_for: float = 0.0
    """For how many seconds it has said so while none of them is seen, since this operator first saw that."""
    held: str = ""
    """What keeps it from having an attempt that neither this operator nor a queue has asked for, and what ends that."""
    queued: bool = False
    """Held back by a queue, such as Kueue's, until that admits it."""
    queue: str = ""
    """The queue that admits it; empty for none."""
    queue_says: str = ""
    """Why it is not admitted, in the words of its queueing system; empty where that says nothing."""
    backoff: Backoff | None = None
    """None where the next attempt never waits for long."""
    started: datetime | None = None
    """From when `Limits.active_deadline_seconds` counts; None while a queue holds it back."""
    verdict: Ending | None = None
    """How it will end once its attempts have, where the world has made up its mind; None while it may still go either way."""
    deleting: bool = False
    """Being stopped: its attempts save and end, then it is gone."""
    ending: Ending | None = None
    """None while it goes on."""
    ended: datetime | None = None
    """By whichever clock wrote it down."""
    ended_for: float = 0.0
    """Seconds since this world first saw the ending, by a clock that goes evenly: what patience is measured with."""
    message: str = ""
    """What the world said about the ending."""
    refusal: Refusal | None = None
    """Why no attempt can be created, such as a full quota, or a queue that is not there; None when one could be."""


PREEMPTED = "Preempted"
"""Why an attempt ended that had to make room."""


class AttemptPhase(StrEnum):
    WAITING = "Waiting"
    """Not running yet."""
    RUNNING = "Running"
    ENDED = "Ended"


@dataclass(frozen=True)
class AttemptSeen:
    """One try at a training: a pod, or a process."""

    name: str
    run_id: str
    """Empty for an attempt of an earlier job of the same name, which still ends."""
    training: str
    """The `Training.uid` it belongs to, which may be gone already."""
    phase: AttemptPhase
    created: datetime
    uid: str = ""
    """Of this very attempt, as another one may get its name."""
    started: datetime | None = None
    ended: datetime | None = None
    finished: datetime | None = None
    """When its pod was through, from which the world counts the time until the next attempt; None where that is `created`."""
    node: str | None = None
    devices: int = 0
    """GPUs and other accelerators, or slices of such, that it has."""
    deleting: bool = False
    """Told to stop."""
    gone_by: datetime | None = None
    """When one that was told to stop has to be gone; None where nothing says."""
    needs: Hashable | None = None
    """What it cannot start without and does not ask for by itself, in words of its world."""
    waiting: Refusal | None = None
    """What it waits for, when that is a problem: Unschedulable, ImagePullFailed, SecretMissing, …"""
    on_its_way: OnItsWay | None = None
    """What it waits for, when that comes by itself."""
    initializing: str = ""
    """What runs in its pod before the trainer, or who has yet to say something, where it waits for nothing else."""
    out_of_touch: datetime | None = None
    """Since when its node has not been heard of, so that nobody knows whether it still runs; None where it is in touch."""
    silent_for: float | None = None
    """Seconds since this world last heard of the trainer of a running attempt, or since it began to listen, by a clock that goes evenly;
    None where trainers are not heard."""
    untold: bool = False
    """What it waits for is asked of the world, which told it to whoever decided before, and has yet to tell it here."""
    held_by: tuple[str, ...] = ()
    """Other containers that keep the pod of a trainer that has ended. It is `RUNNING` then, and yet tells how the trainer ended."""
    ended_for: float | None = None
    """Seconds since this world first saw that the trainer has ended in a pod that goes on, by a clock that goes evenly; None when
    it has not, or the pod has ended with it."""
    spoiled: bool = False
    """The trainer exited with 0, and yet its pod failed, because of another container or of its node."""
    exit_code: int | None = None
    """None when it ended without one, such as a pod that its node rejected or that went with its node."""
    termination_message: str = ""
    """The trainer's Result as JSON, or the end of its log, or nothing."""
    out_of_memory: bool = False
    """Killed by the kernel because its memory limit was reached."""
    disruption: str | None = None
    """Why the world took it away: `NodeLost`, `Evicted`, `Preempted`, …; None when it did not. Such an end does not count."""
    image: str | None = None
    """The image of its trainer, as asked for; None in a world without images."""
    image_digest: str | None = None
    """What that image was when it was pulled, where its node says so."""
    ended_by: Cause | None = None
    """Why it ended, where the world itself says so, such as a node that evicts for a full disk or would not run it at all. It comes
    before the trainer's own words, and long before any guess. Whether the end counts is another question."""


class Awaited(StrEnum):
    """What an attempt waits for that comes by itself, as the status says it. None of these is a problem."""

    NODE = "ScalingUp"
    IMAGE = "PullingImage"


@dataclass(frozen=True)
class OnItsWay:
    """What an attempt waits for without anybody having to do anything."""

    what: Awaited
    message: str
    since: datetime


@dataclass(frozen=True)
class Cause:
    """Why an attempt ended without success."""

    reason: str
    message: str
    remedy: str = ""
    field: str | None = None


@dataclass(frozen=True)
class Refusal:
    """What stands in the way, typed, in the words of whoever refused."""

    reason: FailureReason
    message: str
    field: str | None = None
    """The part of the manifest to look at."""
    remedy: str = ""
    """What to do, where that is not what `reason` usually calls for."""
    passing: bool = False
    """True when it goes away by itself, such as an earlier object of the same name that is still being deleted."""


@dataclass(frozen=True)
class Refused:
    """The world's answer to an action of this very reconcile."""

    action: Action
    refusal: Refusal


@dataclass(frozen=True)
class Report:
    """What the trainer of an attempt has said of itself."""

    attempt: str
    """Its `AttemptSeen.name`."""
    progress: Progress
    at: datetime
    """When it was heard, by the clock of `now`; its own may be any."""


@dataclass(frozen=True)
class Observed:
    """Everything a decision may depend on, gathered before it is made."""

    key: Key
    job: Job | None
    """None when it is gone."""
    trainings: tuple[Training, ...] = ()
    """Owned by this job (by uid), of any run."""
    attempts: tuple[AttemptSeen, ...] = ()
    """Of any of its trainings, also of those that are gone, oldest first."""
    report: Report | None = None
    """The newest that may be told, not more often than a world can write; of an attempt that has ended, its last. None where no
    trainer has said anything."""
    refused: tuple[Refused, ...] = ()
    """What was tried in this very reconcile, in vain."""
    default_image: str | None = None
    """The trainer image for jobs that name none; None in a world without images."""
    remembers: bool = True
    """False in a world that forgets its jobs: there the same one given again runs again, whatever became of it."""
    allowed_pod_keys: tuple[str, ...] | None = None
    """Labels and annotations of other systems, or their domains, that a pod may carry; None in a world without pods."""


# -------------------------------------------------------------------------------------------------------------- actions


@dataclass(frozen=True)
class StartTraining:
    """Start training this run. When it exists already and is ours, that is what was asked for."""

    name: str
    run: Run
    image: str | None
    limits: Limits
    placement: str
    """Digest of what only a new training can obey (resources, pod, storage, queue, …); kept with the training."""
    queueing: Queueing = Queueing()


@dataclass(frozen=True)
class StopTraining:
    """Tell the attempts to save and end, then remove the training. Over when `observe` no longer shows it; idempotent."""

    name: str
    uid: str


@dataclass(frozen=True)
class StopAttempt:
    """Tell this very attempt to save and end, and end it if it does not; its training goes on with another one. Idempotent."""

    name: str
    uid: str


@dataclass(frozen=True)
class ForgetAttempt:
    """Wait no more for this very attempt, whose node will not say how it ended: it is gone as far as the world is concerned. Idempotent."""

    name: str
    uid: str


@dataclass(frozen=True)
class ChangeLimits:
    """Give a training new limits."""

    name: str
    uid: str
    limits: Limits


Action = StartTraining | StopTraining | StopAttempt | ForgetAttempt | ChangeLimits


# ------------------------------------------------------------------------------------------------------------- decision


@dataclass(frozen=True)
class Announcement:
    """What is told besides the status, once, to whoever looks back: an event."""

    type: Literal["Normal", "Warning"]
    reason: str
    message: str


@dataclass(frozen=True)
class Decision:
    """What to do and what to say."""

    actions: tuple[Action, ...] = ()
    status: FineTuneJobStatus | None = None
    """The whole status as it should read; None leaves it alone."""
    announcement: Announcement | None = None
    """What is told once that status is written."""
    recheck_after: float | None = None
    """Seconds until the next look even if nothing changes; None: only when something changes."""
    backs_off: bool = False
    """Look again soon, and each time in a row that it is still so, later."""
    settled: bool = field(default=False, compare=False)
    """Nothing but a change can make this job ask for anything again."""
    rule: str = field(default="", compare=False)
    """The rule that spoke, for logs."""


# ---------------------------------------------------------------------------------------------------------------- world


class World(Protocol):
    """A place where jobs are kept and trainings run."""

    def changes(self) -> AsyncIterator[Key]:
        """Keys of jobs about which something may have changed, without end; the same key may come many times."""
        ...

    def keys(self) -> Collection[Key]:
        """All jobs known now."""
        ...

    async def observe(self, key: Key) -> Observed:
        """The facts about one job, including the effects of this world's own earlier actions and reports."""
        ...

    async def act(self, key: Key, action: Action) -> Refusal | None:
        """Do it. Whatever the world answers instead of doing it is a refusal, and so is no answer; an exception is a defect."""
        ...

    async def report(self, key: Key, decision: Decision) -> None:
        """Write `decision.status` if it differs from the last one, and then tell of `decision.announcement`."""
        ...


LONGEST_NAME = 63
"""Of a Job, whose name is a label of its pods."""


def training_name(job: str, run_id: str) -> str:
    """The name of a run's training. One name for one run: starting twice can never make twins.

    And one run for one name. The dashes of the run id are doubled, or `a` with run `b-c` and `a-b` with run `c` would share one;
    so the last single dash is where the job's name ends. Where that is too long, the run id gives way to 21 hexadecimal digits
    of the pair's SHA-256, one more than a run id may have.
    """
    name = f"{job}-{run_id.replace('-', '--')}"
    if len(name) <= LONGEST_NAME:
        return name
    return f"{job}-{hashlib.sha256(f'{job}/{run_id}'.encode()).hexdigest()[:21]}"


def training_names(job: str, run_id: str) -> tuple[str, ...]:
    """What a run's training may be called: as now, or as by version 0.1.0, which gave two runs one name."""
    return training_name(job, run_id), f"{job}-{run_id}"
