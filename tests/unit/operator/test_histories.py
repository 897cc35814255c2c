"""Random histories of a job in the fake world, and what holds after each step of every one of them.

A history is a list of steps: what users, nodes, queues, trainers, policies and the operator's own deaths may do, in any order. A step that
cannot happen just then does nothing. The operator looks as it does in life: when something has changed, or when it has asked to.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from finetune_api.failures import FailureReason
from finetune_api.progress import Progress, TrainerPhase
from finetune_api.result import MetricResult
from finetune_api.status import FineTuneJobStatus, Phase
from finetune_operator.decide import decide
from finetune_operator.decide.case import is_finished
from finetune_operator.reconcile import reconcile
from finetune_operator.worlds.fake import FakeWorld
from finetune_operator.worlds.protocol import (
    Action,
    AttemptPhase,
    AttemptSeen,
    Awaited,
    Backoff,
    ChangeLimits,
    Decision,
    Ending,
    Key,
    OnItsWay,
    Queueing,
    Refusal,
    StartTraining,
    StopTraining,
    Training,
)
from finetune_operator.worlds.restarts import ending_after
from tests.unit.operator.story import SPEC, TUNED, at_once, result_message

REST = 12
"""Looks after which a job that nothing happens to is at rest."""
BACKS_OFF = 30.0
PENDING_DEADLINE = 60
BETWEEN_TRIES = PENDING_DEADLINE / 10 + 2
"""Seconds that may count although nobody was there to try."""
EVENTUALLY = 80
"""Events after which a world in which all goes well has brought every job to its end."""


class OperatorDies(Exception):
    """Between what it does and what it says."""


class MortalWorld(FakeWorld):
    """One in which the operator may die before it says what it has done."""

    dies = False

    async def report(self, key: Key, decision: Decision) -> None:
        if self.dies:
            raise OperatorDies
        await super().report(key, decision)


@dataclass
class History:
    """A job, all that has become of it, and whether the operator is there."""

    world: MortalWorld = field(
        default_factory=lambda: MortalWorld(backoff=Backoff(timedelta(seconds=10), timedelta(minutes=10)))
    )
    spec: dict[str, Any] = field(default_factory=lambda: dict(SPEC))
    awake: bool = True
    timer: float | None = None
    """Seconds until the operator looks anyway."""
    decision: Decision = field(default_factory=Decision)
    told: list[FineTuneJobStatus] = field(default_factory=list)
    done: set[str] = field(default_factory=set)
    """Runs of which the operator has seen an attempt that exited with 0."""
    steps: int = 0
    accepted: Any = None
    """What was asked of models when the operator last said something."""
    idle: float = 0.0
    """Seconds, at most, in which an attempt could have run and none did: of those without a training only what an operator tried in."""

    def __post_init__(self) -> None:
        self.key = self.world.apply("demo", self.spec)

    # -- what there is ---------------------------------------------------------------------------------------------

    @property
    def status(self) -> FineTuneJobStatus:
        return self.world.jobs[self.key].status

    @property
    def attempts(self) -> list[AttemptSeen]:
        return self.world.attempts.get(self.key, [])

    @property
    def alive(self) -> list[AttemptSeen]:
        """Those whose trainers may still write; a pod may outlive its own."""
        return [a for a in self.attempts if a.phase is not AttemptPhase.ENDED and a.exit_code is None]

    @property
    def trainings(self) -> list[Training]:
        return [training for owner, training in self.world.trainings.values() if owner == self.key]

    @property
    def going_on(self) -> Training | None:
        """The training that nobody has stopped and that has not ended, if it is the first of them: steps are done to the first."""
        first = next(iter(self.trainings), None)
        return first if first is not None and first.ending is None and not first.deleting else None

    def latest(self, phase: AttemptPhase) -> AttemptSeen | None:
        """The latest attempt, if it is in this phase and its trainer has not ended."""
        last = self.attempts[-1] if self.attempts else None
        return last if last is not None and last.phase is phase and last.exit_code is None else None

    def facts(self) -> tuple[Any, ...]:
        """All that watches tell of."""
        job = self.world.jobs.get(self.key)
        return (
            job and (job.uid, job.generation),
            job and job.queueing,
            dict(self.world.trainings),
            tuple(self.attempts),
            self.world.heard.get(self.key),
            self.world.default_image,
        )

    # -- how it goes on --------------------------------------------------------------------------------------------

    def take(self, step: Callable[[History, int], object], number: int) -> None:
        before = self.facts()
        step(self, number)
        if self.is_busy():
            self.idle = 0.0
        if self.awake and (self.facts() != before or (self.timer is not None and self.timer <= 0)):
            self.look()

    def look(self) -> None:
        """Until nothing changes any more, as one change brings the next look; then once more, which has to change nothing."""
        for _ in range(REST):
            before = len(self.world.acted), len(self.world.reports), self.facts()
            self._look_once()
            if (len(self.world.acted), len(self.world.reports), self.facts()) == before:
                self.check_state()
                return
        raise AssertionError(f"the operator finds no rest: {self.decision.rule}, {self.world.acted[-4:]}")

    def _look_once(self) -> None:
        seen, before = len(self.world.reports), self.status
        self.done |= {attempt.run_id for attempt in self.attempts if attempt.exit_code == 0}
        acted = len(self.world.acted)
        try:
            self.decision = at_once(reconcile(self.world, self.key, self.world.now))
        except OperatorDies:
            self.timer = 0.0  # the next one looks at everything
            return
        rechecks = [self.decision.recheck_after, BACKS_OFF if self.decision.backs_off else None]
        self.timer = min((seconds for seconds in rechecks if seconds is not None), default=None)
        for action in self.world.acted[acted:]:
            self.check_action(action, before)
        for _, status in self.world.reports[seen:]:
            self.check_report(before, status)
            before, self.accepted = status, self.spec.get("acceptance")
            self.told.append(status)

    def is_busy(self) -> bool:
        """Whether an attempt runs, or none could."""
        held_back = any(t.queued or t.held for t in self.trainings) or (self.awake and self.spec.get("suspend", False))
        return held_back or any(a.phase is AttemptPhase.RUNNING for a in self.attempts)

    def passes(self, seconds: float) -> None:
        self.idle += seconds if self.awake or self.trainings else min(seconds, BETWEEN_TRIES)
        self.world.pass_time(seconds)
        if self.timer is not None:
            self.timer -= seconds

    # -- what always holds -----------------------------------------------------------------------------------------

    def check_action(self, action: Action, before: FineTuneJobStatus) -> None:
        if isinstance(action, StartTraining) and before.run is not None and before.run.id == action.run.run.id:
            assert not is_finished(before) or before.start_time is None, (
                f"a finished run is started again: {before.reason}"
            )

    def check_report(self, before: FineTuneJobStatus, after: FineTuneJobStatus) -> None:
        assert before != after
        if "spec.pendingDeadlineSeconds" in (after.message or "") and not is_finished(before):
            assert self.idle >= PENDING_DEADLINE, f"it has waited for {self.idle} seconds"
        same_run = before.run is not None and after.run is not None and before.run.id == after.run.id
        if not same_run:
            return
        if before.start_time is not None:
            assert after.start_time == before.start_time, "a run begins once"
            assert before.run is not None
            assert after.run is not None
            assert after.run.uri == before.run.uri
        known = {attempt.number: attempt for attempt in after.attempts or []}
        for attempt in before.attempts or []:
            now = known.get(attempt.number)
            assert now is not None, "an attempt is forgotten"
            assert now.name == attempt.name
            assert attempt.start_time is None or now.start_time == attempt.start_time
            if attempt.end_time is not None:
                assert now == attempt, "what has ended has ended"
        spent = before.usage.gpu_seconds if before.usage else 0
        assert (after.usage.gpu_seconds if after.usage else 0) >= spent, "what was spent was spent"
        if is_finished(before) and before.start_time is not None:
            assert is_finished(after)
            frozen = ["observed_generation", "conditions"]
            if self.spec.get("acceptance") != self.accepted:
                frozen += ["phase", "reason", "message", "failure"]
            unchanged = dict.fromkeys(frozen)
            assert before.model_copy(update=unchanged) == after.model_copy(update=unchanged), "a verdict changes"

    def check_state(self) -> None:
        """At rest: nothing is there twice, what is said is so, and something is to come."""
        status, job = self.status, self.world.jobs[self.key]
        assert len(self.alive) <= 1, f"two attempts at once: {self.alive}"
        going_on = [t for t in self.trainings if t.ending is None and not t.deleting]
        assert len(going_on) <= 1, f"two trainings at once: {going_on}"
        if status.observed_generation is None:
            return  # nothing was said yet: the operator died
        self.check_reason(status)
        if is_finished(status):
            return
        if self.timer is None:
            pods = any(attempt.phase is not AttemptPhase.ENDED for attempt in self.attempts)
            awaited = bool(pods or self.world._due or any(t.deleting for t in self.trainings))
            held = any(t.queued or t.held for t in going_on)
            persons = (
                status.phase == Phase.SUSPENDED
                or {c.type: c.status for c in status.conditions or []}["Stalled"] == "True"
            )
            assert awaited or held or persons, f"nothing is to come: {status.phase} {status.reason}: {status.message}"
            decision = decide(at_once(self.world.observe(self.key)), self.world.now + timedelta(hours=1))
            assert decision.status in (None, status), "what is to be said changes with time alone, and no timer is set"
        assert status.observed_generation == job.generation or decide_waits(self.decision)

    def check_reason(self, status: FineTuneJobStatus) -> None:
        """That what is said of the present is so."""
        running = [a for a in self.attempts if a.phase is AttemptPhase.RUNNING]
        assert status.message, f"{status.phase} {status.reason} has no words"
        assert not {"None", "..", "  "} & {w for w in ("None", "..", "  ") if w in status.message}, status.message
        finished = {c.type: c.status for c in status.conditions or []}
        assert (finished["Finished"] == "True") == (status.phase in (Phase.SUCCEEDED, Phase.FAILED))
        run = status.run.id if status.run else ""
        failure = status.failure
        if status.phase == Phase.SUCCEEDED:
            assert run in self.done, "nothing was done"
            assert (self.spec.get("acceptance") or {}).get("min") != 0.9, "no model of these reaches that"
        if status.reason == FailureReason.ACCEPTANCE_NOT_MET:
            assert run in self.done
            assert self.spec.get("acceptance")
        if status.phase == Phase.FAILED:
            assert failure is not None
            assert failure.remedy
            assert failure.reason == status.reason
        else:
            assert failure is None
        if status.phase == Phase.FAILED and status.reason == FailureReason.BACKOFF_LIMIT_EXCEEDED:
            counted = [a for a in status.attempts or [] if a.end_time is not None and a.counts_as in ("Failure", None)]
            assert counted or "only" in (status.message or "") or "none of them" in (status.message or "")
        if decide_waits(self.decision):
            return  # it says nothing now, as it waits for a verdict; what it said last was about another moment
        if status.phase == Phase.RUNNING and status.reason != "OutOfSight":
            assert running, f"nothing runs: {status.reason}"
        if status.phase == Phase.SUSPENDED:
            assert self.spec.get("suspend")
            assert status.reason != "Suspended" or not self.alive
        if status.phase == Phase.PENDING and status.reason == "Queued":
            assert any(t.queued for t in self.trainings)
        if status.reason in set(Awaited):
            assert [a.on_its_way and a.on_its_way.what for a in self.alive] == [status.reason]
        if status.phase == Phase.RUNNING and status.reason == FailureReason.NODE_LOST:
            assert any(a.out_of_touch or a.deleting for a in running)
        if status.reason == "Restarting":
            there = {
                t.uid for t in self.trainings if t.run_id == run and not t.deleting
            }  # an earlier run may have ended well
            ended = [a for a in self.attempts if a.training in there and a.phase is AttemptPhase.ENDED]
            assert not ended or ended[-1].exit_code != 0, "another attempt is told of, and there will be none"
        if "the next one goes on" in status.message and not self.alive:
            training = next(t for t in self.trainings if t.run_id == run and not t.deleting)
            ended = [a for a in self.attempts if a.training == training.uid]
            assert ending_after(ended, training.limits) is None, "another attempt is told of, and there will be none"
        if status.phase == Phase.STARTING and status.reason == FailureReason.UNSCHEDULABLE:
            waiting = [a.waiting.reason for a in self.alive if a.waiting is not None]
            assert FailureReason.UNSCHEDULABLE in waiting


def decide_waits(decision: Decision) -> bool:
    """Whether the last look left the status alone, and comes back to it."""
    return decision.status is None and decision.recheck_after is not None


# --------------------------------------------------------------------------------------------------------- what happens


def starts_to_run(history: History, _: int) -> None:
    last = history.latest(AttemptPhase.WAITING)
    if last is not None and not any(t.queued or t.held for t in history.trainings if t.uid == last.training):
        history.world.run_attempt(history.key)


def cannot_be_placed(history: History, number: int) -> None:
    if history.latest(AttemptPhase.WAITING):
        reasons = [FailureReason.UNSCHEDULABLE, FailureReason.IMAGE_PULL_FAILED, FailureReason.SECRET_MISSING]
        history.world.hold_attempt(history.key, reasons[number % len(reasons)], "0/1 nodes are available.")


def waits_for_what_comes(history: History, number: int) -> None:
    """A node that is added for it, which may not come in the end, or its image."""
    if history.latest(AttemptPhase.WAITING):
        coming = OnItsWay(list(Awaited)[number % 2], "It comes by itself", history.world.now)
        history.world.change_latest(history.key, on_its_way=coming if number % 3 else None)


def node_falls_silent(history: History, number: int) -> None:
    """And may be back."""
    if history.latest(AttemptPhase.RUNNING):
        history.world.change_latest(history.key, out_of_touch=history.world.now if number % 3 else None)


def labels_name_a_queue(history: History, number: int) -> None:
    job = history.world.jobs[history.key]
    history.world.jobs[history.key] = replace(job, queueing=Queueing(queue=("", "gpus", "cpus")[number % 3]))


def queue_is_not_there(history: History, number: int) -> None:
    if history.going_on is not None and history.going_on.queued:
        missing = Refusal(FailureReason.REFERENCE_MISSING, "There is no queue of that name")
        history.world.change_training(history.key, refusal=missing if number % 2 else None)


UNDEFINED = result_message(metrics=[MetricResult(name="loss", split="validation", baseline=3.0, value=1.7)])
"""Of a model whose answers have no such metric as it was chosen by."""
WORSE_AT_LAST = result_message(
    metrics=[
        MetricResult(name="f1", split="validation", baseline=0.5, value=0.95),
        MetricResult(name="loss", split="test", baseline=3.0, value=1.7),
    ]
)

ENDS: list[tuple[int | None, str, dict[str, Any]]] = [
    (0, TUNED, {}),
    (0, "", {}),
    (0, UNDEFINED, {}),
    (0, WORSE_AT_LAST, {}),
    (1, "Traceback", {}),
    (11, result_message("failed", error=(FailureReason.COLUMN_MISSING, "column label is not there")), {}),
    (10, "", {}),
    (12, "", {}),
    (20, result_message("failed", error=(FailureReason.STORAGE_UNAVAILABLE, "no answer")), {}),
    (21, result_message("failed", error=(FailureReason.OUT_OF_MEMORY, "too large")), {}),
    (137, "", {"out_of_memory": True}),
    (137, "", {"disruption": "Preempted"}),
    (None, "", {"disruption": "NodeLost"}),
    (30, result_message("preempted", step=4), {}),
    (30, result_message("preempted", step=900), {}),
    (30, "", {}),
    (143, "", {}),
    (None, "", {}),
]


def attempt_ends(history: History, number: int) -> None:
    if history.latest(AttemptPhase.RUNNING):
        code, message, facts = ENDS[number % len(ENDS)]
        history.world.end_attempt(history.key, code, message, **facts)


def trainer_ends_in_a_pod_that_goes_on(history: History, number: int) -> None:
    if history.latest(AttemptPhase.RUNNING):
        code, message, _ = ENDS[number % 10]
        assert code is not None
        history.world.end_trainer(history.key, code, message, *(("istio-proxy",) if number % 2 else ()))


def pod_follows_its_trainer(history: History, _: int) -> None:
    last = history.attempts[-1] if history.attempts else None
    if last is not None and last.phase is AttemptPhase.RUNNING and last.exit_code is not None:
        history.world.end_attempt(history.key, last.exit_code, last.termination_message, held_by=())


def trainer_says(history: History, number: int) -> None:
    if history.latest(AttemptPhase.RUNNING):
        phase = list(TrainerPhase)[number % len(TrainerPhase)]
        said = Progress.now(phase, history.world.now, percent=number, remaining=60, step=number, total_steps=100)
        history.world.say(history.key, said)


def controller_is_away(history: History, _: int) -> None:
    """Nobody says how a training ends, or starts another attempt."""
    history.world.controller_away = True


def controller_is_back(history: History, _: int) -> None:
    history.world.controller_returns()


def pod_is_deleted(history: History, _: int) -> None:
    if history.latest(AttemptPhase.RUNNING):
        history.world.change_latest(history.key, deleting=True, gone_by=history.world.now + timedelta(seconds=120))


def training_is_gone(history: History, number: int) -> None:
    """What was told to stop is gone once its attempts have ended; anything else by somebody's hand, or its time to live."""
    trainings = sorted(history.trainings, key=lambda training: not training.deleting)
    if (
        trainings
        and not history.alive
        and (trainings[0].deleting or trainings[0].ending is not None or number % 4 == 0)
    ):
        history.world.remove_training(history.key)


