"""A time that passes as fast as nothing happens in it: how long something takes is exact, however busy the machine is.

It is for what waits for nothing but time: a socket's other end lives in another one.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from typing import Any


class PatientLoop(asyncio.SelectorEventLoop):
    """Its time is that of the next thing to happen."""

    def __init__(self) -> None:
        super().__init__(Jumping(self))
        self.now = 1000.0

    def time(self) -> float:
        return self.now


class Jumping(selectors.DefaultSelector):
    def __init__(self, loop: PatientLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> Any:
        found = super().select(0)
        if not found and timeout is not None:
            self._loop.now += max(timeout, 1e-4)
        return found


def lived(story: Callable[[], Coroutine[Any, Any, None]]) -> None:
    with asyncio.Runner(loop_factory=PatientLoop) as runner:
        runner.run(story())
