"""Waiting for what a real server does in its own time."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def eventually(look: Callable[[], T | None], seconds: float = 20) -> T:
    """What `look` returns once it is truthy. Raises AssertionError with its last answer when the time is over."""
    deadline = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < deadline, f"not seen within {seconds:.0f} s; last answer: {found!r}"
        time.sleep(0.05)
    return found
