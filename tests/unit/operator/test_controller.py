"""The controller over the world in memory."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable

import pytest

from finetune_operator.controller import Controller
from finetune_operator.logs import LogFormat, set_up
from finetune_operator.worlds.fake import FakeWorld
from finetune_operator.worlds.protocol import Key, Observed
from tests.unit.operator.story import SPEC, TUNED


@contextlib.asynccontextmanager
async def controlled(world: FakeWorld) -> AsyncIterator[Controller]:
    controller = Controller(world, clock=lambda: world.now)
    task = asyncio.create_task(controller.run())
    try:
        yield controller
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def until(holds: Callable[[], bool], seconds: float = 2) -> None:
    async with asyncio.timeout(seconds):
        while not holds():  # noqa: ASYNC110 (the fake world announces nothing)
            await asyncio.sleep(0.005)


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


@pytest.mark.parametrize(
    ("log_format", "expected"),
    [("text", "| ml/demo: Could not be reconciled"), ("json", '"job": "ml/demo", "message": "Could not be reconciled')],
)
async def test_every_log_line_about_a_job_names_it(
    log_format: LogFormat, expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    class Broken(FakeWorld):
        async def observe(self, key: Key) -> Observed:
            raise RuntimeError("no")

    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    try:
        set_up(log_format)
        world = Broken()
        async with controlled(world):
            world.apply("demo", SPEC, namespace="ml")
            await asyncio.sleep(0.05)
    finally:
        root.handlers[:], root.level = handlers, level
    assert expected in capsys.readouterr().err
