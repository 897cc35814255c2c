"""`finetune run`: one job on this machine, by the same rules as in a cluster."""

from __future__ import annotations

import asyncio
import shlex
import shutil
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from typing import Any

from rich.console import Console

from finetune_api.failures import FailureReason
from finetune_api.status import Failure, FineTuneJobStatus, Phase
from finetune_operator.cli.display import Display, duration, open_display, write_line
from finetune_operator.cli.paths import as_path
from finetune_operator.decide.attempts import result_of
from finetune_operator.reconcile import reconcile
from finetune_operator.worlds.local import TRAINER, LocalWorld

DONE, FAILED, NOT_ACCEPTED, SUSPENDED = 0, 1, 3, 130
"""Exit codes of `finetune run`; a wrong manifest or option is 2, as everywhere in the command."""

REFRESH_SECONDS = 0.25

Say = Callable[[str], None]


def run(
    name: str, spec: Mapping[str, Any], console: Console, command: list[str], trainer: Sequence[str] | None = None
) -> int:
    """Run the job to its end, or until Ctrl-C suspends it. Returns the exit code.

    `spec` is as written, `command` is how to call this again, `trainer` how to start a trainer (default: this Python's).
    """
    with open_display(console) as display:
        drive = _Drive(LocalWorld(name, spec, trainer=trainer or TRAINER, on_line=display.line), display)
        status = asyncio.run(drive.to_the_end())
    return _conclude(name, status, drive, partial(write_line, console), command)


class _Drive:
    """Reconciles one job whenever something changes, shows its progress, and obeys Ctrl-C."""

    def __init__(self, world: LocalWorld, display: Display) -> None:
        self._world, self._display = world, display
        self.interrupts = 0
        self.adopted = False

    async def to_the_end(self) -> FineTuneJobStatus:
        """Until the job is finished, or suspended with nothing running any more."""
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, self._interrupt)
        showing = asyncio.create_task(self._show())
        world = self._world
        try:
            while True:
                decision = await reconcile(world, world.key, datetime.now(UTC))
                seen = await world.observe(world.key)
                assert seen.job is not None, "it is this world's only job"
                status = seen.job.status
                over = status.phase in (Phase.SUCCEEDED, Phase.FAILED)
                if over or (status.phase is Phase.SUSPENDED and not seen.trainings):
                    result = result_of(seen.attempts[-1]) if seen.attempts else None
                    self.adopted = result is not None and result.adopted
                    return status
                with suppress(TimeoutError):
                    await asyncio.wait_for(anext(world.changes()), decision.recheck_after)
        finally:
            showing.cancel()
            await world.close()

    def _interrupt(self) -> None:
        """The first signal saves and suspends, the next one kills."""
        self.interrupts += 1
        if self.interrupts == 1:
            self._display.line("Saving, then stopping. Press Ctrl-C again to stop at once.")
            self._world.edit(suspend=True)
        else:
            self._world.kill()

    async def _show(self) -> None:
        while True:
            progress = self._world.progress()
            if progress is not None:
                self._display.update(progress)
            await asyncio.sleep(REFRESH_SECONDS)


def _conclude(name: str, status: FineTuneJobStatus, drive: _Drive, say: Say, command: list[str]) -> int:
    """Say how it ended and what comes next."""
    say("")
    if status.phase is Phase.SUCCEEDED:
        say(f"✓ {name} {'is finished already, nothing had to be trained' if drive.adopted else _succeeded(status)}")
        _say_results(status, say)
        return DONE
    if status.phase is Phase.FAILED:
        failure = status.failure
        if failure and failure.reason == FailureReason.ACCEPTANCE_NOT_MET:
            say(f"✗ {name} is trained, and not accepted: {failure.reason}")
            _say_failure(failure, say)
            _say_results(status, say)
            return NOT_ACCEPTED
        say(f"✗ {name} failed: {failure.reason if failure else FailureReason.INTERNAL}")
        if failure:
            _say_failure(failure, say)
        return FAILED
    if not drive.interrupts:
        say(f"‖ {name} is suspended by its manifest. To run it: {shlex.join([*command, '--set', 'suspend=false'])}")
    elif drive.interrupts == 1:
        say(f"‖ {name} is suspended; what it has learned is saved. To go on: {shlex.join(command)}")
    else:
        say(f"‖ {name} was stopped at once. To go on from its last checkpoint: {shlex.join(command)}")
    return SUSPENDED


def _say_failure(failure: Failure, say: Say) -> None:
    say(f"  {failure.message}")
    say(f"  What to do: {failure.remedy}")
    if failure.log_uri:
        say(f"  Log: {as_path(failure.log_uri)}")


def _succeeded(status: FineTuneJobStatus) -> str:
    if status.start_time is None or status.completion_time is None:
        return "succeeded"
    return f"succeeded in {duration((status.completion_time - status.start_time).total_seconds())}"


def _say_results(status: FineTuneJobStatus, say: Say) -> None:
    """Metrics before and after, test first, and where the files lie."""
    metrics = sorted(status.metrics or [], key=lambda metric: metric.split != "test")
    if not metrics and status.message:
        say(f"  {status.message}")
    width = max([9, *(len(metric.name) for metric in metrics)])
    for metric in metrics:
        before = "" if metric.baseline is None else f"{metric.baseline:.3f} → "
        say(f"  {metric.name:<{width}} {metric.split:<11} {before:>8}{metric.value:.3f}")
    if status.artifacts:
        say(f"  report    {as_path(status.artifacts.report_uri)}")
        for what, uri in (("model", status.artifacts.model_uri), ("adapter", status.artifacts.adapter_uri)):
            if uri:
                say(f"  {what:<9} {as_path(uri)}")


def command_line() -> list[str]:
    """How this process was called, in a form that can be pasted."""
    return ["finetune" if shutil.which("finetune") else sys.argv[0], *sys.argv[1:]]
