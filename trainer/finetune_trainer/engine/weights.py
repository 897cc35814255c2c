"""What training may change of a model, as one file without pickle; all else is as in the pretrained model."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from safetensors.torch import load_file, load_model, save_file
from transformers import PreTrainedModel

MOVED = "trained.safetensors"
WHOLE = "model.safetensors"
"""The file of all parameters that was in checkpoints of before."""


def save_weights(model: PreTrainedModel, folder: Path, moved: Collection[str] | None = None) -> None:
    """The parameters of these names, None for all, and all buffers. By their own names: `save_pretrained` may write older names, which a
    plain load would then miss."""
    once = {name for name, _ in model.named_parameters()}  # one that is called by several names by the first of them
    every = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    kept = {
        name: values.contiguous() if name in every else values.clone()  # a buffer may be a part of another one
        for name, values in model.state_dict().items()
        if name not in every or (name in once and (moved is None or name in moved))
    }
    save_file(kept, folder / MOVED)


def load_weights(model: PreTrainedModel, folder: Path) -> None:
    """Put what `save_weights` wrote into a model of the same architecture, whose parameters that get no gradient are as they were then."""
    if (folder / WHOLE).exists():
        load_model(model, str(folder / WHOLE))
        return
    found = load_file(folder / MOVED)
    unknown = model.load_state_dict(found, strict=False).unexpected_keys
    loaded = {id(p) for name, p in model.named_parameters(remove_duplicate=False) if name in found}
    lacking = [name for name, p in model.named_parameters() if p.requires_grad and id(p) not in loaded]
    if unknown or lacking:
        raise RuntimeError(f"{folder / MOVED} lacks {lacking}, and has {unknown}, which the model has not")