def training_is_deleted_before_its_attempts(history: History, _: int) -> None:
    if history.trainings:
        history.world.orphan_attempts(history.key)


def deadline_passes(history: History, _: int) -> None:
    training = history.going_on
    if training is not None and not training.queued and not history.alive:
        history.world.end_training(history.key, Ending.DEADLINE_EXCEEDED)


def queue_holds_it(history: History, number: int) -> None:
    if history.going_on is not None:
        waits = number % 2 == 0 and all(attempt.phase is not AttemptPhase.RUNNING for attempt in history.attempts)
        since = None if waits else history.world.now
        history.world.change_training(history.key, queued=waits, started=since, refusal=None)


EDITS: list[dict[str, Any]] = [
    {"suspend": True},
    {"suspend": False},
    {"runId": "again"},
    {"runId": "third"},
    {"runId": None},
    {"backoffLimit": 0},
    {"backoffLimit": 5},
    {"activeDeadlineSeconds": 100},
    {"pod": {"nodeSelector": {"disk": "ssd"}}},
    {"image": "trainer:mine"},
    {"ttlSecondsAfterFinished": 5},
    {"task": "read-minds"},
    {"task": "text-classification"},
    {"resources": {"limits": {"memory": "8Gi"}}},
    {"resources": {"limits": {"nvidia.com/gpu": 2}}},
    {"acceptance": {"min": 0.9}},
    {"acceptance": {"metric": "f1", "min": 0.6, "betterThanBaseline": True}},
    {"acceptance": None},
    {"pendingDeadlineSeconds": PENDING_DEADLINE},
    {"pendingDeadlineSeconds": None},
    {"progressDeadlineSeconds": 60},
    {"queue": "gpus"},
    {"queue": None},
]


