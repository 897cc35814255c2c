"""The case before the rules: the observed facts, brought into the form that the rules ask about."""

from __future__ import annotations

import hashlib
import json
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property
from typing import Any

from pydantic import ValidationError

from finetune_api.job import FIXED_FOR_A_RUN, FineTuneJobSpec
from finetune_api.run import RUN_VERSION, Run, RunIdentity, identify
from finetune_api.status import Attempt, FineTuneJobStatus, RunStatus, Usage, WaitedStatus
from finetune_operator.decide.attempts import Around, cause_of, record, spent, within
from finetune_operator.decide.lingering import as_ended
from finetune_operator.worlds.protocol import (
    Action,
    AttemptPhase,
    AttemptSeen,
    Job,
    Limits,
    Observed,
    Queueing,
    Refusal,
    Report,
    Training,
    training_names,
)
from finetune_operator.worlds.restarts import is_counted

OBEYED_AT_ONCE = (
    "runId",
    "suspend",
    "backoffLimit",
    "activeDeadlineSeconds",
    "pendingDeadlineSeconds",
    "ttlSecondsAfterFinished",
    "acceptance",
)
FIELDS = tuple(str(field.alias) for field in FineTuneJobSpec.model_fields.values())
PLACEMENT = tuple(field for field in FIELDS if field not in (*FIXED_FOR_A_RUN, *OBEYED_AT_ONCE))


