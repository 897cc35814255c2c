"""The world in memory keeps the promises of the real ones."""

from __future__ import annotations

from typing import Any

import pytest

from finetune_operator.worlds.fake import FakeWorld
from finetune_operator.worlds.protocol import Key
from tests.unit.operator.story import SPEC, result_message
from tests.unit.operator.world_conformance import Driver, WorldConformance, training


class FakeDriver:
    devices_of_two = 2

    def __init__(self) -> None:
        self.world = FakeWorld()

    async def apply(self, **changes: Any) -> Key:
        return self.world.apply("demo", {**SPEC, **changes})

    async def run_attempt(self, key: Key) -> None:
        self.world.run_attempt(key)

    async def end_attempt(self, key: Key, exit_code: int, message: str) -> None:
        self.world.pass_time(1)
        self.world.end_attempt(key, exit_code, message)

    async def let_attempt_save(self, key: Key) -> None:
        self.world.end_attempt(key, 30, result_message("preempted"))
        self.world.remove_training(key)

    async def let_told_attempt_save(self, key: Key) -> None:
        self.world.end_attempt(key, 30, result_message("preempted"))

    async def say(self, key: Key, step: int) -> None:
        self.world.say(key, training(step))


class TestFakeWorld(WorldConformance):
    @pytest.fixture
    def driver(self) -> Driver:
        return FakeDriver()
