"""What `finetune run` shows while it runs: a live bar in a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress as Bar, TaskID, TextColumn

from finetune_api.progress import Progress, TrainerPhase

PLAIN_LINE_SECONDS = 10.0


class Display(Protocol):
    def line(self, text: str) -> None:
        """A line of the trainer's log."""
        ...

    def update(self, progress: Progress) -> None:
        """The newest progress."""
        ...

    def close(self) -> None: ...


def open_display(console: Console) -> Display:
    """The display that fits where the output goes."""
    return LiveDisplay(console) if console.is_terminal else PlainDisplay(console)


def describe(progress: Progress) -> str:
    """`step 120 of 840 · epoch 0.4 · loss 0.512 · f1 0.871 · 31 samples/s · 2m left`: what of it is known."""
    parts = []
    step, total = progress.metric("step"), progress.metric("total_steps")
    if step is not None:
        parts.append(f"step {step:.0f}" + (f" of {total:.0f}" if total else ""))
    for name, text in (("epoch", "epoch {:.1f}"), ("loss", "loss {:.3f}"), ("samples_per_second", "{:.0f} samples/s")):
        value = progress.metric(name)
        if value is not None:
            parts.append(text.format(value))
    for metric in progress.trainer_status.metrics:
        if metric.name.startswith("eval_") and metric.name != "eval_loss":
            parts.append(f"{metric.name.removeprefix('eval_')} {float(metric.value):.3f}")
            break
    remaining = progress.trainer_status.estimated_remaining_seconds
    if remaining is not None and progress.phase is TrainerPhase.TRAINING:
        parts.append(f"{duration(remaining)} left")
    return " · ".join(parts) or progress.message


def duration(seconds: float) -> str:
    """`8s`, `2m 5s`, `1h 3m`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m {whole % 60}s"
    return f"{whole // 3600}h {whole % 3600 // 60}m"


class PlainDisplay:
    """One line now and then, for logs and pipes."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._shown = 0.0

    def line(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def update(self, progress: Progress) -> None:
        now = time.monotonic()
        if progress.phase is TrainerPhase.TRAINING and now - self._shown >= PLAIN_LINE_SECONDS:
            self._shown = now
            percent = progress.trainer_status.progress_percentage
            self.line(f"{'' if percent is None else f'{percent:3d} % · '}{describe(progress)}")

    def close(self) -> None: ...


class LiveDisplay:
    """A bar that stays at the bottom while log lines scroll by above it."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bar = Bar(
            TextColumn("[bold]{task.fields[phase]}"),
            BarColumn(bar_width=30),
            TextColumn("{task.percentage:>3.0f}%"),
            TextColumn("{task.description}", markup=False),
            console=console,
            transient=True,
        )
        self._task: TaskID = self._bar.add_task("", total=None, phase="Starting")
        self._bar.start()

    def line(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def update(self, progress: Progress) -> None:
        percent = progress.trainer_status.progress_percentage
        self._bar.update(
            self._task,
            total=100 if percent is not None else None,
            completed=percent or 0,
            description=describe(progress),
            phase=progress.phase.value,
        )

    def close(self) -> None:
        self._bar.stop()