@dataclass(frozen=True)
class Case:
    """One job at one moment. What follows from the facts is computed when a rule asks for it."""

    seen: Observed
    now: datetime
    """In whole seconds, as statuses are written."""

    @property
    def job(self) -> Job:
        assert self.seen.job is not None, "job_is_gone speaks before anybody asks"
        return self.seen.job

    # -- the spec: its user's wishes, as far as this operator can read them ----------------------------------------

    @cached_property
    def parsed(self) -> FineTuneJobSpec | ValidationError:
        return _parsed(self.job)

    @property
    def is_readable(self) -> bool:
        """False for a spec that is wrong, and for one that only another version of the operator understands."""
        return isinstance(self.parsed, FineTuneJobSpec)

    @property
    def spec(self) -> FineTuneJobSpec:
        assert isinstance(self.parsed, FineTuneJobSpec), "rules that ask for more than the run speak of readable specs"
        return self.parsed

    @property
    def is_suspended(self) -> bool:
        """Obeyed whatever else cannot be read."""
        return self.spec.suspend if self.is_readable else self.job.spec.get("suspend") is True

    @property
    def is_new(self) -> bool:
        """Whether the spec has been changed since the last report."""
        return self.job.status.observed_generation != self.job.generation

    # -- the run: pinned when it first starts; what has started is authoritative -----------------------------------

    @cached_property
    def identity(self) -> RunIdentity:
        """Of the run that a readable spec asks for."""
        return identify(self.spec)

    @cached_property
    def pinned(self) -> RunStatus | None:
        """The run that has started, as long as no other is wanted.

        Training inputs are immutable under one `spec.runId`, so that alone is compared: a version of the operator that hashes or
        reads inputs in another way neither stops a run nor begins it again.
        """
        status = self.job.status
        run = status.run
        if run is None or status.start_time is None:
            return None
        if wants(self.job.spec, run):
            return run
        if isinstance(self.parsed, FineTuneJobSpec):
            return run if self.identity.id == run.id else None
        # Another one is wanted, and nobody knows which: this one goes on until it ends.
        return run if self._training_of(run.id) and not is_finished(status) else None

    @cached_property
    def run_id(self) -> str:
        """Of the run that is pinned or wanted; empty where a spec that cannot be read leaves no other trace of it."""
        if self.pinned is not None:
            return self.pinned.id
        if isinstance(self.parsed, FineTuneJobSpec):
            return self.identity.id
        unreported = self.seen.trainings if self.job.status.run is None else ()
        return next((t.run_id for t in unreported if not t.deleting), "")

    @cached_property
    def run(self) -> RunStatus:
        """The run that is pinned or wanted, with the image that it has or, until an attempt has run, would get now."""
        if self.pinned is not None and _has_run(self.before.attempts):
            return self.pinned
        run = self.pinned or self._wanted()
        first = next((a for a in self.attempts_seen if a.started is not None), None)
        if first is not None:
            found: dict[str, Any] = {"image": first.image or run.image, "image_digest": first.image_digest}
        elif isinstance(self.parsed, FineTuneJobSpec):
            default = self.parsed.image or self.seen.default_image
            found = {"image": default, "image_digest": None, "contract": RUN_VERSION}
        else:
            return run
        return run.model_copy(update=found)

    def _wanted(self) -> RunStatus:
        written = self.job.spec.get("runId") or ""
        if isinstance(self.parsed, FineTuneJobSpec):
            wanted = self.identity
            return RunStatus(
                id=wanted.id, uri=wanted.uri, fingerprint=wanted.fingerprint, written=written, contract=RUN_VERSION
            )
        # Its start could not be reported, and now its spec cannot be read. Its folder is where the spec says, if it does.
        output = self.job.spec.get("output")
        uri = output.get("uri") if isinstance(output, dict) else None
        return RunStatus(id=self.run_id, uri=f"{str(uri or '').rstrip('/')}/{self.run_id}", fingerprint="")

    @property
    def has_run(self) -> bool:
        """Whether any attempt of this run ever did."""
        return _has_run(self.attempts)

    @property
    def run_told(self) -> RunStatus | None:
        """The run as the status tells of it: with the image that its training was started with, then with the one that ran."""
        if self.has_run or self.before.run is not None:
            return self.run if self.has_run else self.before.run
        if self.training is None:
            return self.run if self.attempts else None
        # Its start was not reported, and by now another image may be the default.
        return self.run.model_copy(update={"image": self.training.image or self.run.image})

    @property
    def starts_in_vain(self) -> int:
        """How often in a row the training was started, the last time included, without an attempt that ran."""
        last = self.before.training
        if last is None or any(a.start_time is not None and a.start_time >= last.start_time for a in self.attempts):
            return 0
        return last.starts

    @cached_property
    def asked(self) -> str:
        """Digest of what its training is to be."""
        return _digest({"run": self.run_id, "placement": self.placement})

    @cached_property
    def waited(self) -> WaitedStatus | None:
        """What was counted of the time in which just this could not be made; None where that is over, or began anew: once it runs,
        waits in a queue, or is held back by somebody."""
        before, training = self.job.status.waited, self.training
        if before is None or not self.is_readable or self.spec.pending_deadline_seconds is None or self.is_suspended:
            return None
        if training is not None and (training.queue or training.queued or training.held):
            return None
        ran = any(a.start_time is not None and a.start_time >= before.time for a in self.attempts)
        return None if ran or before.asked != self.asked else before

    @property
    def start_time(self) -> datetime | None:
        """When this run first started; None before that. One that was not reported left a training or attempts behind."""
        if self.before.start_time is not None or self.training is None:
            return self.before.start_time or min((a.created for a in self.attempts_seen), default=None)
        return self.training.created

    @cached_property
    def before(self) -> FineTuneJobStatus:
        """What was last reported about this very run; empty when that was another."""
        status = self.job.status
        return status if status.run is not None and status.run.id == self.run_id else FineTuneJobStatus()

    # -- trainings and attempts ------------------------------------------------------------------------------------

    @cached_property
    def training(self) -> Training | None:
        return self._training_of(self.run_id)

    def _training_of(self, run_id: str) -> Training | None:
        """By its label or else by its name, as labels are anybody's to change."""
        names = training_names(self.seen.key.name, run_id)
        labelled = [t for t in self.seen.trainings if t.run_id == run_id]
        return next(iter([*labelled, *(t for t in self.seen.trainings if t.name in names)]), None)

    @property
    def other_trainings(self) -> list[Training]:
        return [t for t in self.seen.trainings if t != self.training and t.ending is None]

    @property
    def current(self) -> Training:
        assert self.training is not None, "training_is_missing speaks before anybody asks"
        return self.training

    @property
    def ended(self) -> datetime:
        """When the training ended, as far as the clock of `now` can confirm what another one says; without one, when that
        was first said."""
        training = self.training
        if training is None or training.ended is None:
            return self.before.completion_time or self.now
        return within(training.created, training.ended, self.now)

    @cached_property
    def attempts_now(self) -> list[AttemptSeen]:
        """Those of the present training, oldest first."""
        return [a for a in self.seen.attempts if self.training is not None and a.training == self.training.uid]

    def is_recorded(self, attempt: AttemptSeen) -> bool:
        """Whether the last report says how the attempt ended, so that its pod may go."""
        return any(a.name == attempt.name and a.end_time is not None for a in self.before.attempts or [])

    @cached_property
    def attempts_left_behind(self) -> list[AttemptSeen]:
        """Those that still end although their training is gone."""
        present = {t.uid for t in self.seen.trainings}
        return [a for a in self.seen.attempts if a.training not in present and a.phase is not AttemptPhase.ENDED]

    @cached_property
    def attempts_seen(self) -> list[AttemptSeen]:
        """Those of this run, of whatever training, oldest first."""
        now = {a.name for a in self.attempts_now}
        return [a for a in self.seen.attempts if a.name in now or (a.run_id and a.run_id == self.run_id)]

    @cached_property
    def attempts(self) -> list[Attempt]:
        """The record of this run's attempts: what was reported before, brought up to date by what is seen."""
        going_on = {t.uid for t in self.seen.trainings if not t.deleting}
        around = Around(going_on, self.run.uri, self._told)
        return record(self.before.attempts or [], self.attempts_seen, self.now, around)

    @property
    def _told(self) -> dict[str, int]:
        """What attempts have last told to be saved, by their names."""
        progress, report = self.before.progress, self.seen.report
        last = next((a.name for a in self.before.attempts or [] if progress and a.number == progress.attempt), None)
        told = {last: progress.checkpoint_step} if last and progress else {}
        if report is not None and (step := steps_in(report.progress.numbers(), "checkpoint_step")) is not None:
            told[report.attempt] = step
        return {name: step for name, step in told.items() if step is not None}

    @cached_property
    def usage(self) -> Usage | None:
        """What this run took of accelerators so far. What ended is counted once, when it is recorded: the record has an end."""
        before = self.before
        counted = {attempt.name for attempt in before.attempts or [] if attempt.end_time is not None}
        more = sum(a.gpu_seconds or 0 for a in self.attempts if a.end_time is not None and a.name not in counted)
        devices = [a.devices or 0 for a in self.attempts if a.start_time is not None][-1:]
        if before.usage is None and not more and devices in ([], [0]):
            return None
        known = before.usage or Usage(devices=0)
        said = {"devices": devices[0] if devices else known.devices, "gpu_seconds": known.gpu_seconds + more}
        return known.model_copy(update=said)

    @property
    def report(self) -> Report | None:
        """What the latest attempt that has run said of itself."""
        report = self.seen.report
        return report if report and self.attempts and self.attempts[-1].name == report.attempt else None

    @cached_property
    def run_for_trainer(self) -> Run:
        """What its trainer is told, in the version that this run began with: so old is the trainer that it has."""
        run = self.run
        return Run.of(
            self.spec,
            RunIdentity(id=run.id, uri=run.uri, fingerprint=run.fingerprint),
            owner=f"{self.seen.key.namespace}/{self.seen.key.name}/{self.job.uid}",
            contract=run.contract or 1,
            trainer_image=self.seen.default_image,
        )

    def refused(self, kind: type[Action]) -> Refusal | None:
        """The answer to an action of this kind, if it was refused in this very reconcile."""
        return next((r.refusal for r in self.seen.refused if isinstance(r.action, kind)), None)

    @cached_property
    def limits(self) -> Limits:
        """What the spec still allows, less what earlier trainings of this run used up before a suspension.

        A time to live is not among them: a training removed before its end is recorded would be started again.
        """
        present = {attempt.name for attempt in self.attempts_now}
        earlier = [attempt for attempt in self.attempts if attempt.name not in present]
        used = spent(earlier, until=self.training.created if self.training else None)
        deadline = self.spec.active_deadline_seconds
        # A limit below what has failed already would end the attempt under way; lowered, it only lets no other one follow.
        under_way = any(attempt.phase is not AttemptPhase.ENDED for attempt in self.attempts_now)
        failed = self.failures_now(used.failures) if under_way else 0
        return Limits(
            backoff_limit=max(failed, self.spec.backoff_limit - used.failures),
            active_deadline_seconds=None if deadline is None else max(1, deadline - used.seconds),
        )

    def failures_now(self, earlier: int) -> int:
        """Counted failures of the present training, where `earlier` are those before it. The record of them has an end, and so
        may pods have."""
        seen = sum(
            is_counted(a) for a in self.attempts_now if a.phase is AttemptPhase.ENDED and cause_of(a) is not None
        )
        return max(seen, spent(self.attempts, until=None).failures - earlier)

    @property
    def limits_of_the_finished(self) -> Limits:
        """Those of a training whose end is recorded, so that it may go."""
        return replace(self.limits, ttl_seconds_after_finished=self.spec.ttl_seconds_after_finished)

    @property
    def queueing(self) -> Queueing:
        """What is asked of the queueing system, by the spec or else by labels."""
        return replace(self.job.queueing, queue=self.spec.queue or self.job.queueing.queue)

    @property
    def queues_named(self) -> tuple[str, ...]:
        """Two where spec and label name different ones; none where the spec cannot be read."""
        named = (self.spec.queue, self.job.queueing.queue) if self.is_readable else ()
        return tuple(dict.fromkeys(queue for queue in named if queue))

    @cached_property
    def placement(self) -> str:
        """Digest of what only a new training can obey. Defaults are left out, so that an operator with new ones replaces nothing."""
        asked = self.queueing
        more = {"queue": asked.queue, "queuePriority": asked.priority, "topology": dict(asked.topology)}
        return _digest(self.spec.given(PLACEMENT) | {name: value for name, value in more.items() if value})

    @property
    def placement_without_its_label(self) -> str | None:
        """As earlier versions wrote it of a job with no more than the label of a queue, which they left out."""
        asked = self.job.queueing
        if asked != Queueing(queue=asked.queue) or not asked.queue or self.spec.queue:
            return None
        return _digest(self.spec.given(PLACEMENT))


