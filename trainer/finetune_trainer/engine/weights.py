"""What training may change of a model, as files without pickle; all else is as in the pretrained model. One file, or where each rank has a
part, those of each in a folder."""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path

import torch
from safetensors.torch import load_file, load_model, save_file
from transformers import PreTrainedModel

from finetune_trainer.engine import shards

MOVED = "trained.safetensors"
PARTS = "weights"
"""The folder of what each rank has a part of."""
WHOLE = "model.safetensors"
"""The file of all parameters that was in checkpoints of before."""


def save_weights(model: PreTrainedModel, folder: Path, moved: Collection[str] | None = None) -> None:
    """The parameters of these names, None for all, and all buffers. By their own names: `save_pretrained` may write older names, which a
    plain load would then miss. Where each rank has a part of them, all save theirs."""
    once = {name for name, _ in model.named_parameters()}  # one that is called by several names by the first of them
    every = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    kept = {
        name: values.contiguous() if name in every else values.clone()  # a buffer may be a part of another one
        for name, values in model.state_dict().items()
        if name not in every or (name in once and (moved is None or name in moved))
    }
    if shards.is_sharded(kept.values()):
        shards.write(kept, folder / PARTS)
    else:
        save_file(kept, folder / MOVED)


def load_weights(model: PreTrainedModel, folder: Path) -> None:
    """Put what `save_weights` wrote, in however many ranks, into a model of the same architecture, whose parameters that get no gradient are
    as they were then. A rank that has a part of the model reads that."""
    if (folder / WHOLE).exists() and not shards.is_sharded(model.parameters()):
        load_model(model, str(folder / WHOLE))
        return
    found = _found(model, folder)
    unknown = model.load_state_dict(found, strict=False).unexpected_keys
    loaded = {id(p) for name, p in model.named_parameters(remove_duplicate=False) if name in found}
    wanted = [(name, p) for name, p in model.named_parameters() if p.requires_grad and shards.own(p).numel()]
    lacking = [name for name, p in wanted if id(p) not in loaded]
    if unknown or lacking:
        raise RuntimeError(f"{folder} lacks {lacking}, and has {unknown}, which the model has not")


def _found(model: PreTrainedModel, folder: Path) -> dict[str, torch.Tensor]:
    parts = folder / PARTS
    if not parts.exists() and not shards.is_sharded(model.parameters()):
        return load_file(folder / MOVED)
    parts = parts if parts.exists() else folder
    own = model.state_dict()
    found = {
        name: torch.empty_like(own[name], memory_format=torch.contiguous_format) if name in own else torch.empty(size)
        for name, size in shards.shapes(parts).items()
    }
    shards.read(found, parts)
    return found


def copy_weights(source: Path, folder: Path, copy: Callable[[Path, Path], None]) -> None:
    """Have what `save_weights` wrote into `source` in `folder`, too; each file by `copy`."""
    for file in (source / MOVED, *(source / PARTS).glob("*")):
        if file.exists():
            target = folder / file.relative_to(source)
            target.parent.mkdir(exist_ok=True)
            copy(file, target)
