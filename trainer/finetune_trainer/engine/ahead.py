"""Making what comes next while the present is worked on: images are decoded in threads beside the steps.

What a feature is depends on its index and its draw alone, so who makes it, and when, changes nothing.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from itertools import islice
from typing import TypeVar

A = TypeVar("A")
B = TypeVar("B")

AHEAD = 2
"""Batches that are begun before they are asked for: one may take longer than a step as long as they do not in the mean."""
MOST_THREADS = 16
"""More threads than this wait for Python's lock."""


@contextmanager
def made(batches: Iterable[Sequence[A]], make: Callable[[A], B], *, threads: int) -> Iterator[Iterator[list[B]]]:
    """For each batch what `make` makes of its members, in order. With `threads` of them `AHEAD` batches before they are asked for; without
    any when they are. An error of `make` is raised where its batch would come; what is not needed any more at the end is not made."""
    iterator = _in_threads(batches, make, threads) if threads else _when_asked(batches, make)
    with closing(iterator):
        yield iterator


def _when_asked(batches: Iterable[Sequence[A]], make: Callable[[A], B]) -> Generator[list[B], None, None]:
    for batch in batches:
        yield [make(one) for one in batch]


def _in_threads(batches: Iterable[Sequence[A]], make: Callable[[A], B], threads: int) -> Generator[list[B], None, None]:
    coming = iter(batches)
    waiting: deque[list[Future[B]]] = deque()
    with ThreadPoolExecutor(min(threads, MOST_THREADS), "ahead") as pool:

        def begin(count: int) -> None:
            waiting.extend([pool.submit(make, one) for one in batch] for batch in islice(coming, count))

        try:
            begin(AHEAD)
            while waiting:
                begin(1)
                yield [one.result() for one in waiting.popleft()]
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
