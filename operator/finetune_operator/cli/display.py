"""What `finetune run` shows while it runs: a live bar in a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress as Bar, TaskID, TextColumn
from rich.table import Column

from finetune_api.progress import Progress, TrainerPhase

PLAIN_LINE_SECONDS = 10.0
ROOM_FOR_BAR = 100
"""Columns of a terminal below which the numbers get the room of the bar."""


class Display(Protocol):
    def line(self, text: str) -> None:
        """A line of the trainer's log."""
        ...

    def update(self, progress: Progress) -> None:
        """The newest progress, again and again."""
        ...


@contextmanager
def open_display(console: Console) -> Iterator[Display]:
    """The display that fits where the output goes."""
    if not console.is_interactive:
        yield PlainDisplay(console)
        return
    live = LiveDisplay(console)
    with live.bar:
        yield live


def describe(progress: Progress) -> str:
    """`step 120 of 840 · 2m 5s left · loss 0.512 · f1 0.871 · epoch 0.4 · 31 samples/s`: what of it is known, after what the phase says."""
    parts = []
    step, total = progress.metric("step"), progress.metric("total_steps")
    if step is not None:
        parts.append(f"step {step:.0f}" + (f" of {total:.0f}" if total else ""))
    remaining = progress.trainer_status.estimated_remaining_seconds
    if remaining is not None and progress.phase is TrainerPhase.TRAINING:
        parts.append(f"{duration(remaining)} left")
    loss = progress.metric("loss")
    if loss is not None:
        parts.append(f"loss {loss:.3f}")
    # The first is the one that the best model is chosen by.
    for metric in progress.trainer_status.metrics:
        if metric.name.startswith("eval_") and metric.name != "eval_loss":
            parts.append(f"{metric.name.removeprefix('eval_')} {float(metric.value):.3f}")
            break
    epoch, rate = progress.metric("epoch"), progress.metric("samples_per_second")
    if epoch is not None:
        parts.append(f"epoch {epoch:.1f}")
    if rate is not None:
        parts.append(f"{rate:.0f} samples/s" if rate >= 10 else f"{rate:.2g} samples/s")
    return " · ".join(filter(None, [progress.message, *parts]))


def duration(seconds: float) -> str:
    """`8s`, `2m 5s`, `1h 3m`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m {whole % 60}s"
    return f"{whole // 3600}h {whole % 3600 // 60}m"


def write_line(console: Console, text: str) -> None:
    """`text` as it is: no markup, no colours of its own, and broken only by the terminal, so that it can be copied whole."""
    console.print(text, markup=False, highlight=False, emoji=False, soft_wrap=True)


class PlainDisplay:
    """The log, and a line about progress now and then, for files and pipes."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._last: Progress | None = None
        self._next = 0.0

    def line(self, text: str) -> None:
        write_line(self._console, text)

    def update(self, progress: Progress) -> None:
        now = time.monotonic()
        training = progress.phase is TrainerPhase.TRAINING and progress.metric("step") is not None
        if training and progress != self._last and now >= self._next:
            self._last, self._next = progress, now + PLAIN_LINE_SECONDS
            percent = progress.trainer_status.progress_percentage
            self.line(f"{'' if percent is None else f'{percent} % · '}{describe(progress)}")


class LiveDisplay:
    """A bar that stays at the bottom, on one line however narrow the terminal is, while the log scrolls by above it."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self.bar = Bar(
            TextColumn("[bold]{task.fields[phase]}", table_column=Column(no_wrap=True)),
            *([BarColumn(bar_width=24)] if console.width >= ROOM_FOR_BAR else []),
            TextColumn("{task.percentage:>3.0f}%", table_column=Column(no_wrap=True)),
            TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True, ratio=1)),
            console=console,
            transient=True,
            expand=True,
        )
        self._task: TaskID = self.bar.add_task("", total=None, phase="Starting")

    def line(self, text: str) -> None:
        write_line(self._console, text)

    def update(self, progress: Progress) -> None:
        percent = progress.trainer_status.progress_percentage
        self.bar.update(
            self._task,
            total=None if percent is None else 100,
            completed=percent or 0,
            description=describe(progress),
            phase=progress.phase.value,
        )
