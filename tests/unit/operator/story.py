"""A job's life, told in a few words: each step happens in the fake world and is followed by a reconcile.

story = Story().starts().runs().ends(exit_code=11, error=(FailureReason.COLUMN_MISSING, "column label is not there"))
assert story.status.phase == "Failed"
"""

from __future__ import annotations

from collections.abc import Coroutine
from dataclasses import replace
from datetime import datetime
from typing import Any, ClassVar, Self, TypeVar, cast

from finetune_api.failures import REMEDIES, FailureReason
from finetune_api.progress import Progress, TrainerPhase
from finetune_api.result import MetricResult, Result, ResultError
from finetune_api.status import FineTuneJobStatus
from finetune_operator.decide import decide
from finetune_operator.reconcile import reconcile
from finetune_operator.worlds.fake import FakeWorld
from finetune_operator.worlds.protocol import Action, Announcement, Decision, Ending, Refusal, StartTraining

SPEC: dict[str, Any] = {
    "task": "text-classification",
    "model": {"uri": "s3://models/minilm"},
    "dataset": {"uri": "s3://data/topics"},
    "output": {"uri": "s3://models/out"},
}
T = TypeVar("T")
NO_GPU = "0/1 nodes are available: 1 Insufficient nvidia.com/gpu."


def result_message(outcome: Any = "succeeded", *, error: tuple[FailureReason, str] | None = None, **facts: Any) -> str:
    """The termination message of a trainer."""
    result = Result(
        outcome=outcome,
        run_id="r",
        uri="s3://models/out/r",
        owner="default/demo/job-1",
        attempt=1,
        fingerprint="f",
        error=ResultError(reason=error[0], message=error[1], remedy=REMEDIES[error[0]]) if error else None,
        **facts,
    )
    return result.termination_message()


TUNED = result_message(
    metrics=[
        MetricResult(name="f1", split="validation", baseline=0.512, value=0.874),
        MetricResult(name="accuracy", split="validation", baseline=0.5, value=0.9),
    ],
    data_fingerprint="d" * 64,
)


def at_once(call: Coroutine[Any, Any, T]) -> T:
    """What `call` returns that waits for nothing, as those of the fake world: without an event loop, which takes longer to make."""
    try:
        call.send(None)
    except StopIteration as done:
        return cast("T", done.value)
    raise AssertionError(f"{call} waits")


class Story:
    """One job named demo."""

    rules_that_spoke: ClassVar[set[str]] = set()

    def __init__(self, spec: dict[str, Any] | None = None, **changes: Any) -> None:
        self.world = FakeWorld()
        self.spec = {**(SPEC if spec is None else spec), **changes}
        self.key = self.world.apply("demo", self.spec)

    # -- what happens ----------------------------------------------------------------------------------------------

    def looks(self) -> Self:
        """The operator looks once."""
        decision = at_once(reconcile(self.world, self.key, self.world.now))
        self.rules_that_spoke.add(decision.rule)
        self.recheck = decision.recheck_after
        return self

    starts = looks

    def runs(self) -> Self:
        self.world.pass_time(5)
        self.world.run_attempt(self.key)
        return self.looks()

    def ends(self, exit_code: int | None = 0, message: str = "", **facts: Any) -> Self:
        """The running attempt ends; `error` is a shorthand for a trainer's failure message."""
        if "error" in facts:
            message = result_message("failed", error=facts.pop("error"))
        self.world.pass_time(60)
        self.world.end_attempt(self.key, exit_code, message, **facts)
        self.looks()
        if any(training.deleting for _, training in self.world.trainings.values()):
            self.loses_its_training()
        return self

    def says(
        self,
        phase: TrainerPhase,
        *,
        percent: int | None = None,
        remaining: int | None = None,
        message: str = "",
        **numbers: float,
    ) -> Self:
        """The trainer of the latest attempt reports."""
        said = Progress.now(phase, self.now, percent=percent, remaining=remaining, message=message, **numbers)
        self.world.say(self.key, said)
        return self.looks()

    def trainer_ends(self, exit_code: int, *held_by: str, message: str = "") -> Self:
        """The trainer of the running attempt ends, and these other containers keep its pod."""
        self.world.pass_time(60)
        self.world.end_trainer(self.key, exit_code, message, *held_by)
        return self.looks()

    def waits(self, seconds: float) -> Self:
        self.world.pass_time(seconds)
        return self.looks()

    def is_held(self, reason: FailureReason, message: str) -> Self:
        self.world.hold_attempt(self.key, reason, message)
        return self.looks()

    def is_edited(self, **changes: Any) -> Self:
        self.spec = {**self.spec, **changes}
        self.world.apply("demo", self.spec)
        return self.looks()

    def is_refused(self, reason: FailureReason, message: str, *, passing: bool = False) -> Self:
        self.world.refuses[StartTraining] = Refusal(reason, message, passing=passing)
        return self.looks()

    def loses_its_training(self) -> Self:
        """Somebody deleted it, or its time to live is over."""
        self.world.remove_training(self.key)
        return self.looks()

    def gets_the_default_image(self, image: str) -> Self:
        """The operator was installed with another one."""
        self.world.default_image = image
        return self.looks()

    def exceeds_its_deadline(self) -> Self:
        self.world.end_training(self.key, Ending.DEADLINE_EXCEEDED)
        return self.looks()

    def changes_training(self, **facts: Any) -> Self:
        self.world.change_training(self.key, **facts)
        return self.looks()

    # -- what there is to see --------------------------------------------------------------------------------------

    @property
    def status(self) -> FineTuneJobStatus:
        return self.world.jobs[self.key].status

    @property
    def now(self) -> datetime:
        return self.world.now

    @property
    def actions(self) -> list[Action]:
        return self.world.acted

    @property
    def trainings(self) -> list[str]:
        return [training.name for _, training in self.world.trainings.values()]

    @property
    def events(self) -> list[Announcement]:
        return self.world.events

    @property
    def writes(self) -> int:
        return len(self.world.reports)

    def state(self) -> tuple[str | None, str | None]:
        return self.status.phase, self.status.reason

    def conditions(self) -> dict[str, str]:
        return {condition.type: condition.status for condition in self.status.conditions or []}

    def decision(self, **facts: Any) -> Decision:
        """What the rules say to the present facts, changed by `facts`; nothing is done."""
        seen = at_once(self.world.observe(self.key))
        return decide(replace(seen, **facts), self.world.now)
