"""Jobs of several processes that are struck, each of which has one like it that nobody disturbs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from finetune_api.exit_codes import ExitCode
from tests.training.attempts import Job
from tests.training.blows import strike
from tests.training.cases import CASES

TRAINING = {"epochs": 2, "batchSize": 7, "learningRate": 1e-2, "precision": "fp32"}
"""Twelve steps, six an epoch, of batches that two processes do not share evenly."""
EVERY = 4
"""Steps between two checkpoints; each epoch's end is one, too."""
SHARDED: Mapping[str, Any] = {"parallelism": "sharded", "resources": {"limits": {"nvidia.com/gpu": 2}}}
LORA = {"method": {"type": "lora", "lora": {"rank": 4}}}
KINDS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "labels": ("text-classification", {}),
    "chats": ("text-generation", LORA),
    "preferences": ("text-generation-by-preferences", LORA),
    "liked": ("text-generation-by-what-is-liked", LORA),
}
"""The case of `CASES`, and what else its jobs say. The last two compare with what the untrained model said."""


class Runs:
    """Makes jobs, each with a folder of its own below `folder`; those of a kind have the same inputs unless they are to be `apart`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._inputs: dict[str, Mapping[str, Any]] = {}
        self._undisturbed: dict[tuple[str, bool, int, bool], Job] = {}
        self._jobs = 0

    def job(
        self, kind: str, *, sharded: bool, apart: bool = False, like: Job | None = None, goes_on: Job | None = None
    ) -> Job:
        """`like` is one whose inputs it has, `goes_on` one that has begun the same run."""
        case, more = KINDS[kind]
        self._jobs += 1
        inputs = f"{kind}-{self._jobs}" if apart else kind
        if inputs not in self._inputs:
            (self._folder / inputs).mkdir()
            self._inputs[inputs] = CASES[case].inputs(self._folder / inputs, 0.0)
        given: dict[str, Any] = {"task": CASES[case].task, **self._inputs[inputs], **more}
        if like is not None:
            given |= like.run.spec.given(["model", "dataset"])
        if goes_on is not None:
            given["output"] = {"uri": goes_on.run.spec.output.uri}
        if sharded:
            given |= SHARDED
        return Job(self._folder / f"job-{self._jobs}", **given, training=TRAINING, checkpoints={"everySteps": EVERY})

    def undisturbed(self, kind: str, *, sharded: bool, processes: int = 2, doubled: bool = False) -> Job:
        key = (kind, sharded, processes, doubled)
        if key not in self._undisturbed:
            job = self.job(kind, sharded=sharded)
            attempt = strike(job, None, processes, doubled=doubled).attempt
            assert attempt.wait() == ExitCode.DONE, attempt.log
            self._undisturbed[key] = job
        return self._undisturbed[key]


def assert_same_run(job: Job, undisturbed: Job) -> None:
    """To the last bit, as of runs that had the same number of processes at any time."""
    assert job.rows() == undisturbed.rows()
    assert job.weights() == undisturbed.weights()
    told, before = (json.loads((one.results / "result.json").read_text()) for one in (job, undisturbed))
    assert (told["metrics"], told["suspects"]) == (before["metrics"], before["suspects"])