def user_edits(history: History, number: int) -> None:
    """What the API server lets through. Inputs of training stay as they are under one run id, so a wrong task comes with another."""
    edit = dict(EDITS[number % len(EDITS)])
    if "task" in edit and edit["task"] != history.spec["task"]:
        edit["runId"] = f"r{history.steps}"
    user_edits_to(history, edit)


def user_edits_to(history: History, edit: dict[str, Any]) -> None:
    history.spec = {name: value for name, value in {**history.spec, **edit}.items() if value is not None}
    history.world.apply("demo", history.spec)


def user_deletes_it_and_applies_it_again(history: History, number: int) -> None:
    if number % 4 == 0:
        history.world.delete(history.key)
        history.world.heard.pop(history.key, None)
        history.timer = 0.0
        history.world.apply("demo", history.spec)


def first_version_wrote_the_status(history: History, _: int) -> None:
    """It knew less, and its field of a list is whatever it wrote."""
    job = history.world.jobs[history.key]
    run, attempts = job.status.run, job.status.attempts
    since = ("devices", "gpu_seconds", "steps", "counts_as", "processes", "message", "log_uri")
    older: dict[str, Any] = {"usage": None, "training": None, "progress": None}
    older["run"] = run and run.model_copy(update={"written": None, "contract": None})
    older["attempts"] = attempts and [a.model_copy(update=dict.fromkeys(since)) for a in attempts]
    if not is_finished(job.status):
        history.world.jobs[history.key] = replace(job, status=job.status.model_copy(update=older))


