"""What every world must do, as tests. A world joins by a Driver, which does to it what its users and its machines do:

class TestMyWorld(WorldConformance):
    @pytest.fixture
    async def driver(self) -> AsyncIterator[Driver]:
        …
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol, TypeVar

from finetune_api.failures import FailureReason
from finetune_api.progress import Progress, TrainerPhase
from finetune_api.status import FineTuneJobStatus, read_status
from finetune_operator.decide import decide
from finetune_operator.reconcile import reconcile
from finetune_operator.worlds.protocol import (
    AttemptPhase,
    ChangeLimits,
    Decision,
    Ending,
    Key,
    Observed,
    Refusal,
    Refused,
    StartTraining,
    StopAttempt,
    StopTraining,
    World,
)
from tests.unit.operator.story import TUNED, result_message

T = TypeVar("T")

PATIENCE = 40.0
"""Seconds of real time that a world may take to show the effect of something."""


TOTAL_STEPS = 5000


class Driver(Protocol):
    """The hands of a test in a world."""

    devices_of_two: int
    """What an attempt has here that asks for two GPUs."""

    @property
    def world(self) -> World: ...

    async def apply(self, **changes: Any) -> Key:
        """A job with the tests' spec and these changes to it; again: another spec for the same job."""
        ...

    async def run_attempt(self, key: Key) -> None:
        """The attempt that waits starts to run; a world that starts attempts at once does nothing."""
        ...

    async def end_attempt(self, key: Key, exit_code: int, message: str) -> None:
        """The running attempt ends so."""
        ...

    async def let_attempt_save(self, key: Key) -> None:
        """The running attempt, told to stop, ends with the code for that."""
        ...

    async def let_told_attempt_save(self, key: Key) -> None:
        """The same, where its training goes on."""
        ...

    async def say(self, key: Key, step: int) -> None:
        """The trainer of the running attempt tells that it has done so many steps of `TOTAL_STEPS`, or even more."""
        ...


