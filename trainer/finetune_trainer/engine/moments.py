"""What an optimiser keeps of the parameters, in a checkpoint: one file, and where each rank has a part of them, a folder of the parts besides.

It is known by the order of the parameters, which is the same whatever each rank has of them, so that any number of ranks goes on from what
any number saved.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.serialization import set_crc32_options

from finetune_trainer.engine import shards

OPTIMIZER = "optimizer.pt"
PARTS = "optimizer"
"""The folder of what each rank has a part of."""


def save_moments(optimizer: torch.optim.Optimizer, folder: Path, *, first: bool) -> None:
    """Those of `optimizer`. Where each rank has a part of them all save theirs; all else the `first` one saves."""
    state = optimizer.state_dict()
    parts = {
        f"{index}.{name}": values
        for index, moments in state["state"].items()
        for name, values in moments.items()
        if isinstance(values, DTensor)
    }
    if parts:
        shards.write(parts, folder / PARTS)
    if first:
        set_crc32_options(False)  # half of the time of writing; the manifest has a SHA-256 of each file
        own = {
            index: {name: values for name, values in moments.items() if not isinstance(values, DTensor)}
            for index, moments in state["state"].items()
        }
        torch.save({**state, "state": own}, folder / OPTIMIZER)


def load_moments(optimizer: torch.optim.Optimizer, folder: Path) -> None:
    """Let `optimizer` go on from what `save_moments` wrote, in however many ranks."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    sharded = shards.is_sharded(parameters)
    state = torch.load(folder / OPTIMIZER, map_location="cpu", weights_only=True, mmap=sharded)
    moments: dict[int, dict[str, Any]] = state["state"]
    if (folder / PARTS).exists():
        found = {
            name: torch.zeros_like(parameter)
            if isinstance(parameter := parameters[_index(name)], DTensor)
            else torch.zeros(size)
            for name, size in shards.shapes(folder / PARTS).items()
        }
        shards.read(found, folder / PARTS)
        for name, values in found.items():
            moments[_index(name)][name.partition(".")[2]] = values
    elif sharded:
        for index, of_one in moments.items():
            of_one |= {name: _own(values, parameters[index]) for name, values in of_one.items() if values.ndim}
    optimizer.load_state_dict(state)


def _index(name: str) -> int:
    return int(name.partition(".")[0])


def _own(values: torch.Tensor, parameter: torch.Tensor) -> torch.Tensor:
    """This rank's part of what is of the shape of a parameter."""
    assert isinstance(parameter, DTensor)
    return distribute_tensor(values, parameter.device_mesh, parameter.placements, src_data_rank=None)