def default_image_changes(history: History, number: int) -> None:
    history.world.default_image = f"trainer:{number % 3}"


def world_refuses(history: History, number: int) -> None:
    refusals = [
        Refusal(FailureReason.ADMISSION_DENIED, "a policy says no"),
        Refusal(FailureReason.QUOTA_EXCEEDED, "exceeded quota"),
        Refusal(FailureReason.NAME_CONFLICT, "is being deleted", passing=True),
        Refusal(FailureReason.CLUSTER_UNAVAILABLE, "a webhook is down", passing=True),
    ]
    kind: type[Action] = (StartTraining, StopTraining, ChangeLimits)[number % 3]
    history.world.refuses[kind] = refusals[number // 3 % len(refusals)]


def cannot_be_made_again(history: History, number: int) -> None:
    """Although there is a time by which it has to run."""
    user_edits_to(history, {"pendingDeadlineSeconds": PENDING_DEADLINE})
    history.world.refuses[StartTraining] = Refusal(FailureReason.QUOTA_EXCEEDED, "exceeded quota")
    waits = history.latest(AttemptPhase.WAITING) is not None
    if history.going_on is not None and (waits or not history.alive) and number % 4:
        history.world.remove_training(history.key)


def world_refuses_nothing_more(history: History, _: int) -> None:
    history.world.refuses.clear()


def clocks_of_nodes_differ(history: History, number: int) -> None:
    history.world.nodes_ahead = timedelta(seconds=(number - 50) * 10)


def operator_is_away(history: History, _: int) -> None:
    history.awake = False


def operator_is_back(history: History, _: int) -> None:
    if not history.awake:
        history.awake, history.timer = True, 0.0


def operator_dies_before_it_speaks(history: History, _: int) -> None:
    if history.awake:
        history.world.dies = True
        history._look_once()
        history.world.dies = False


def time_passes(history: History, number: int) -> None:
    history.passes((1, 2, 5, 11, 30, 61, 155, 700)[number % 8])


STEPS: tuple[Callable[[History, int], None], ...] = (
    starts_to_run,
    starts_to_run,
    attempt_ends,
    attempt_ends,
    attempt_ends,
    time_passes,
    time_passes,
    user_edits,
    user_edits,
    user_deletes_it_and_applies_it_again,
    first_version_wrote_the_status,
    cannot_be_placed,
    waits_for_what_comes,
    node_falls_silent,
    labels_name_a_queue,
    queue_is_not_there,
    trainer_ends_in_a_pod_that_goes_on,
    pod_follows_its_trainer,
    trainer_says,
    controller_is_away,
    controller_is_back,
    pod_is_deleted,
    training_is_gone,
    training_is_deleted_before_its_attempts,
    deadline_passes,
    queue_holds_it,
    default_image_changes,
    world_refuses,
    cannot_be_made_again,
    world_refuses_nothing_more,
    clocks_of_nodes_differ,
    operator_is_away,
    operator_is_back,
    operator_dies_before_it_speaks,
)


def all_is_set_right(history: History, _: int) -> None:
    history.world.refuses.clear()
    history.world.controller_returns()
    history.spec = {name: value for name, value in history.spec.items() if name != "suspend"} | {"task": SPEC["task"]}
    history.world.apply("demo", history.spec)
    history.world.jobs[history.key] = replace(history.world.jobs[history.key], queueing=Queueing())


def until_then(seconds: float, history: History, _: int) -> None:
    history.passes(seconds)


def all_goes_well(history: History) -> Iterator[Callable[[History, int], None]]:
    """From now on: one thing after another, as long as there is something."""
    yield operator_is_back
    yield all_is_set_right
    while not is_finished(history.status):
        last = history.attempts[-1] if history.attempts else None
        if history.going_on is not None and history.going_on.queued:
            yield lambda h, _: queue_holds_it(h, 1)
        elif last is not None and last.phase is AttemptPhase.WAITING:
            yield starts_to_run
        elif last is not None and last.phase is AttemptPhase.RUNNING and last.exit_code is None:
            yield lambda h, _: attempt_ends(h, 0)
        elif last is not None and last.phase is AttemptPhase.RUNNING:
            yield pod_follows_its_trainer
        elif any(training.deleting for training in history.trainings):
            yield training_is_gone
        else:
            due = [when - history.world.now for when, _ in history.world._due.values()]
            waits = [history.timer] if history.timer is not None else []
            waits += [wait.total_seconds() for wait in due]
            assert waits, f"nothing is to come: {history.status.phase} {history.status.reason}"
            yield partial(until_then, max(1.0, min(waits)))


def goes_well(steps: list[tuple[int, int]]) -> None:
    """The claim: whatever has happened, all of the above holds, and a world in which all goes well brings the job to its end."""
    history = History()
    history.look()
    for step, number in steps:
        history.steps += 1
        history.take(STEPS[step], number)
    for count, follows in enumerate(all_goes_well(history)):
        assert count < EVENTUALLY, f"comes to no end: {history.status.phase} {history.status.reason}"
        history.take(follows, 0)


STEP = st.tuples(st.sampled_from(range(len(STEPS))), st.sampled_from(range(101)))
HISTORIES = st.integers(0, 40).flatmap(lambda length: st.lists(STEP, min_size=length, max_size=length))
"""Of all lengths alike: left to itself Hypothesis prefers short ones, in which little can go wrong."""


@settings(max_examples=500)
@given(HISTORIES)
def test_whatever_happens_a_job_is_told_of_truly_and_comes_to_an_end(steps: list[tuple[int, int]]) -> None:
    goes_well(steps)


@pytest.mark.soak
@settings(max_examples=10_000, derandomize=False)
@given(HISTORIES)
def test_ten_thousand_histories_are_told_of_truly_and_come_to_an_end(steps: list[tuple[int, int]]) -> None:
    goes_well(steps)
