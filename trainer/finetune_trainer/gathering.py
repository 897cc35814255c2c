"""All that the processes of one machine train with, fetched and checked once for all of them, while the libraries are imported.

What is fetched on several machines has to be the same on each, and what the first process alone knows of the attempt the others are told by it.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from finetune_api.failures import FailureReason, JobError
from finetune_api.run import Run, fingerprint_in_0_1_0
from finetune_trainer.engine.state import TrainingState
from finetune_trainer.fetching import Fetching
from finetune_trainer.imports import nothing_collected, spare_peft
from finetune_trainer.processes import Place, name_of
from finetune_trainer.room import Room
from finetune_trainer.stop import StopSignal
from finetune_trainer.store.checkpoints import Checkpoint
from finetune_trainer.store.folder import Folder
from finetune_trainer.store.run_folder import RunFolder

if TYPE_CHECKING:
    from finetune_trainer.engine.predict import Arithmetic
    from finetune_trainer.engine.preparation import Inputs
    from finetune_trainer.engine.ranks import Ranks
    from finetune_trainer.estimate.headers import Described

Resume = Callable[[Path, Path, Callable[[Checkpoint, Path], object]], Checkpoint | None]
"""As `Checkpoints.resume`."""
PRECISION = "another device or precision"


@dataclass(frozen=True)
class Facts:
    """What the first process knows of an attempt."""

    attempt: int
    """Its number."""
    began: datetime
    """When the first attempt of the run did."""
    room: Room


UNKNOWN = Facts(0, datetime.fromtimestamp(0, UTC), Room())
"""What those know of it whom the first has not told yet."""


def as_begun(run: Run, folder: Folder) -> Run:
    """The same run; one that version 0.1.0 began goes on as that."""
    then = fingerprint_in_0_1_0(run.spec)
    if then == run.run.fingerprint or not RunFolder(folder, run.run).is_of(then):
        return run
    return run.model_copy(update={"run": run.run.model_copy(update={"fingerprint": then})})


def gather(
    run: Run, workspace: Path, scratch: Path, place: Place, stop: StopSignal, resume: Resume, facts: Facts, threads: int
) -> Inputs:
    """Fetch model, data and the last checkpoint, in threads, while the libraries are imported, which takes about as long."""
    checkpoint_folder, best_folder = scratch / "checkpoint", scratch / "best"
    pool = ThreadPoolExecutor(thread_name_prefix="fetch")
    fetching = Fetching(run.spec, workspace, stop.check, pool)
    resuming = pool.submit(resume, checkpoint_folder, best_folder, TrainingState.of)

    with nothing_collected():
        spare_peft()
        from finetune_trainer.engine.precision import choose_arithmetic
        from finetune_trainer.engine.preparation import Inputs
        from finetune_trainer.engine.session import Session  # noqa: F401  # meanwhile, for whoever will ask for it

    stop.check()
    described = fetching.described
    checkpoint = resuming.result()
    before = None if checkpoint is None else checkpoint.facts.get("precision")
    arithmetic = choose_arithmetic(run.spec.training.precision, before)
    sharded = _refuse_what_cannot_fit(run, described, arithmetic, place)
    model = fetching.model
    data = fetching.data.result()
    return Inputs(
        run=run,
        model=model,
        data=data,
        fetch_seconds=fetching.seconds,
        checkpoint=checkpoint,
        checkpoint_folder=checkpoint_folder,
        best_folder=best_folder,
        attempt=facts.attempt,
        began=facts.began,
        arithmetic=arithmetic,
        threads=threads,
        scratch=scratch,
        sharded=sharded,
        room=facts.room,
    )


def agreed(ranks: Ranks, inputs: Inputs) -> Inputs:
    """With what the first knows. All ranks ask, and raise JobError where those of a machine have found something else than that."""
    checkpoint = inputs.checkpoint
    found = {
        "other data or another model": inputs.fingerprint,
        "another checkpoint": None if checkpoint is None else checkpoint.name,
        PRECISION: f"{inputs.arithmetic.name} on {inputs.arithmetic.device.type}",
    }
    every = ranks.gathered((found, Facts(inputs.attempt, inputs.began, inputs.room), inputs.sharded))
    wanted, facts, sharded = every[0]
    for rank, (others, *_) in enumerate(every):
        for what in (name for name, value in others.items() if value != wanted[name]):
            raise JobError(
                FailureReason.INVALID_SPEC if what == PRECISION else FailureReason.STORAGE_UNAVAILABLE,
                f"{name_of(rank, ranks.world)} is on a machine that has found {what} than the first's",
                field="spec.training.precision" if what == PRECISION else None,
                remedy="Set spec.training.precision to fp32, or have machines that are alike."
                if what == PRECISION
                else "Let the files be while a run begins.",
            )
    return replace(inputs, attempt=facts.attempt, began=facts.began, room=facts.room, sharded=sharded)


def _refuse_what_cannot_fit(run: Run, described: Described, arithmetic: Arithmetic, place: Place) -> bool:
    """Whether each of several processes is to have a part of the model. Raises JobError DOES_NOT_FIT."""
    import torch

    from finetune_trainer.engine.machine import all_memory
    from finetune_trainer.estimate.devices import Where
    from finetune_trainer.estimate.refusal import refuse_what_cannot_fit
    from finetune_trainer.estimate.way import is_sharded

    spec, device, here = run.spec, arithmetic.device, place.local_world
    if device.type == "cuda":
        where, room = Where("cuda", arithmetic.bf16, here), torch.cuda.get_device_properties(device).total_memory
    else:
        where, room = Where("cpu", arithmetic.bf16, here), all_memory() // here
    where = replace(where, sharded=is_sharded(spec, described, where, room))
    refuse_what_cannot_fit(spec, described, where, room, all_memory())
    return where.sharded
