"""The parameters of a model as one file without pickle."""

from __future__ import annotations

from pathlib import Path

from safetensors.torch import load_model, save_model
from transformers import PreTrainedModel

WEIGHTS = "model.safetensors"


def save_weights(model: PreTrainedModel, folder: Path) -> None:
    """The parameters by their own names: `save_pretrained` may write older names, which a plain load would then miss."""
    save_model(model, str(folder / WEIGHTS))


def load_weights(model: PreTrainedModel, folder: Path) -> None:
    """Put what `save_weights` wrote into a model of the same architecture."""
    load_model(model, str(folder / WEIGHTS))
