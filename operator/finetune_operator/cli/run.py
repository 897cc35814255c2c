"""`finetune run`: one job on this machine, by the same rules as in a cluster."""

from __future__ import annotations

import asyncio
import shlex
import signal
import sys
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any
from urllib.parse import unquote

from rich.console import Console

from finetune_api.failures import FailureReason
from finetune_api.status import FineTuneJobStatus, Phase
from finetune_operator.cli.display import Display, duration, open_display
from finetune_operator.reconcile import reconcile
from finetune_operator.worlds.local import LocalWorld

DONE, FAILED, SUSPENDED = 0, 1, 130
"""Exit codes of `finetune run`; a wrong manifest or option is 2, as everywhere in the command."""

REFRESH_SECONDS = 0.25


def run(name: str, spec: Mapping[str, Any], console: Console, command: list[str]) -> int:
    """Run the job to its end, or until Ctrl-C suspends it; `command` is how to call this again. Returns the exit code."""
    display = open_display(console)
    try:
        status = asyncio.run(_drive(LocalWorld(name, spec, on_line=display.line), display))
    finally:
        display.close()
    return _conclude(name, status, console, command)


async def _drive(world: LocalWorld, display: Display) -> FineTuneJobStatus:
    """Reconcile whenever something changes, until the job is finished or suspended."""
    _suspend_on_signals(world, display)
    showing = asyncio.create_task(_show(world, display))
    try:
        while True:
            recheck = await reconcile(world, world.key, datetime.now(UTC))
            status = (await world.observe(world.key)).job.status  # type: ignore[union-attr]
            if status.phase in (Phase.SUCCEEDED, Phase.FAILED) or (
                status.phase is Phase.SUSPENDED and not (await world.observe(world.key)).trainings
            ):
                return status
            with suppress(TimeoutError):
                await asyncio.wait_for(anext(world.changes()), recheck)
    finally:
        showing.cancel()


def _suspend_on_signals(world: LocalWorld, display: Display) -> None:
    """The first signal saves and suspends, a second one kills."""
    asked = False

    def interrupt() -> None:
        nonlocal asked
        if asked:
            display.line("Killed. What was saved before stays.")
            world.kill()
        else:
            asked = True
            display.line("Saving, then stopping. Press Ctrl-C again to stop at once.")
            world.edit(suspend=True)

    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, interrupt)


async def _show(world: LocalWorld, display: Display) -> None:
    while True:
        progress = world.progress()
        if progress is not None:
            display.update(progress)
        await asyncio.sleep(REFRESH_SECONDS)


def _conclude(name: str, status: FineTuneJobStatus, console: Console, command: list[str]) -> int:
    """Say how it ended and what comes next."""

    def say(text: str = "") -> None:
        console.print(text, markup=False, highlight=False, soft_wrap=True)

    say()
    if status.phase is Phase.SUCCEEDED:
        took = ""
        if status.start_time and status.completion_time:
            took = f" in {duration((status.completion_time - status.start_time).total_seconds())}"
        say(f"✓ {name} succeeded{took}")
        if status.message:
            say(f"  {status.message}")
        for metric in status.metrics or []:
            before = "      " if metric.baseline is None else f"{metric.baseline:.3f} →"
            say(f"  {metric.name:<10} {metric.split:<11} {before} {metric.value:.3f}")
        if status.artifacts:
            say(f"  report     {as_path(status.artifacts.report_uri)}")
            say(f"  model      {as_path(status.artifacts.model_uri)}")
        return DONE
    if status.phase is Phase.FAILED:
        failure = status.failure
        say(f"✗ {name} failed: {failure.reason.value if failure else FailureReason.INTERNAL.value}")
        if failure:
            say(f"  {failure.message}")
            say(f"  What to do: {failure.remedy}")
            if failure.log_uri:
                say(f"  Log: {as_path(failure.log_uri)}")
        return FAILED
    say(f"‖ {name} is suspended; what it has learned is saved. To go on:")
    say(f"  {shlex.join(command)}")
    return SUSPENDED


def as_path(uri: str) -> str:
    """A `file:///` URI as the path that people can open; any other URI as it is."""
    return unquote(uri.removeprefix("file://")) if uri.startswith("file:///") else uri


def command_line() -> list[str]:
    """How this process was called, in a form that can be pasted."""
    return ["finetune", *sys.argv[1:]]