class WorldConformance:
    """Claims about observe, act, report and changes."""

    async def test_an_unknown_job_is_observed_as_gone(self, driver: Driver) -> None:
        seen = await driver.world.observe(Key("FineTuneJob", "default", "nobody"))
        assert seen.job is None

    async def test_a_new_job_is_announced_listed_and_observed_without_children(self, driver: Driver) -> None:
        key = await driver.apply()
        assert await announced(driver) == key
        assert list(driver.world.keys()) == [key]
        seen = await driver.world.observe(key)
        assert seen.job is not None
        assert seen.job.status == FineTuneJobStatus()
        assert (seen.trainings, seen.attempts) == ((), ())

    async def test_a_started_training_is_observed_at_once_as_it_was_asked_for(self, driver: Driver) -> None:
        key = await driver.apply(backoffLimit=1, runId="r")
        start = await started(driver, key)
        [training] = (await driver.world.observe(key)).trainings
        assert (training.name, training.run_id) == (start.name, "r")
        assert (training.limits, training.asked, training.placement) == (start.limits, start.limits, start.placement)
        assert (training.ending, training.deleting, training.queued) == (None, False, False)

    async def test_starting_twice_makes_no_twin(self, driver: Driver) -> None:
        key = await driver.apply()
        start = await started(driver, key)
        before = [training.uid for training in (await driver.world.observe(key)).trainings]
        assert await driver.world.act(key, start) is None
        assert [training.uid for training in (await driver.world.observe(key)).trainings] == before

    async def test_an_attempt_runs_and_its_end_completes_the_training(self, driver: Driver) -> None:
        key = await driver.apply()
        await started(driver, key)
        await driver.run_attempt(key)
        seen = await shown(driver, key, lambda s: any(a.phase is AttemptPhase.RUNNING for a in s.attempts))
        assert seen.attempts[-1].started is not None
        assert seen.trainings[0].started is not None  # from when its deadline counts
        running = seen.attempts[-1]
        assert (running.waiting, running.on_its_way, running.out_of_touch) == (None, None, None)
        await driver.end_attempt(key, 0, TUNED)
        seen = await shown(driver, key, has_ended)
        assert seen.trainings[0].ending is Ending.COMPLETE
        again = await driver.world.observe(key)
        assert again.trainings[0].ended_for >= seen.trainings[0].ended_for >= 0
        [attempt] = seen.attempts
        assert (attempt.phase, attempt.exit_code, attempt.termination_message) == (AttemptPhase.ENDED, 0, TUNED)
        assert attempt.training == seen.trainings[0].uid

    async def test_an_attempt_shows_how_many_gpus_it_has(self, driver: Driver) -> None:
        key = await driver.apply(resources={"limits": {"nvidia.com/gpu": 2, "memory": "2Gi"}})
        await started(driver, key)
        await driver.run_attempt(key)
        seen = await shown(driver, key, lambda s: any(a.phase is AttemptPhase.RUNNING for a in s.attempts))
        assert [attempt.devices for attempt in seen.attempts] == [driver.devices_of_two]

    async def test_an_attempt_that_is_told_to_stop_saves_and_another_one_follows(self, driver: Driver) -> None:
        key = await driver.apply(backoffLimit=0)
        await started(driver, key)
        await driver.run_attempt(key)
        seen = await shown(driver, key, lambda s: any(a.phase is AttemptPhase.RUNNING for a in s.attempts))
        [attempt], [training] = seen.attempts, seen.trainings
        assert attempt.uid
        assert await driver.world.act(key, StopAttempt(attempt.name, "another")) is None
        assert not (await driver.world.observe(key)).attempts[0].deleting
        assert await driver.world.act(key, StopAttempt(attempt.name, attempt.uid)) is None
        await driver.let_told_attempt_save(key)
        seen = await shown(driver, key, lambda s: len(s.attempts) == 2)
        assert [t.uid for t in seen.trainings] == [training.uid]
        assert (seen.attempts[0].exit_code, seen.trainings[0].ending) == (30, None)
        assert await driver.world.act(key, StopAttempt(attempt.name, attempt.uid)) is None

    async def test_a_never_retried_code_ends_the_training(self, driver: Driver) -> None:
        key = await driver.apply()
        await started(driver, key)
        await driver.run_attempt(key)
        await driver.end_attempt(key, 11, result_message("failed"))
        seen = await shown(driver, key, has_ended)
        assert seen.trainings[0].ending is Ending.NEVER_RETRIED

    async def test_a_counted_failure_is_followed_by_another_attempt_up_to_the_limit(self, driver: Driver) -> None:
        key = await driver.apply(backoffLimit=1)
        await started(driver, key)
        for number in (1, 2):
            await driver.run_attempt(key)
            await driver.end_attempt(key, 1, "")
            await shown(driver, key, lambda s, n=number: has_ended(s) or len(s.attempts) > n)  # type: ignore[misc]
        seen = await shown(driver, key, has_ended)
        assert seen.trainings[0].ending is Ending.BACKOFF_LIMIT_EXCEEDED
        assert len([a for a in seen.attempts if a.exit_code == 1]) == 2

    async def test_a_preempted_attempt_is_followed_by_another_and_not_counted(self, driver: Driver) -> None:
        key = await driver.apply(backoffLimit=0)
        await started(driver, key)
        await driver.run_attempt(key)
        await driver.end_attempt(key, 30, result_message("preempted"))
        seen = await shown(driver, key, lambda s: len(s.attempts) == 2)
        assert seen.trainings[0].ending is None

    async def test_a_stopped_training_lets_its_attempt_save_and_is_gone(self, driver: Driver) -> None:
        key = await driver.apply()
        await started(driver, key)
        await driver.run_attempt(key)
        seen = await shown(driver, key, lambda s: any(a.phase is AttemptPhase.RUNNING for a in s.attempts))
        [training] = seen.trainings
        stop = StopTraining(training.name, training.uid)
        assert await driver.world.act(key, stop) is None
        assert all(t.deleting for t in (await driver.world.observe(key)).trainings)
        await driver.let_attempt_save(key)
        await shown(driver, key, lambda s: not s.trainings)
        assert await driver.world.act(key, stop) is None

    async def test_a_report_is_observed_at_once_and_an_equal_one_is_not_announced(self, driver: Driver) -> None:
        key = await driver.apply()
        decision = decide(await driver.world.observe(key), datetime.now(UTC))
        await driver.world.report(key, decision)
        seen = await driver.world.observe(key)
        assert seen.job is not None
        assert seen.job.status == decision.status
        await quiet(driver)
        await driver.world.report(key, decision)
        assert not await anything_announced(driver)

    async def test_limits_that_are_changed_are_in_force_and_remembered(self, driver: Driver) -> None:
        key = await driver.apply()
        start = await started(driver, key)
        [training] = (await driver.world.observe(key)).trainings
        limits = replace(start.limits, backoff_limit=9, active_deadline_seconds=5000)
        assert await driver.world.act(key, ChangeLimits(training.name, training.uid, limits)) is None
        [training] = (await driver.world.observe(key)).trainings
        assert (training.limits, training.asked) == (limits, limits)

    async def test_a_report_in_words_of_another_version_is_observed_as_it_was_written(self, driver: Driver) -> None:
        key = await driver.apply()
        decision = decide(await driver.world.observe(key), datetime.now(UTC))
        assert decision.status is not None
        newer = decision.status.wire()
        newer |= {"phase": "Evaluating", "reason": "Thinking"}
        newer["conditions"].append(newer["conditions"][0] | {"type": "Accepted"})
        said = read_status(newer)
        await driver.world.report(key, replace(decision, status=said))
        seen = await driver.world.observe(key)
        assert seen.job is not None
        assert seen.job.status == said

    async def test_a_run_goes_on_although_its_spec_cannot_be_read_any_more(self, driver: Driver) -> None:
        key = await driver.apply()
        await reconciled(driver, key, lambda s: s.phase in ("Starting", "Running"))
        await driver.run_attempt(key)
        await reconciled(driver, key, lambda s: s.phase == "Running")
        decision = await reconcile(Blind(driver.world), key, datetime.now(UTC))
        assert decision.status is not None
        assert (decision.status.phase, decision.status.reason, decision.actions) == ("Running", "InvalidSpec", ())
        await driver.end_attempt(key, 0, TUNED)
        await shown(driver, key, has_ended)
        status = await reconciled(driver, key, lambda s: s.phase == "Succeeded", Blind(driver.world))
        assert status.summary == "f1 0.512 → 0.874"

    async def test_for_how_long_a_run_could_not_be_made_is_remembered(self, driver: Driver) -> None:
        key = await driver.apply(pendingDeadlineSeconds=600)
        began = datetime.now(UTC)
        for seconds in (0, 60):
            seen = await driver.world.observe(key)
            [start] = decide(seen, began).actions
            refusal = Refusal(FailureReason.QUOTA_EXCEEDED, "no room")
            later = began + timedelta(seconds=seconds)
            await driver.world.report(key, decide(replace(seen, refused=(Refused(start, refusal),)), later))
            job = (await driver.world.observe(key)).job
            assert job is not None
            assert job.status.waited is not None
            assert (job.status.reason, job.status.waited.seconds) == ("QuotaExceeded", seconds)

    async def test_a_decision_without_a_status_leaves_it_alone(self, driver: Driver) -> None:
        key = await driver.apply()
        await driver.world.report(key, decide(await driver.world.observe(key), datetime.now(UTC)))
        before = (await driver.world.observe(key)).job
        await driver.world.report(key, Decision())
        assert (await driver.world.observe(key)).job == before

    async def test_another_spec_is_another_generation(self, driver: Driver) -> None:
        key = await driver.apply()
        await driver.apply(backoffLimit=7)
        seen = await shown(driver, key, lambda s: s.job is not None and s.job.generation == 2)
        assert seen.job is not None
        assert seen.job.spec["backoffLimit"] == 7

    async def test_what_the_trainer_says_is_observed_and_told_and_stays_when_its_attempt_ends(
        self, driver: Driver
    ) -> None:
        key = await driver.apply(backoffLimit=1)
        await reconciled(driver, key, lambda s: s.phase in ("Starting", "Running"))
        await driver.run_attempt(key)
        await reconciled(driver, key, lambda s: s.phase == "Running")
        assert (await driver.world.observe(key)).job.status.progress is None  # type: ignore[union-attr]
        await driver.say(key, 2)
        seen = await shown(driver, key, lambda s: s.report is not None)
        assert seen.report is not None
        assert seen.report.attempt == seen.attempts[-1].name
        status = await reconciled(driver, key, lambda s: s.progress is not None and (s.progress.step or 0) >= 2)
        assert (status.phase, status.reason) == ("Running", "Training")
        progress = status.progress
        assert progress is not None
        assert (progress.phase, progress.attempt, progress.total_steps) == ("Training", 1, TOTAL_STEPS)
        assert progress.shown == f"{progress.percent} % ({progress.step}/{TOTAL_STEPS})"
        assert progress.remaining is not None
        await driver.end_attempt(key, 1, "")
        status = await reconciled(driver, key, lambda s: s.phase == "Starting")
        assert status.progress is not None
        assert (status.progress.step or 0) >= (progress.step or 0)
        assert status.progress.remaining is None

    async def test_a_whole_life_by_reconcile_ends_succeeded(self, driver: Driver) -> None:
        key = await driver.apply()
        await reconciled(driver, key, lambda s: s.phase in ("Starting", "Running"))
        await driver.run_attempt(key)
        await reconciled(driver, key, lambda s: s.phase == "Running")
        await driver.end_attempt(key, 0, TUNED)
        status = await reconciled(driver, key, lambda s: s.phase == "Succeeded")
        assert status.summary == "f1 0.512 → 0.874"


