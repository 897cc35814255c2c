"""Being told to stop: SIGTERM and SIGINT, served at once everywhere but where something must first be finished.

Outside of `finishing()` the signal raises `Preempted` in the main thread wherever it is, as Ctrl-C would: in an import, a download,
the tokenizer or an evaluation. Inside, whoever works there looks at `requested` and ends when its work is safe.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

EXIT_PREEMPTED = 30
"""`ExitCode.PREEMPTED`, written out so that this module imports nothing that takes time; a test keeps them equal."""


ECHO_SECONDS = 1.0
"""Equal signals within this time are one: a parent of several threads may announce its death once for each of them."""


class Preempted(BaseException):
    """Told to stop. Not an Exception: nothing that handles errors should take it for one."""


class StopSignal:
    """Whether this process was told to stop. One object a process."""

    def __init__(self) -> None:
        self.requested = False
        self._reason: BaseException = Preempted()
        self.told = False
        """Whether it was a signal that asked. `request` may have another reason."""
        self.has_unsaved_steps: Callable[[], bool] = lambda: False
        """Whether there are optimiser steps that no complete checkpoint holds; whoever trains knows."""
        self.looked = time.monotonic()
        """When somebody last looked at whether to stop, as all do that get on."""
        self._finishing = 0
        self._number: int | None = None
        self._told_at = 0.0

    def install(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._serve)

    def check(self) -> None:
        """Raise Preempted if told to stop, or what `request` was given. Any thread may ask."""
        self.looked = time.monotonic()
        if self.requested:
            raise self._reason

    def request(self, reason: BaseException) -> None:
        """Stop for `reason` at the next look at `requested` or `check`. Any thread may ask; it interrupts nothing."""
        if not self.requested:
            self._reason = reason
            self.requested = True

    @contextmanager
    def finishing(self) -> Iterator[None]:
        """Within, a signal only sets `requested`; who leaves normally goes on, and the next `check()` raises."""
        self._finishing += 1
        try:
            yield
        finally:
            self._finishing -= 1

    def disarm(self) -> None:
        """How this process ends is decided: from now on a signal only sets `requested`."""
        self._finishing += 1

    def _serve(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if self.told:
            if number == self._number and now - self._told_at < ECHO_SECONDS:
                return
            # The second signal: whoever sends it does not want to wait, not even for a save.
            os._exit(128 + number if self.has_unsaved_steps() else EXIT_PREEMPTED)
        self.told = self.requested = True
        self._number, self._told_at = number, now
        if not self._finishing:
            raise Preempted
