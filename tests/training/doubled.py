"""Training in float64, where rounding is next to nothing: what two trainings differ by there they compute otherwise.

In fp32 that cannot be told of a model whose gradients cancel out. AdamW makes a whole step of the sign of a gradient that is nothing but
rounding, so the order of a sum decides in which direction a weight goes. Of a lively BART (`tests/training/writers.py`), one process in other
micro-batches is as far from itself after ten steps, five parts in a hundred thousand of its loss, as two processes are.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from torch.utils._pytree import tree_map_only
from transformers import PreTrainedModel

from finetune_trainer.engine import steps

ROOT = Path(__file__).resolve().parents[2]
_AT_START = """\
import tests.training.libraries
from tests.training.doubled import compute_in_float64
compute_in_float64()
"""


def in_float64(folder: Path) -> dict[str, str]:
    """The environment of a trainer whose processes, each started from nothing, train so; `folder` gets a file for that."""
    folder.mkdir(exist_ok=True)
    (folder / "sitecustomize.py").write_text(_AT_START)
    return {"PYTHONPATH": os.pathsep.join([str(folder), str(ROOT), os.environ.get("PYTHONPATH", "")])}


def compute_in_float64() -> None:
    """For the rest of this process: models are loaded so and given so, and nothing is made less precise, whoever asks for fp32."""
    load: Any = PreTrainedModel.from_pretrained
    as_float, to, shorten = torch.Tensor.float, torch.Tensor.to, steps.shorten

    def loaded(cls: type[PreTrainedModel], *args: Any, **options: Any) -> Any:
        found = load.__func__(cls, *args, **options)
        model = found[0] if isinstance(found, tuple) else found
        model.double().register_forward_pre_hook(given, with_kwargs=True)
        return found

    def given(_: torch.nn.Module, args: Any, options: Any) -> Any:
        return tree_map_only(torch.Tensor, precise, (args, options))

    def precise(values: torch.Tensor) -> torch.Tensor:
        return values.double() if values.is_floating_point() else values

    def converted(tensor: torch.Tensor, *args: Any, **options: Any) -> torch.Tensor:
        asked = options.get("dtype", args[0] if args else None)
        return tensor if tensor.dtype == torch.float64 and asked is torch.float32 else to(tensor, *args, **options)

    def shortened(optimizer: Any) -> None:
        shorten(optimizer)
        for name in ("grad_scale", "found_inf"):  # of which torch's AdamW knows no other than fp32
            setattr(optimizer, name, torch.tensor(getattr(optimizer, name).item(), dtype=torch.float32))

    torch.set_default_dtype(torch.float64)
    PreTrainedModel.from_pretrained = classmethod(loaded)  # type: ignore[assignment]
    torch.Tensor.float = lambda tensor, *args, **options: (  # type: ignore[method-assign]
        tensor if tensor.dtype == torch.float64 else as_float(tensor, *args, **options)
    )
    torch.Tensor.to = converted  # type: ignore[method-assign, assignment]
    steps.shorten = shortened
