"""The local world keeps the promises of all worlds, with real processes and a stand-in for the trainer."""

from __future__ import annotations

import asyncio
import os
import re
import signal
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from finetune_api.failures import FailureReason
from finetune_operator.decide.ending import HEARING
from finetune_operator.worlds.local import LocalWorld, supervisor
from finetune_operator.worlds.local.devices import devices
from finetune_operator.worlds.local.memory import out_of_memory_kills
from finetune_operator.worlds.protocol import (
    AttemptPhase,
    ChangeLimits,
    Ending,
    Key,
    Observed,
    Refusal,
    StartTraining,
    StopTraining,
)
from tests.unit.operator.local.script import Script, runs
from tests.unit.operator.story import SPEC
from tests.unit.operator.waiting import until
from tests.unit.operator.world_conformance import WorldConformance, has_ended, reconciled, shown, started

pytestmark = pytest.mark.slow


class LocalDriver:
    devices_of_two = devices(2)

    def __init__(self, folder: Path) -> None:
        self.state = folder / "my state"
        self.script = Script(folder / "script")
        self.trainer = self.script.trainer
        self._applied = False
        self.lines: list[str] = []
        self.world = self.another_world()

    def another_world(self, name: str = "demo", **changes: Any) -> LocalWorld:
        spec = {**SPEC, **changes}
        return LocalWorld(name, spec, trainer=self.trainer, state=self.state, on_line=self.lines.append)

    async def apply(self, **changes: Any) -> Key:
        if self._applied:
            self.world.edit(**changes)
        else:
            self.world = self.another_world(**changes)
        self._applied = True
        return self.world.key

    async def run_attempt(self, key: Key) -> None:
        await shown(self, key, lambda s: any(a.phase is AttemptPhase.RUNNING for a in s.attempts))
        await until(lambda: self.script.pid is not None)

    async def end_attempt(self, key: Key, exit_code: int, message: str | None) -> None:
        self.script.ends(exit_code, message)

    async def let_attempt_save(self, key: Key) -> None:
        pass

    async def let_told_attempt_save(self, key: Key) -> None:
        pass

    async def say(self, key: Key, step: int) -> None:
        """From now on, of each of its own."""
        self.script.speaks()

    def left_behind(self) -> list[str]:
        """The names of files in the state folder, but for that which says whose it is."""
        return sorted({file.name for file in self.state.rglob("*") if file.is_file()} - {"identity"})


@pytest.fixture
async def driver(tmp_path: Path) -> AsyncIterator[LocalDriver]:
    driver = LocalDriver(tmp_path)
    yield driver
    await driver.world.close()


class TestLocalWorld(WorldConformance):
    @pytest.fixture
    async def driver(self, driver: LocalDriver) -> LocalDriver:
        """One whose trainer speaks when a test says so."""
        driver.script.is_silent()
        return driver


