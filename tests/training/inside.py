"""An attempt inside the test's own process: it waits for no imports, and a signal can come at an exact moment.

All of it is real but the drawing of the report's plots, which would take half of the time.
"""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from unittest import mock

from finetune_api.progress import Progress
from finetune_api.result import Result
from finetune_trainer.attempt import Attempt
from finetune_trainer.log import logger
from finetune_trainer.progress import Reporter
from finetune_trainer.stop import StopSignal
from tests.training.attempts import Job

BLANK = b'<svg viewBox="0 0 1 1"></svg>'
"""What stands for each plot."""

Moment = Callable[[Progress], bool]


def tell_to_stop() -> None:
    """A real SIGTERM to this process, which must be making an attempt."""
    os.kill(os.getpid(), signal.SIGTERM)


@dataclass(frozen=True)
class Ended:
    """An attempt that is over."""

    result: Result
    log: str


def attempt_inside(job: Job, *, told_at: Moment = lambda progress: False) -> Ended:
    """Make the next attempt at `job`, on an empty disk and with one thread. SIGTERM comes at the first report that `told_at` is true of."""
    folder = job.next_folder()
    stop = StopSignal()
    seconds = count()  # to this clock each look is a second later, so every step is reported
    reporter = Reporter(_Telling(told_at), clock=lambda: float(next(seconds)))
    with _process_of_its_own(stop, folder / "log.txt"):
        attempt = Attempt(job.run, folder, reporter, stop)
        result = attempt.run()
        attempt.leave(result)
    return Ended(result, (folder / "log.txt").read_text())


def complete_inside(job: Job) -> Ended:
    """An attempt that nobody disturbs; it must succeed."""
    ended = attempt_inside(job)
    assert ended.result.outcome == "succeeded", ended.log
    return ended


def at_step(step: int) -> Moment:
    """Right after this optimiser step, before its evaluation and save."""
    return lambda progress: progress.metric("step") == step


class _Telling:
    """A sink that sends the signal."""

    def __init__(self, told_at: Moment) -> None:
        self._told_at = told_at
        self._told = False

    def send(self, progress: Progress) -> None:
        if not self._told and self._told_at(progress):
            self._told = True
            tell_to_stop()

    def close(self) -> None:
        pass


@contextmanager
def _process_of_its_own(stop: StopSignal, log: Path) -> Iterator[None]:
    """Signals, environment, threads and log as an attempt wants them, and afterwards as they were."""
    import torch

    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    environment, threads = dict(os.environ), torch.get_num_threads()
    handler = logging.FileHandler(log, encoding="utf-8")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    stop.install()
    try:
        with mock.patch("matplotlib.figure.Figure.savefig", lambda figure, file, **_: file.write(BLANK)):
            yield
    finally:
        for number, former in handlers.items():
            signal.signal(number, former)
        logger.removeHandler(handler)
        logger.setLevel(level)
        handler.close()
        os.environ.clear()
        os.environ.update(environment)
        torch.set_num_threads(threads)
