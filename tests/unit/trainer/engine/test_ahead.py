"""Batches come in order and are made beside the work on those before, never further ahead than said."""

import itertools
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from finetune_trainer.engine.ahead import AHEAD, made

BATCHES = [[0, 1, 2], [3], [], [4, 5], [6, 7, 8, 9]]


def test_batches_come_in_order_whichever_was_made_first() -> None:
    def make(number: int) -> int:
        time.sleep(0.002 * (9 - number))
        return number * 10

    for threads in (0, 1, 3):
        with made(BATCHES, make, threads=threads) as batches:
            assert list(batches) == [[n * 10 for n in batch] for batch in BATCHES]


def test_the_next_batches_are_made_while_one_is_worked_on_and_no_more() -> None:
    """An order of training has no end."""
    begun = threading.Semaphore(0)

    def make(number: int) -> int:
        begun.release()
        return number

    forever: Iterator[list[int]] = ([number] for number in itertools.count())
    with made(forever, make, threads=2) as batches:
        for number in range(5):
            assert next(batches) == [number]
        for _ in range(5 + AHEAD):
            assert begun.acquire(timeout=10)
        assert not begun.acquire(timeout=0.05)


def test_without_threads_nothing_is_made_before_it_is_asked_for() -> None:
    asked: list[int] = []
    with made([[1, 2], [3]], asked.append, threads=0) as batches:
        assert not asked
        next(batches)
        assert asked == [1, 2]


@pytest.mark.parametrize("threads", [0, 2])
def test_an_error_comes_where_its_batch_would(threads: int) -> None:
    def make(number: int) -> int:
        if number == 5:
            raise ValueError("five")
        return number

    with made(BATCHES, make, threads=threads) as batches:
        assert [next(batches), next(batches), next(batches)] == [[0, 1, 2], [3], []]
        with pytest.raises(ValueError, match="five"):
            next(batches)


def test_what_is_not_needed_any_more_is_not_made(monkeypatch: pytest.MonkeyPatch) -> None:
    count, over = itertools.count(), threading.Event()
    shut_down = ThreadPoolExecutor.shutdown

    def end(pool: ThreadPoolExecutor, **how: bool) -> None:
        shut_down(pool, **how)
        over.set()

    monkeypatch.setattr(ThreadPoolExecutor, "shutdown", end)

    def make(number: int) -> int:
        made_before = next(count)
        assert made_before < 50 or over.wait(60)
        return made_before

    with made([list(range(50))] * 10, make, threads=2) as batches:
        next(batches)
    assert next(count) <= 50 + 2, "what was in hand"
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("ahead")]
