"""That all ranks train the same model: they begin with the same numbers, and it is looked at that they stay the same."""

from __future__ import annotations

from collections.abc import Collection
from hashlib import sha256

import torch
from torch.distributed.tensor import DTensor
from transformers import PreTrainedModel

from finetune_trainer.engine.occurring import parts, trained
from finetune_trainer.engine.ranks import Ranks
from finetune_trainer.tasks.base import Features


def begin_alike(ranks: Ranks, model: PreTrainedModel, moved: Collection[str], features: Features) -> None:
    """Let each rank have what the first one has of what is trained. Raises RuntimeError where they are about to train other
    parameters, or by other features: each has found out by itself what its device allows."""
    if ranks.world == 1:
        return
    whole = [name for name, one in trained(model) if one.ndim and isinstance(one, DTensor) != ranks.in_step]
    if whole:
        raise RuntimeError(f"{whole[0]} is not as this process has its part of the model between two passes")
    shapes = [(name, tuple(parameter.shape)) for name, parameter in trained(model)]
    said = sha256(repr((shapes, sorted(moved))).encode() + features.costs.tobytes() + features.weights.tobytes())
    if len(set(ranks.gathered(said.hexdigest()))) > 1:
        raise RuntimeError("the processes are about to train other parameters, or by other examples")
    spread(ranks, model, moved)


def spread(ranks: Ranks, model: PreTrainedModel, moved: Collection[str]) -> None:
    """Let each rank have what the first one has of the parameters of these names, where each has all of them. Buffers are as they were pretrained, in each."""
    if ranks.world == 1 or ranks.in_step:
        return
    tables = parts(model).values()
    for part in tables:
        part.write()
    ranks.spread([parameter for name, parameter in model.named_parameters() if name in moved])
    for part in tables:
        part.read()


@torch.no_grad()
def stay_alike(ranks: Ranks, model: PreTrainedModel) -> None:
    """Raises RuntimeError where what is trained differs between ranks that have all of it each: then they no longer train one model."""
    if ranks.world == 1 or ranks.in_step:
        return
    sums = torch.stack([parameter.double().sum() for _, parameter in trained(model)]).cpu().numpy()
    if len(set(ranks.gathered(sums.tobytes()))) > 1:
        raise RuntimeError("the models of the processes have become different ones")
