"""What of a tuned model is among the results of a run: all of it in `model`; with adapters these in `adapter` besides, or alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from finetune_api.failures import FailureReason, JobError
from finetune_api.job import Base
from finetune_api.result import ModelResult
from finetune_trainer.data import FetchedModel
from finetune_trainer.engine.adapters import Adapters
from finetune_trainer.engine.machine import free_memory
from finetune_trainer.engine.memory import is_out_of_memory
from finetune_trainer.engine.nf4 import count, is_quantised
from finetune_trainer.log import logger
from finetune_trainer.tasks.base import Task

MODEL, ADAPTER = "model", "adapter"
MERGED_FIRST = """\
import shutil

from huggingface_hub import ModelCard
from peft import PeftModel
from transformers import AutoConfig, {loads}

# The model that these adapters are for{where}, with them added, as the folder `model`
config = AutoConfig.from_pretrained("adapter"{trusted})
base = {loads}.from_pretrained(
    {base!r}, config=config, dtype="float32", ignore_mismatched_sizes=True{revision}{trusted}
)
PeftModel.from_pretrained(base, "adapter").merge_and_unload().save_pretrained("model")
shutil.copytree("adapter", "model", ignore=shutil.ignore_patterns("adapter_*"), dirs_exist_ok=True)
card = ModelCard.load("model/README.md")
card.data.library_name = "transformers"
card.save("model/README.md")

"""
IN_FOUR_BITS = (
    "All that is reported was measured with the weights of linear layers in four bits (NF4), as they were in training; `model` has the "
    "adapters added to the weights as they came."
)
ROOM = 1.1
"""Of what the weights take, so that something is left."""


@dataclass(frozen=True)
class Saved:
    """What was written, and how it is loaded."""

    result: ModelResult
    snippet: str
    """Python that loads it and predicts."""
    note: str | None = None
    """A sentence, where the model is not whole, or not the one that was measured."""


def save_model(
    task: Task, adapters: Adapters | None, again: Callable[[], Task], folder: Path, fetched: FetchedModel
) -> Saved:
    """Write it into `folder`. `again` loads the task's model as it was loaded before training, of what was `fetched`."""
    if adapters is None:
        task.save(folder / MODEL)
        return Saved(ModelResult(folder=MODEL), task.snippet())
    base, revision = task.spec.model, fetched.revision
    name = base.uri.removeprefix("hf://").removeprefix("file://")
    apart = fetched.adapter is None  # else they would be for a model that nobody has: one with other adapters added
    if apart:
        adapters.save(folder / ADAPTER, name, revision)
        task.save_settings(folder / ADAPTER)
    note = IN_FOUR_BITS if adapters.quantised else None
    why = _merge(task, adapters, again) if task.spec.method.merge else "as spec.method.merge is false"
    if why is None:
        task.save(folder / MODEL)
        return Saved(ModelResult(folder=MODEL, adapter=ADAPTER if apart else None), task.snippet(), note)
    if not apart:
        raise JobError(FailureReason.OUT_OF_MEMORY, f"the adapters were not added to the model, {why}")
    left = f"The adapters were not added to the model, {why}: `{ADAPTER}` has them alone, to be loaded on {base.uri}."
    logger.info("%s", left)
    result = ModelResult(adapter=ADAPTER, base=base.uri, revision=revision)
    return Saved(result, _merged_first(task, base, name, revision) + task.snippet(), left)


def _merge(task: Task, adapters: Adapters, again: Callable[[], Task]) -> str | None:
    """Add them to the model; or why not, as half a sentence."""
    if adapters.gathered is not None:
        return _merge_elsewhere(task, adapters, again)
    held = adapters.held
    moved = [p for p in held if p.device.type != "cpu" and not is_quantised(p)]
    needed = sum(4 * count(p) for p in held) + sum(p.nbytes for p in moved)
    try:
        if held and free_memory() < ROOM * needed:
            return f"which takes {needed / 2**30:.1f} GiB of memory, and {free_memory() / 2**30:.1f} GiB are free"
        adapters.merge(dict(again().model.named_parameters(remove_duplicate=False)) if held else None)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        return "for which memory ran out"
    return None


def _merge_elsewhere(task: Task, adapters: Adapters, again: Callable[[], Task]) -> str | None:
    """The same where this process has a part of the model only: to the model as it is loaded, which takes its place."""
    needed = sum(4 * count(p) for p in task.model.parameters())
    try:
        if free_memory() < ROOM * needed:
            return f"which takes {needed / 2**30:.1f} GiB of memory, and {free_memory() / 2**30:.1f} GiB are free"
        loaded = again()
        adapters.elsewhere(loaded).merge(None)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        return "for which memory ran out"
    take_place(task, loaded)
    return None


def take_place(task: Task, loaded: Task) -> None:
    """Let the model of `task` be that of another one, which was loaded in the same way."""
    loaded.model.config = task.model.config
    if task.model.can_generate():
        loaded.model.generation_config = task.model.generation_config
    task.model = loaded.model


def _merged_first(task: Task, base: Base, name: str, revision: str | None) -> str:
    is_here = base.uri.startswith(("hf://", "file://"))
    return MERGED_FIRST.format(
        loads=task.loads,
        base=name if is_here else "base",
        where="" if is_here else f", which the folder `base` is a copy of: {name}",
        revision=f", revision={revision!r}" if revision else "",
        trusted=", trust_remote_code=True" if base.trust_remote_code else "",
    )
