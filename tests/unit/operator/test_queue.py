"""The work queue: every change is worked on, nothing twice at a time."""

from __future__ import annotations

import asyncio

import pytest

from finetune_operator import queue as queue_module
from finetune_operator.queue import WorkQueue
from tests.unit.operator.patience import lived
from tests.unit.operator.waiting import until


async def all_waiting(queue: WorkQueue[str]) -> list[str]:
    found = []
    while len(queue):
        key = await queue.get()
        queue.done(key)
        found.append(key)
    return found


async def test_a_key_added_many_times_is_worked_on_once() -> None:
    queue: WorkQueue[str] = WorkQueue()
    for key in ("a", "b", "a", "a"):
        queue.add(key)
    assert await all_waiting(queue) == ["a", "b"]


async def test_a_key_added_while_in_hand_comes_again_only_after_it_is_done() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add("a")
    key = await queue.get()
    queue.add("a")
    assert len(queue) == 0
    queue.done(key)
    assert await all_waiting(queue) == ["a"]


async def test_no_key_is_ever_in_two_hands() -> None:
    queue: WorkQueue[int] = WorkQueue()
    in_hand: set[int] = set()
    worked = 0

    async def work() -> None:
        nonlocal worked
        while True:
            key = await queue.get()
            assert key not in in_hand
            in_hand.add(key)
            await asyncio.sleep(0)
            in_hand.discard(key)
            queue.done(key)
            worked += 1

    workers = [asyncio.create_task(work()) for _ in range(8)]
    for round_ in range(200):
        queue.add(round_ % 3)
        if round_ % 7 == 0:
            await asyncio.sleep(0)
    await until(lambda: worked >= 3 and len(queue) == 0)
    for worker in workers:
        assert not worker.done()
        worker.cancel()


def test_a_delayed_key_comes_when_its_time_has_come_and_the_earliest_time_counts() -> None:
    async def story() -> None:
        queue: WorkQueue[str] = WorkQueue()
        queue.add_after("late", 30)
        queue.add_after("a", 30)
        queue.add_after("a", 0.02)
        queue.add_after("a", 60)
        assert len(queue) == 0
        assert await asyncio.wait_for(queue.get(), 1) == "a"
        queue.done("a")
        assert len(queue) == 0

    lived(story)


async def test_back_off_doubles_with_jitter_up_to_its_cap_and_starts_over_after_success(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(queue_module.random, "uniform", lambda low, high: high)
    queue: WorkQueue[str] = WorkQueue()
    delays = [queue.add_failed("a") for _ in range(12)]
    assert delays[:4] == [0.5, 1.0, 2.0, 4.0]
    assert delays[-1] == queue_module.LONGEST_DELAY
    queue.succeeded("a")
    assert queue.add_failed("a") == 0.5


def test_back_off_of_one_key_holds_no_other_back() -> None:
    async def story() -> None:
        queue: WorkQueue[str] = WorkQueue()
        for _ in range(5):
            queue.add_failed("broken")
        queue.add("fine")
        assert await asyncio.wait_for(queue.get(), 0.1) == "fine"

    lived(story)


async def test_jitter_spreads_the_retries_of_many_keys() -> None:
    queue: WorkQueue[int] = WorkQueue()
    delays = {round(queue.add_failed(key), 6) for key in range(50)}
    assert len(delays) > 40
    assert all(0.25 <= delay <= 0.5 for delay in delays)


def test_draining_hands_out_nothing_more_and_waits_for_what_is_in_hand() -> None:
    async def story() -> None:
        queue: WorkQueue[str] = WorkQueue()
        queue.add("a")
        queue.add("b")
        key = await queue.get()
        drained = asyncio.create_task(queue.drain())
        await asyncio.sleep(60)
        assert not drained.done()
        queue.done(key)
        await asyncio.wait_for(drained, 1)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(queue.get(), 60)

    lived(story)
