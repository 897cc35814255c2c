"""The controller over the world in memory."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator

import pytest

from finetune_operator.controller import RESYNC_SECONDS, Controller
from finetune_operator.logs import LogFormat, set_up
from finetune_operator.worlds.fake import FakeWorld
from finetune_operator.worlds.protocol import Key, Observed
from tests.unit.operator.patience import lived
from tests.unit.operator.story import SPEC, TUNED, Story
from tests.unit.operator.waiting import until


@contextlib.asynccontextmanager
async def controlled(world: FakeWorld, leads: asyncio.Event | None = None) -> AsyncIterator[Controller]:
    controller = Controller(world, clock=lambda: world.now, leads=leads)
    task = asyncio.create_task(controller.run())
    try:
        yield controller
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def test_a_job_goes_from_apply_to_succeeded_by_changes_alone() -> None:
    world = FakeWorld()
    async with controlled(world):
        key = world.apply("demo", SPEC)
        await until(lambda: world.jobs[key].status.phase == "Starting")
        world.run_attempt(key)
        await until(lambda: world.jobs[key].status.phase == "Running")
        world.end_attempt(key, 0, TUNED)
        await until(lambda: world.jobs[key].status.phase == "Succeeded")


async def test_many_jobs_start_together_and_one_that_cannot_be_read_holds_none_back(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Broken(FakeWorld):
        async def observe(self, key: Key) -> Observed:
            if key.name == "job-7":
                raise RuntimeError("its status is unreadable")
            return await super().observe(key)

    world = Broken()
    async with controlled(world):
        keys = [world.apply(f"job-{n}", SPEC) for n in range(50)]
        await until(lambda: sum(1 for key in keys if world.jobs[key].status.phase == "Starting") == 49)
    assert "its status is unreadable" in caplog.text


def looks_at(world: FakeWorld) -> dict[Key, list[float]]:
    """When each job is looked at from now on."""
    looks: dict[Key, list[float]] = {}
    observe = world.observe

    async def observed(key: Key) -> Observed:
        looks.setdefault(key, []).append(asyncio.get_running_loop().time())
        return await observe(key)

    world.observe = observed  # type: ignore[method-assign]
    return looks


def test_a_resync_looks_at_each_job_again_at_a_moment_of_its_own() -> None:
    """Should a change have been missed: nothing else tells of it."""

    async def story() -> None:
        world = FakeWorld()
        looks = looks_at(world)
        keys = {world.apply(f"job-{n}", SPEC) for n in range(20)}
        async with controlled(world):
            await asyncio.sleep(RESYNC_SECONDS / 2)
            assert set(looks) == keys
            looks.clear()
            await asyncio.sleep(RESYNC_SECONDS)
        assert set(looks) == keys
        moments = sorted(first for first, *_ in looks.values())
        assert moments[-1] - moments[0] > RESYNC_SECONDS / 10

    lived(story)


def test_a_resync_passes_over_a_finished_job_of_which_nothing_is_left_until_it_changes() -> None:
    async def story() -> None:
        job = Story(runId="r").starts().runs().ends(0, TUNED)
        looks = looks_at(job.world)
        async with controlled(job.world):
            await asyncio.sleep(5 * RESYNC_SECONDS)
            assert len(looks[job.key]) > 3, "its training is still there"
            job.loses_its_training()
            job.world.apply("demo", {**job.spec, "ttlSecondsAfterFinished": 60})
            await asyncio.sleep(2 * RESYNC_SECONDS)  # also one that was to come already
            assert job.status.observed_generation == 2
            before = len(looks[job.key])
            await asyncio.sleep(5 * RESYNC_SECONDS)
            assert len(looks[job.key]) == before
            job.world.apply("demo", {**job.spec, "ttlSecondsAfterFinished": 90})
            await until(lambda: job.status.observed_generation == 3)

    lived(story)


@pytest.mark.parametrize(
    ("log_format", "expected"),
    [("text", "| ml/demo: Could not be reconciled"), ("json", '"job": "ml/demo", "message": "Could not be reconciled')],
)
async def test_every_log_line_about_a_job_names_it(
    log_format: LogFormat, expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    looks = 0

    class Broken(FakeWorld):
        async def observe(self, key: Key) -> Observed:
            nonlocal looks
            looks += 1
            raise RuntimeError("no")

    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    try:
        set_up(log_format)
        world = Broken()
        async with controlled(world):
            world.apply("demo", SPEC, namespace="ml")
            await until(lambda: looks > 1)  # what went wrong with the first is told by then
    finally:
        root.handlers[:], root.level = handlers, level
    said = capsys.readouterr().err
    assert expected in said
    assert "Traceback" in said
    assert all("ml/demo" in line for line in said.splitlines())


# ---------------------------------------------------------------------------------------------- while another one leads


async def test_while_another_operator_leads_it_does_nothing_and_then_looks_at_every_job() -> None:
    world, leads = FakeWorld(), asyncio.Event()
    keys = [world.apply(f"job-{n}", SPEC) for n in range(5)]
    async with controlled(world, leads):
        await until(world._changes.empty)
        await asyncio.sleep(0.05)
        assert (world.acted, world.reports) == ([], [])
        leads.set()
        await until(lambda: all(world.jobs[key].status.phase == "Starting" for key in keys))


async def test_what_changes_meanwhile_is_not_remembered_job_by_job() -> None:
    """It would be each job that ever was."""
    world = FakeWorld()
    async with controlled(world, asyncio.Event()) as controller:
        for number in range(100):
            world.delete(world.apply(f"job-{number}", SPEC))
        await until(world._changes.empty)
        assert len(controller.queue) == 0
