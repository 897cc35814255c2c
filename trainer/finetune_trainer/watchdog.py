"""What ends an attempt in which nothing goes on any more, having left the stacks of all threads in its log.

Signs of life are reports, and looks at whether to stop, which all that takes long has between its parts. A thread watches for them. Where some
library keeps even that from running, one of faulthandler's, which needs no interpreter, does the least a little later; and where the whole
process stands still, whoever started it has to.
"""

from __future__ import annotations

import faulthandler
import os
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TextIO

from finetune_api.exit_codes import ExitCode
from finetune_api.failures import FailureReason, JobError
from finetune_trainer.log import logger
from finetune_trainer.progress import TOLD_EACH

LAST_RESORT = 30.0
"""Seconds that an attempt has to leave word of its end, and to upload its log, before it is ended without."""
LONGEST_LOOK = 5.0


class Watchdog:
    """Watches from `start` to `stop`. Without a deadline it does nothing."""

    def __init__(
        self,
        deadline: int | None,
        log: Path,
        *,
        alive: Callable[[], float],
        tell: Callable[[], None],
        give_up: Callable[[JobError], None],
        code: ExitCode = ExitCode.NO_PROGRESS,
    ) -> None:
        """`deadline` is in seconds, `log` gets the stacks. `alive` is when there last was a sign of life, by the monotonic clock; `tell` lets the
        outside know that there are; `give_up` leaves word of the end, after which the process ends with `code`."""
        self._deadline, self._log = deadline, log
        self._alive, self._tell, self._give_up, self._code = alive, tell, give_up, code
        self._over = threading.Event()

    def start(self) -> None:
        if self._deadline is not None:
            file = self._log.open("a")
            self._arm(self._deadline, file)
            threading.Thread(target=self._watch, args=(self._deadline, file), name="watchdog", daemon=True).start()

    def stop(self) -> None:
        """How the attempt ends is decided."""
        self._over.set()
        if self._deadline is not None:
            faulthandler.cancel_dump_traceback_later()

    @staticmethod
    def _arm(deadline: float, file: TextIO) -> None:
        """Against what keeps even this thread from running; anew each time that it does run."""
        faulthandler.dump_traceback_later(deadline + LAST_RESORT, exit=True, file=file)

    def _watch(self, deadline: float, file: TextIO) -> None:
        look = min(LONGEST_LOOK, deadline / 10)
        stood_still = told = looked = time.monotonic()
        with file:
            while not self._over.wait(look):
                self._arm(deadline, file)
                now = time.monotonic()
                if now - looked > look + deadline / 2:  # nothing ran at all, such as in a machine that was stopped
                    stood_still = now
                looked = now
                last = max(self._alive(), stood_still)
                if now - last > deadline:
                    self._end(now - last)
                if now - told > deadline / TOLD_EACH and last > told:
                    told = now
                    self._tell()
            faulthandler.cancel_dump_traceback_later()  # which `stop` may have come too early for

    def _end(self, idle: float) -> None:
        if self._over.is_set():
            return
        faulthandler.dump_traceback_later(LAST_RESORT, exit=True)
        try:
            logger.error("No sign of progress for %.0f s. What each thread does:", idle)
            for name in (self._log, None):
                with suppress(OSError, ValueError):
                    self._dump(name)
            said = f"there was no sign of progress for {idle:.0f} seconds, and spec.progressDeadlineSeconds allows {self._deadline}"
            self._give_up(JobError(FailureReason.TRAINING_STALLED, said, field="spec.progressDeadlineSeconds"))
        finally:
            for stream in (sys.stdout, sys.stderr):
                with suppress(OSError, ValueError):
                    stream.flush()
            os._exit(self._code)

    @staticmethod
    def _dump(log: Path | None) -> None:
        if log is None:
            faulthandler.dump_traceback(sys.stdout)
            return
        with log.open("a") as file:
            faulthandler.dump_traceback(file)