def training(step: int) -> Progress:
    """What a trainer tells after so many steps."""
    percent, left = 100 * step // TOTAL_STEPS, (TOTAL_STEPS - step) // 50
    numbers = {"step": step, "total_steps": TOTAL_STEPS}
    return Progress.now(TrainerPhase.TRAINING, datetime.now(UTC), percent=percent, remaining=left, **numbers)


def has_ended(seen: Observed) -> bool:
    return any(training.ending is not None for training in seen.trainings)


async def started(driver: Driver, key: Key) -> StartTraining:
    """The training that the rules ask for, started."""
    [action] = decide(await driver.world.observe(key), datetime.now(UTC)).actions
    assert isinstance(action, StartTraining)
    assert await driver.world.act(key, action) is None
    return action


async def shown(driver: Driver, key: Key, holds: Callable[[Observed], bool]) -> Observed:
    """What is observed once it is so."""

    async def look() -> Observed | None:
        seen = await driver.world.observe(key)
        return seen if holds(seen) else None

    return await eventually(look)


class Blind:
    """A world whose specs a newer version has written."""

    def __init__(self, world: World) -> None:
        self._world = world

    def __getattr__(self, name: str) -> Any:
        return getattr(self._world, name)

    async def observe(self, key: Key) -> Observed:
        seen = await self._world.observe(key)
        assert seen.job is not None
        return replace(seen, job=replace(seen.job, spec={**seen.job.spec, "task": "text-to-speech"}))


async def reconciled(
    driver: Driver, key: Key, holds: Callable[[FineTuneJobStatus], bool], world: Any = None
) -> FineTuneJobStatus:
    """The status once it is so, after as many reconciles as that takes."""

    async def look() -> FineTuneJobStatus | None:
        await reconcile(world or driver.world, key, datetime.now(UTC))
        job = (await driver.world.observe(key)).job
        return job.status if job is not None and holds(job.status) else None

    return await eventually(look)


async def eventually(look: Callable[[], Awaitable[T | None]]) -> T:
    async with asyncio.timeout(PATIENCE):
        while (found := await look()) is None:  # noqa: ASYNC110 (a world need not announce what it shows)
            await asyncio.sleep(0.02)
    return found


async def announced(driver: Driver) -> Key:
    changes = driver.world.changes()
    return await asyncio.wait_for(anext(changes), PATIENCE)


async def anything_announced(driver: Driver, seconds: float = 0.3) -> bool:
    try:
        await asyncio.wait_for(anext(driver.world.changes()), seconds)
    except TimeoutError:
        return False
    return True


async def quiet(driver: Driver) -> None:
    while await anything_announced(driver):
        pass
