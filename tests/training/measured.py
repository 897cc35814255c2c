"""What the steps of a job take of memory in truth: model, data and steps as the trainer makes them, and what the allocator says."""

from __future__ import annotations

import gc
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from finetune_api.forms import forms_of
from finetune_api.job import FineTuneJobSpec
from finetune_api.run import Run, identify
from finetune_api.tasks import TASKS
from finetune_api.training import Training
from finetune_trainer.data import fetch_model, load
from finetune_trainer.engine.memory import MicroBatch
from finetune_trainer.engine.precision import choose_arithmetic
from finetune_trainer.engine.preparation import Inputs, Preparation
from finetune_trainer.engine.references import refer
from finetune_trainer.engine.state import TrainingState
from finetune_trainer.engine.steps import Steps
from finetune_trainer.progress import Reporter, open_sink
from finetune_trainer.stop import StopSignal

STEPS = 3
"""The first makes the moments; what the others take is measured."""


def peak_of(spec: FineTuneJobSpec, workspace: Path) -> int:
    """Bytes of all tensors, and of what operations work with, when most of them are there, on the device of this machine."""
    ready = prepared(spec, workspace)
    device = ready.arithmetic.device
    found: list[int] = []
    watched: Any = None

    def after(step: int) -> bool:
        nonlocal watched
        if step == 1 and device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        elif step == 1:
            watched = (_held(), profile(activities=[ProfilerActivity.CPU], profile_memory=True))
            watched[1].__enter__()
        elif step == STEPS and device.type == "cuda":
            found.append(torch.cuda.max_memory_allocated())
        elif step == STEPS:
            watched[1].__exit__(None, None, None)
            found.append(watched[0] + _highest(watched[1]))
        return step == STEPS

    steps_of(ready, spec.training, STEPS, after).run()
    [peak] = found
    return peak


def steps_of(ready: Preparation, training: Training, total: int, after: Callable[[int], bool]) -> Steps:
    """So many steps of what is prepared; `after` is called after each with its number and returns True to stop."""
    return Steps(
        ready.task,
        ready.trained_on,
        training,
        arithmetic=ready.arithmetic,
        micro=MicroBatch.start(training, None, ready.arithmetic.device, ready.task.unit),
        total_steps=total,
        check=lambda: None,
        after_step=after,
        tuning=ready.tuning,
    )


def prepared(spec: FineTuneJobSpec, workspace: Path, threads: int = 1) -> Preparation:
    """Ready for its first step; nothing is measured before."""

    def never() -> None:
        """No signal to stop."""

    model = fetch_model(spec.model, storage=spec.storage, workspace=workspace, stop=never)
    data = load(
        spec.dataset, forms_of(TASKS[spec.task], spec), storage=spec.storage, workspace=workspace, seed=1, stop=never
    )
    inputs = Inputs(
        run=Run(run=identify(spec), owner="", spec=spec),
        model=model,
        data=data,
        checkpoint=None,
        checkpoint_folder=workspace,
        best_folder=workspace,
        attempt=1,
        arithmetic=choose_arithmetic(spec.training.precision),
        threads=threads,
        scratch=workspace,
        fetch_seconds=0.0,
        began=datetime.now(UTC),
    )
    ready = Preparation(inputs, TrainingState(data_fingerprint=""), Reporter(open_sink(None)), StopSignal())
    for part in (ready.open_device, ready.load_model, ready.encode, ready.choose_what_moves, ready.quicken):
        part()
    if ready.task.references:
        ready.train = refer(ready.task, ready.train, ready.arithmetic, seed=1)
    return ready


def _held() -> int:
    """Bytes of the tensors that there are."""
    gc.collect()
    tensors = [one for one in gc.get_objects() if type(one) in (torch.Tensor, torch.nn.Parameter)]
    grads = [one.grad for one in tensors if one.is_leaf and one.grad is not None]
    storages = {one.untyped_storage()._cdata: one.untyped_storage().nbytes() for one in [*tensors, *grads]}
    return sum(storages.values())


def _highest(watched: Any) -> int:
    """Of the sums of what was taken and given back, one after another."""
    events = [one for one in watched.profiler.kineto_results.events() if one.name() == "[memory]"]
    now = most = 0
    for event in sorted(events, key=lambda one: one.start_ns()):
        now += event.nbytes()
        most = max(most, now)
    return most
