"""Attempts as they really are: processes of the trainer with a Run in their environment, signals, and what is left behind."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finetune_api.job import FineTuneJobSpec
from finetune_api.progress import Progress
from finetune_api.result import Result
from finetune_api.run import ATTEMPT_ENV, PROGRESS_ENV, RESULT_ENV, RUN_ENV, WORKSPACE_ENV, Run, identify
from tests.cluster.users import as_any_user, nameless
from tests.training.forked import ForkedTrainer

PATIENCE = 180.0
"""Seconds; only a hang takes longer, however busy the machine is."""


class Job:
    """One run below `folder`, and its attempts. Each has an empty disk of its own unless it is told to share one."""

    def __init__(self, folder: Path, *, owner: str = "team/job/uid", **spec: Any) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._attempts = 0
        parsed = FineTuneJobSpec.model_validate(
            {"task": "text-classification", "output": {"uri": f"file://{folder}/results"}, **spec}
        )
        self.run = Run(run=identify(parsed), owner=owner, spec=parsed)

    @property
    def results(self) -> Path:
        return Path(self.run.run.uri.removeprefix("file://"))

    def next_folder(self) -> Path:
        """The disk of the next attempt."""
        self._attempts += 1
        folder = self._folder / f"attempt-{self._attempts}"
        folder.mkdir()
        return folder

    def start(self, first: Callable[[], None] | None = None, **environment: str) -> Attempt:
        """An attempt that has its libraries already; `first` is called in its process before all else."""
        return Attempt(self.run, self.next_folder(), environment, first=first)

    def start_from_nothing(self, **environment: str) -> Attempt:
        """An attempt as a pod makes it, whose process first imports its libraries: where that is part of what is tested."""
        return Attempt(self.run, self.next_folder(), environment, from_nothing=True)

    def start_as_any_user(self, **environment: str) -> Attempt:
        """From nothing, as OpenShift runs its process: by a user without a name, who may write nothing but what the pod has."""
        folder = self.next_folder()
        self._folder.chmod(0o775)
        folder.chmod(0o775)
        environment = {"HOME": str(folder), **environment}
        return Attempt(self.run, folder, environment, from_nothing=True, by_any_user=True)

    def complete(self, **environment: str) -> Attempt:
        """An attempt that nobody disturbs; it must succeed."""
        return self.start(**environment).succeed()

    def saved_step(self) -> int:
        """The step of the newest checkpoint whose manifest is there, 0 without one."""
        steps = [0]
        for file in self.results.glob("checkpoints/*/manifest.json"):
            with suppress(FileNotFoundError):  # an older one may be deleted meanwhile
                steps.append(json.loads(file.read_text())["step"])
        return max(steps)

    def weights(self) -> bytes:
        return (self.results / "model/model.safetensors").read_bytes()

    def rows(self) -> list[dict[str, float]]:
        """metrics.jsonl without its times."""
        rows = [json.loads(line) for line in (self.results / "metrics.jsonl").read_text().splitlines()]
        return [{name: value for name, value in row.items() if name != "time"} for row in rows]


@dataclass
class Attempt:
    """A running attempt."""

    run: Run
    folder: Path
    environment: dict[str, str]
    from_nothing: bool = False
    by_any_user: bool = False
    first: Callable[[], None] | None = None

    def __post_init__(self) -> None:
        self._log = self.folder / "stdout.txt"
        environment = {
            **os.environ,
            "PYTHONFAULTHANDLER": "1",  # a hang says where
            RUN_ENV: self.run.to_env(),
            RESULT_ENV: str(self.folder / "termination-log"),
            WORKSPACE_ENV: str(self.folder / "workspace"),
            PROGRESS_ENV: f"file://{self.folder}/progress.jsonl",
            ATTEMPT_ENV: f"pod-{self.folder.name}",
            **self.environment,
        }
        self._log.touch()
        if self.by_any_user:
            self.process = _start_python(nameless(environment), self._log, as_any_user())
        elif self.from_nothing:
            self.process = _start_python(environment, self._log)
        else:
            self.process = ForkedTrainer(environment, self._log, self.first)

    @property
    def log(self) -> str:
        return self._log.read_text()

    @property
    def result(self) -> Result:
        """The termination message."""
        return Result.model_validate_json((self.folder / "termination-log").read_text())

    @property
    def first_step(self) -> int | None:
        """The step that training went on from; None when it did not get there."""
        found = re.search(r"from step (\d+)\.$", self.log, re.MULTILINE)
        return int(found[1]) if found else None

    @property
    def reported_step(self) -> int:
        """The newest step in its progress."""
        lines = (self.folder / "progress.jsonl").read_text().splitlines() if self.log else []
        reports = [Progress.model_validate_json(line) for line in lines if line.endswith("}")]
        return max((int(report.metric("step") or 0) for report in reports), default=0)

    def wait_for(self, text: str) -> bool:
        """Wait until the log says `text`; False when the attempt ended without."""
        return self.wait_until(lambda: text in self.log, f"the log says {text!r}")

    def wait_until(self, happened: Callable[[], bool], what: str) -> bool:
        """Wait until something happened; False when the attempt ended without."""
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until:
            ended = self.process.poll() is not None
            if happened():
                return True
            if ended:
                return False
            time.sleep(0.01)
        self.process.send_signal(signal.SIGABRT)
        self.process.wait()
        raise AssertionError(f"not within {PATIENCE} s: {what}; the log:\n{self.log}")

    def succeed(self) -> Attempt:
        """Wait for the end, which must be a success."""
        assert self.wait() == 0, self.log
        return self

    def wait(self) -> int:
        return self.process.wait(PATIENCE)

    def signal(self, number: signal.Signals) -> int:
        """Send a signal and wait for the end."""
        self.process.send_signal(number)
        return self.wait()


def _start_python(environment: dict[str, str], log: Path, before: Sequence[str] = ()) -> subprocess.Popen[bytes]:
    with log.open("wb") as file:
        return subprocess.Popen(
            [*before, sys.executable, "-m", "finetune_trainer"], env=environment, stdout=file, stderr=subprocess.STDOUT
        )