def _digest(inputs: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(inputs, sort_keys=True, separators=(",", ":")).encode()).hexdigest()[:16]


MOST_STEPS = 10**12
"""More are no steps: a number in a status has an end."""


def steps_in(numbers: Mapping[str, float], name: str) -> int | None:
    """A number of steps among what a trainer tells."""
    value = numbers.get(name)
    return int(value) if value is not None and 0 <= value <= MOST_STEPS else None


_read: OrderedDict[tuple[str, int], tuple[Mapping[str, Any], FineTuneJobSpec | ValidationError]] = OrderedDict()
"""By UID and generation of a job its spec, and what that says: to read one that stays the same is a third of a decision."""
MOST_READ = 1024


def _parsed(job: Job) -> FineTuneJobSpec | ValidationError:
    spec, said = _read.pop((job.uid, job.generation), (None, None))
    if said is None or (spec is not job.spec and spec != job.spec):
        try:
            said = FineTuneJobSpec.model_validate(job.spec)
        except ValidationError as error:
            said = error
    _read[job.uid, job.generation] = job.spec, said
    if len(_read) > MOST_READ:
        _read.popitem(last=False)
    return said


def is_finished(status: FineTuneJobStatus) -> bool:
    return any(c.type == "Finished" and c.status == "True" for c in status.conditions or [])


def written_id(run: RunStatus) -> str:
    """What `spec.runId` read as when the run was pinned, empty when it was left out.

    Version 0.1.0 did not note it down, and called runs without it by the first ten digits of their fingerprints.
    """
    if run.written is not None:
        return run.written
    return "" if run.id == run.fingerprint[:10] else run.id


def wants(spec: Mapping[str, Any], run: RunStatus) -> bool:
    """Whether what is written in `spec`, readable or not, asks for this run."""
    return (spec.get("runId") or "") in (written_id(run), run.id)


def _has_run(attempts: Sequence[Attempt] | None) -> bool:
    return any(attempt.start_time is not None for attempt in attempts or ())


def gather(seen: Observed, now: datetime) -> Case:
    seen = replace(seen, attempts=tuple(as_ended(attempt) for attempt in seen.attempts))
    return Case(seen=seen, now=now.replace(microsecond=0))
