"""Folders of tensors of which each rank has a part: each writes its own files, and any number of ranks reads what any number wrote.

They are torch.distributed.checkpoint's, as safetensors: with where each part belongs, and without pickle.
"""

from __future__ import annotations

import math
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.default_planner import DefaultLoadPlanner
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader, HuggingFaceStorageWriter
from torch.distributed.checkpoint.metadata import TensorStorageMetadata
from torch.distributed.checkpoint.planner import LoadPlan
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save
from torch.distributed.tensor import DTensor

from finetune_trainer.engine.ranks import answered

LARGEST = 1 << 30
"""Bytes of all parts of the tensors of one file, unless one tensor has more: a rank's part of a file is in memory twice while it is written."""


def write(state: Mapping[str, torch.Tensor], folder: Path) -> None:
    """Put this rank's part of each of these into files of its own. All ranks do, each into a folder of its own, or all into one. Raises Gone where
    others do not."""
    writer = HuggingFaceStorageWriter(str(folder), fqn_to_index_mapping=_files(state), save_distributed=True)
    writer.sync_files = False  # what a machine that breaks down leaves on its disk nobody reads
    try:
        with answered():
            save({name: _with_an_axis(value) for name, value in state.items()}, storage_writer=writer)
    except CheckpointException as error:  # no Exception: it would pass by whoever knows what to do
        raise next(iter(error.failures.values()))[0] from None


def read(state: Mapping[str, torch.Tensor], folder: Path) -> None:
    """Fill in these tensors, or this rank's parts of them. Raises RuntimeError where the files have other shapes, or not all of it."""
    axes = {name: _with_an_axis(value) for name, value in state.items()}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that it is by itself, as is meant
            load(axes, storage_reader=HuggingFaceStorageReader(str(folder)), planner=_Whole(), no_dist=True)
    except CheckpointException as error:
        raise next(iter(error.failures.values()))[0] from None


def shapes(folder: Path) -> dict[str, torch.Size]:
    """Of all tensors in the files of all ranks, by their names; a single number is a list of one."""
    found = HuggingFaceStorageReader(str(folder)).read_metadata().state_dict_metadata
    return {name: one.size for name, one in found.items()}  # type: ignore[union-attr]  # in safetensors there are tensors only


def _files(state: Mapping[str, torch.Tensor]) -> dict[str, int]:
    """In which file each tensor is, from 1: the same in all ranks."""
    found: dict[str, int] = {}
    number, size = 1, 0
    for name, value in state.items():
        if size and size + value.nbytes > LARGEST:
            number, size = number + 1, 0
        found[name] = number
        size += value.nbytes
    return found


def _with_an_axis(value: torch.Tensor) -> torch.Tensor:
    return value if value.ndim else value.reshape(1)


class _Whole(DefaultLoadPlanner):
    """Which leaves out nothing: torch's own reads what there is. And which knows how large tensors are: the files of one rank do not tell."""

    def create_local_plan(self) -> LoadPlan:
        assert self.metadata is not None  # it is set up by now
        for name, value in self.state_dict.items():
            there = self.metadata.state_dict_metadata.get(name)
            if isinstance(there, TensorStorageMetadata):
                if len(there.size) != value.ndim or any(map(int.__gt__, there.size, value.shape)):
                    raise RuntimeError(f"{name} is of shape {tuple(there.size)}, not {tuple(value.shape)}")
                there.size = value.shape
        plan = super().create_local_plan()
        read: Counter[str] = Counter()
        for item in plan.items:
            read[item.dest_index.fqn] += math.prod(item.lengths)
        for name, value in self.state_dict.items():
            if read[name] != (wanted := own(value).numel()):
                raise RuntimeError(f"of {name} there are {read[name]} of {wanted} numbers")
        return plan


def own(value: torch.Tensor) -> torch.Tensor:
    """This rank's part, which is empty where there are fewer rows than ranks; all of what has no parts."""
    return value.to_local() if isinstance(value, DTensor) else value


def is_sharded(tensors: Iterable[torch.Tensor]) -> bool:
    """Whether each rank has a part of any of these."""
    return any(isinstance(one, DTensor) for one in tensors)
