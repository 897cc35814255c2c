"""Waiting for what another thread does, and being interrupted while waiting."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager


def eventually(holds: Callable[[], bool], seconds: float = 20) -> None:
    """Returns once `holds()`; fails when it does not within `seconds`."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.02)


class Interrupted(BaseException):
    pass


@contextmanager
def interrupted(after: float) -> Iterator[None]:
    """A signal comes `after` seconds, whose handler raises Interrupted."""

    def interrupt(number: int, frame: object) -> None:
        raise Interrupted

    former = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, after)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, former)
