"""The case before the rules: the observed facts, brought into the form that the rules ask about."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property

from pydantic import ValidationError

from finetune_api.job import FIXED_FOR_A_RUN, FineTuneJobSpec
from finetune_api.run import RUN_VERSION, identify
from finetune_api.status import Attempt, FineTuneJobStatus, RunStatus
from finetune_operator.decide.attempts import record, spent, within
from finetune_operator.decide.lingering import as_ended
from finetune_operator.worlds.protocol import AttemptPhase, AttemptSeen, Job, Limits, Observed, Training

OBEYED_AT_ONCE = ("run_id", "suspend", "backoff_limit", "active_deadline_seconds", "ttl_seconds_after_finished")
PLACEMENT = tuple(name for name in FineTuneJobSpec.model_fields if name not in (*FIXED_FOR_A_RUN, *OBEYED_AT_ONCE))


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

    @cached_property
    def parsed(self) -> FineTuneJobSpec | ValidationError:
        try:
            return FineTuneJobSpec.model_validate(self.job.spec)
        except ValidationError as error:
            return error

    @property
    def spec(self) -> FineTuneJobSpec:
        assert isinstance(self.parsed, FineTuneJobSpec), "spec_is_invalid speaks before anybody asks"
        return self.parsed

    # -- the run: pinned when it first starts ----------------------------------------------------------------------

    @cached_property
    def run(self) -> RunStatus:
        """The run that the spec asks for, as it was pinned if it ever started."""
        wanted = identify(self.spec)
        pinned = self.job.status.run
        if pinned is not None and pinned.id == wanted.id:
            return pinned
        return RunStatus(
            id=wanted.id,
            uri=wanted.uri,
            fingerprint=wanted.fingerprint,
            image=self.spec.image or self.seen.default_image,
            contract=RUN_VERSION,
        )

    @cached_property
    def before(self) -> FineTuneJobStatus:
        """What was last reported about this very run; empty when that was another."""
        status = self.job.status
        return status if status.run is not None and status.run.id == self.run.id else FineTuneJobStatus()

    # -- trainings and attempts ------------------------------------------------------------------------------------

    @property
    def training(self) -> Training | None:
        return next((t for t in self.seen.trainings if t.run_id == self.run.id), None)

    @property
    def other_trainings(self) -> list[Training]:
        return [t for t in self.seen.trainings if t.run_id != self.run.id and t.ending is None]

    @property
    def current(self) -> Training:
        assert self.training is not None, "training_is_missing speaks before anybody asks"
        return self.training

    @property
    def ended(self) -> datetime:
        """When the training ended, as far as the clock of `now` can confirm what another one says; now, if there is none."""
        training = self.training
        if training is None or training.ended is None:
            return self.now
        return within(training.created, training.ended, self.now)

    @property
    def attempts_now(self) -> list[AttemptSeen]:
        """Those of the present training, oldest first."""
        return [a for a in self.seen.attempts if self.training is not None and a.training == self.training.uid]

    def is_recorded(self, attempt: AttemptSeen) -> bool:
        """Whether the last report says how the attempt ended, so that its pod may go."""
        return any(a.name == attempt.name and a.end_time is not None for a in self.before.attempts or [])

    @property
    def attempts_left_behind(self) -> list[AttemptSeen]:
        """Those that still end although their training is gone."""
        present = {t.uid for t in self.seen.trainings}
        return [a for a in self.seen.attempts if a.training not in present and a.phase is not AttemptPhase.ENDED]

    @cached_property
    def attempts(self) -> list[Attempt]:
        """The record of this run's attempts: what was reported before, brought up to date by what is seen."""
        mine = [a for a in self.seen.attempts if a.run_id == self.run.id]
        going_on = {t.uid for t in self.seen.trainings if not t.deleting}
        return record(self.before.attempts or [], mine, self.now, going_on)

    @cached_property
    def limits(self) -> Limits:
        """What the spec still allows, less what earlier trainings of this run used up before a suspension.

        A time to live is not among them: a training removed before its end is recorded would be started again.
        """
        present = {attempt.name for attempt in self.attempts_now}
        earlier = [attempt for attempt in self.attempts if attempt.name not in present]
        used = spent(earlier, until=self.training.created if self.training else None)
        deadline = self.spec.active_deadline_seconds
        return Limits(
            backoff_limit=max(0, self.spec.backoff_limit - used.failures),
            active_deadline_seconds=None if deadline is None else max(1, deadline - used.seconds),
        )

    @property
    def limits_of_the_finished(self) -> Limits:
        """Those of a training whose end is recorded, so that it may go."""
        return replace(self.limits, ttl_seconds_after_finished=self.spec.ttl_seconds_after_finished)

    @cached_property
    def placement(self) -> str:
        """Digest of the parts of the spec that only a new training can obey. Defaults are left out, so that an operator with
        new ones replaces nothing."""
        inputs = self.spec.model_dump(mode="json", by_alias=True, include=set(PLACEMENT), exclude_defaults=True)
        return hashlib.sha256(json.dumps(inputs, sort_keys=True, separators=(",", ":")).encode()).hexdigest()[:16]


def gather(seen: Observed, now: datetime) -> Case:
    seen = replace(seen, attempts=tuple(as_ended(attempt) for attempt in seen.attempts))
    return Case(seen=seen, now=now.replace(microsecond=0))