async def test_a_trainer_whose_process_stands_still_is_ended_and_the_next_one_goes_on(
    driver: LocalDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It hears nothing and says nothing, so it is killed once it had its time."""
    monkeypatch.setattr(supervisor, "GRACE_SECONDS", 1.0)
    key = await driver.apply(progressDeadlineSeconds=10)
    await reconciled(driver, key, lambda s: s.phase in ("Starting", "Running"))
    await driver.run_attempt(key)
    await reconciled(driver, key, lambda s: s.progress is not None)
    pid = driver.script.pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    status = await reconciled(driver, key, lambda s: len(s.attempts or []) == 2)
    first = (status.attempts or [])[0]
    assert (first.reason, first.counts_as, first.exit_code) == ("TrainingStalled", "Failure", 137)
    said = re.search(
        r"has said nothing for (\d+) seconds, and spec.progressDeadlineSeconds allows 10", first.message or ""
    )
    assert said and 15 <= int(said[1]) < 30
    await until(lambda: driver.script.pid != pid)
    assert not runs(pid)


async def trains(driver: LocalDriver, **changes: Any) -> StartTraining:
    """A job with these changes to its spec, whose first attempt trains."""
    key = await driver.apply(**changes)
    start = await started(driver, key)
    await driver.run_attempt(key)
    return start


async def ended(driver: LocalDriver) -> Observed:
    return await shown(driver, driver.world.key, has_ended)


@pytest.mark.parametrize("code", [10, 11, 12])
async def test_a_users_error_is_final(driver: LocalDriver, code: int) -> None:
    await trains(driver)
    driver.script.ends(code, "")
    seen = await ended(driver)
    assert seen.trainings[0].ending is Ending.NEVER_RETRIED
    assert [a.exit_code for a in seen.attempts] == [code]


@pytest.mark.parametrize("code", [1, 20, 21, 137])
async def test_any_other_failure_is_tried_again_up_to_the_backoff_limit(driver: LocalDriver, code: int) -> None:
    driver.script.ends(code, "")
    driver.script.ends(code, "")
    await started(driver, await driver.apply(backoffLimit=1))
    seen = await ended(driver)
    assert seen.trainings[0].ending is Ending.BACKOFF_LIMIT_EXCEEDED
    assert [a.exit_code for a in seen.attempts] == [code, code]


async def test_a_deadline_lets_the_attempt_save_and_ends_the_training(driver: LocalDriver) -> None:
    start = await trains(driver, activeDeadlineSeconds=3600)
    [training] = (await driver.world.observe(driver.world.key)).trainings
    sooner = replace(start.limits, active_deadline_seconds=1)
    await driver.world.act(driver.world.key, ChangeLimits(start.name, training.uid, sooner))
    seen = await ended(driver)
    assert seen.trainings[0].ending is Ending.DEADLINE_EXCEEDED
    assert [a.exit_code for a in seen.attempts] == [30]
    assert driver.lines[-1].endswith("is saved.")


async def test_an_attempt_told_to_stop_is_told_once(driver: LocalDriver) -> None:
    start = await trains(driver)
    [training] = (await driver.world.observe(driver.world.key)).trainings
    await driver.world.act(driver.world.key, StopTraining(start.name, training.uid))
    await driver.world.act(driver.world.key, StopTraining(start.name, training.uid))
    seen = await shown(driver, driver.world.key, lambda s: not s.trainings)
    assert [a.exit_code for a in seen.attempts] == [30], "a second signal would have ended it with 143, unsaved"


async def test_stopping_leaves_the_record_of_earlier_attempts_alone(driver: LocalDriver) -> None:
    driver.script.ends(1, "")
    start = await trains(driver)
    await shown(driver, driver.world.key, lambda s: len(s.attempts) == 2)
    [training] = (await driver.world.observe(driver.world.key)).trainings
    await driver.world.act(driver.world.key, StopTraining(start.name, training.uid))
    seen = await shown(driver, driver.world.key, lambda s: not s.trainings)
    assert [a.deleting for a in seen.attempts] == [False, True]


async def test_kill_ends_an_attempt_that_does_not_hear(driver: LocalDriver) -> None:
    driver.script.is_deaf()
    start = await trains(driver)
    [training] = (await driver.world.observe(driver.world.key)).trainings
    await driver.world.act(driver.world.key, StopTraining(start.name, training.uid))
    await asyncio.sleep(0.3)
    assert driver.script.pid is not None and runs(driver.script.pid)
    driver.world.kill()
    seen = await shown(driver, driver.world.key, lambda s: not s.trainings)
    assert [a.exit_code for a in seen.attempts] == [137]
    assert not runs(driver.script.pid)


async def test_a_run_that_is_being_trained_is_refused_to_another_world_and_free_afterwards(driver: LocalDriver) -> None:
    start = await trains(driver)
    other = driver.another_world("another-name")
    again = replace(start, name="another-name-r")
    refusal = await other.act(other.key, again)
    assert isinstance(refusal, Refusal)
    assert (refusal.reason, refusal.field) == (FailureReason.OUTPUT_CONFLICT, "spec.output.uri")
    assert f"is training {start.run.run.uri} right now" in refusal.message
    driver.script.ends(0, "")
    await ended(driver)
    assert await other.act(other.key, again) is None
    await other.close()


async def test_nothing_is_left_behind_but_an_empty_lock_file(driver: LocalDriver) -> None:
    await trains(driver)
    await until(lambda: len(driver.left_behind()) > 1)  # otherwise there is nothing to clean up
    driver.script.ends(0, "")
    await ended(driver)
    assert driver.left_behind() == ["lock"]


@pytest.mark.parametrize("elsewhere", ["", "setsid"])
async def test_a_process_that_a_trainer_leaves_behind_holds_nothing_up(
    driver: LocalDriver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, elsewhere: str
) -> None:
    monkeypatch.setattr("finetune_operator.worlds.local.process.LAST_OUTPUT_SECONDS", 0.5)
    leave_one = f"{elsewhere} sleep 60 & echo $! > {tmp_path}/left; sleep 0.5; exit 11"
    driver.trainer = ("sh", "-c", leave_one)
    await driver.apply()
    await started(driver, driver.world.key)
    seen = await ended(driver)
    assert [a.exit_code for a in seen.attempts] == [11]
    left = int((tmp_path / "left").read_text())
    if elsewhere:
        os.kill(left, signal.SIGKILL)
    else:
        assert not runs(left), "what is in the trainer's session ends with it"


async def test_a_trainer_without_last_words_is_quoted_by_the_end_of_its_log(driver: LocalDriver) -> None:
    driver.trainer = ("sh", "-c", "echo one; echo libfoo.so is missing; exit 12")
    await driver.apply()
    status = await reconciled(driver, driver.world.key, lambda s: s.phase == "Failed")
    assert "the last line of its log: libfoo.so is missing" in (status.message or "")


async def test_endless_lines_of_a_progress_bar_neither_hang_the_trainer_nor_flood_the_log(driver: LocalDriver) -> None:
    noise = "import sys; sys.stdout.write('x' * 3_000_000 + chr(10) + '1%' + chr(13) + '100%' + chr(10)); sys.exit(10)"
    driver.trainer = (driver.script.trainer[0], "-c", noise)
    await driver.apply()
    await started(driver, driver.world.key)
    await ended(driver)
    assert driver.lines[-1] == "100%"
    assert max(map(len, driver.lines)) < 2_000_000


async def test_a_trainer_that_cannot_be_started_is_said_at_once(driver: LocalDriver) -> None:
    driver.trainer = ("/nowhere/trainer",)
    await driver.apply()
    async with asyncio.timeout(HEARING / 2):  # no attempt is waited for
        status = await reconciled(driver, driver.world.key, lambda s: s.phase == "Failed")
    assert "the trainer cannot be run: [Errno 2] No such file or directory: '/nowhere/trainer'" in (
        status.message or ""
    )


async def test_progress_is_the_newest_whole_line(driver: LocalDriver) -> None:
    await trains(driver)
    await until(lambda: driver.world.progress() is not None)
    progress = driver.world.progress()
    assert progress is not None
    [file] = driver.state.rglob("progress.jsonl")
    with file.open("a") as half_written:
        half_written.write('{"trainerStatus": {"pro')
    newer = driver.world.progress()
    assert newer is not None and (newer.metric("step") or 0) >= (progress.metric("step") or 0)


# ------------------------------------------------------------------------------------------------- out of memory


@pytest.mark.parametrize(("after", "out_of_memory"), [(3, False), (4, True)])
async def test_a_kill_is_out_of_memory_when_the_kernel_counts_one_more(
    driver: LocalDriver, monkeypatch: pytest.MonkeyPatch, after: int, out_of_memory: bool
) -> None:
    counts = iter([3, after])
    monkeypatch.setattr("finetune_operator.worlds.local.process.out_of_memory_kills", lambda: next(counts))
    driver.script.ends(137)
    await started(driver, await driver.apply(backoffLimit=0))
    seen = await ended(driver)
    assert [(a.exit_code, a.out_of_memory) for a in seen.attempts] == [(137, out_of_memory)]


MEMBERSHIPS = {
    "cgroup v2": ("0::/user/me\n", "sys/fs/cgroup/user/me/memory.events"),
    "cgroup v2, in a container that sees the host's path": ("0::/host/path\n", "sys/fs/cgroup/memory.events"),
    "cgroup v1": ("5:cpu:/me\n4:memory:/me\n0::/\n", "sys/fs/cgroup/memory/me/memory.oom_control"),
    "no cgroup": ("0::/\n", "proc/vmstat"),
}


@pytest.mark.parametrize("where", MEMBERSHIPS)
def test_the_nearest_counter_of_kills_for_memory_is_read(tmp_path: Path, where: str) -> None:
    membership, counter = MEMBERSHIPS[where]
    for file, text in {
        "proc/self/cgroup": membership,
        "proc/vmstat": "oom_kill 9\n",
        counter: "oom 1\noom_kill 2\n",
    }.items():
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text(text)
    assert out_of_memory_kills(tmp_path) == 2


def test_where_no_kernel_counts_there_were_no_kills(tmp_path: Path) -> None:
    assert out_of_memory_kills(tmp_path) == 0


async def test_a_spec_that_no_environment_can_hold_is_as_invalid_as_in_a_cluster(driver: LocalDriver) -> None:
    labels = [f"{n:0100d}" for n in range(1000)]
    key = await driver.apply(dataset={"uri": "s3://data/topics", "labels": labels})
    status = await reconciled(driver, key, lambda s: s.phase == "Failed")
    assert status.reason == "InvalidSpec"
    assert not driver.left_behind()
