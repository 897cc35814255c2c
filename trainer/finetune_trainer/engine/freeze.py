"""Which parameters keep their pretrained values."""

from __future__ import annotations

import difflib
import fnmatch
from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
from torch import nn
from transformers import PreTrainedModel

from finetune_api.failures import FailureReason, JobError
from finetune_api.training import Freeze
from finetune_trainer.engine.layers import (
    backbone,
    called,
    depths,
    join,
    layer_lists,
    name_in,
    towers,
    unasked,
    within,
)
from finetune_trainer.engine.nf4 import count
from finetune_trainer.engine.predict import Arithmetic
from finetune_trainer.engine.randomness import random_state, set_random_state
from finetune_trainer.engine.references import own_references
from finetune_trainer.tasks.base import Features, Task

FIELD = "spec.method.freeze"
SHOWN = 3
"""Parameters that a message names."""


@dataclass(frozen=True)
class ParameterCount:
    """How many numbers the optimiser moves and how many stay."""

    trained: int
    frozen: int

    @classmethod
    def of(cls, model: nn.Module) -> ParameterCount:
        named = (
            model.named_parameters()
        )  # beside adapters there is a second one of what is trained whole, which nothing reads
        moved = [(p.requires_grad, count(p)) for name, p in named if ".original_module." not in name]
        return cls(sum(n for moves, n in moved if moves), sum(n for moves, n in moved if not moves))

    def __str__(self) -> str:
        total = self.trained + self.frozen
        return f"{self.trained:,} of {total:,} parameters are trained ({100 * self.trained / total:.1f} %), {self.frozen:,} frozen"


def freeze(model: PreTrainedModel, what: Freeze | None, new: Collection[str] = ()) -> None:
    """Take the parameters that `what` names out of training; they get no gradient and no optimiser state. So it is with those that the
    model itself keeps, such as positions that are sines.

    `new` are the names of parameters without pretrained values, such as a pooler that the weights did not hold:
    `backbone` leaves them in training with the head. Raises JobError INVALID_SPEC when a choice matches nothing, asks for more layers
    than there are, or leaves nothing to train.
    """
    names = {name for name, _ in model.named_parameters()}
    frozen: set[str] = set()
    if what is not None:
        if what.embeddings:
            frozen |= within(model, embeddings(model))
        if what.lowest_layers:
            frozen |= _lowest(model, what.lowest_layers)
        if what.backbone:
            frozen |= within(model, _backbone(model)) - set(new)
        for index, pattern in enumerate(what.modules or ()):
            frozen |= _matching(model, names, pattern, f"{FIELD}.modules[{index}]")
    left = {name for name, parameter in model.named_parameters() if parameter.requires_grad} - frozen
    if not left:
        raise JobError(FailureReason.INVALID_SPEC, "every parameter is frozen, nothing is left to train", field=FIELD)
    train_only(model, left)


def train_only(model: nn.Module, names: Collection[str]) -> None:
    """Let these parameters get a gradient, and no others."""
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in names)


def has_part(task: Task, features: Features, arithmetic: Arithmetic) -> bool:
    """Whether anything that gets a gradient has a part in the loss, or is of experts that no token was sent to yet. Nothing is drawn from the
    random generators."""
    before = random_state()
    task.model.eval()
    few = [features.get(index, np.random.default_rng(index)) for index in range(min(2, len(features.rows)))]
    given = arithmetic.move(task.collate(few))
    with called(task.model) as asked:
        outputs = arithmetic.outputs(task, given)
    loss = task.losses(outputs, given | own_references(task, outputs))
    set_random_state(before)
    moving = {name.rpartition(".")[0] for name, parameter in task.model.named_parameters() if parameter.requires_grad}
    return loss.requires_grad or not moving.isdisjoint(unasked(task.model, asked))


def refuse_idle(task: Task, features: Features, arithmetic: Arithmetic) -> None:
    """Raise JobError INVALID_SPEC where nothing that is left to train has a part in the loss, such as a pooler that the task does not read:
    there would be no gradient, and the model would stay as it is."""
    if not has_part(task, features, arithmetic):
        left = [name for name, parameter in task.model.named_parameters() if parameter.requires_grad]
        more = f" and {len(left) - SHOWN} more" if len(left) > SHOWN else ""
        raise JobError(
            FailureReason.INVALID_SPEC,
            f"what is left to train, {', '.join(left[:SHOWN])}{more}, has no part in the answers of this task, so nothing would be learnt",
            field=FIELD,
            remedy=f"Freeze less: leave out some of {FIELD}.",
        )


def embeddings(model: PreTrainedModel) -> list[str]:
    """The dotted names of what stands before the first layer: the modules that hold the embeddings of tokens or patches with positions,
    types and their norm, or, where these lie beside the layers, each of them."""
    return [name for prefix, tower in towers(model) for name in _embeddings(prefix, tower)]


def _embeddings(prefix: str, tower: PreTrainedModel) -> list[str]:
    lists = layer_lists("", tower)
    layers = lists[0][0] if lists else ""
    try:
        tokens = name_in(tower, tower.get_input_embeddings())
    except (NotImplementedError, KeyError):  # of most models of images; Perceiver names what is no module
        body = name_in(tower, tower.base_model)
        names = []
        for name, _ in tower.base_model.named_children():
            names.append(join(body, name))
            if len(names) > 1 and (layers.startswith(f"{names[-1]}.") or layers == names[-1]):
                return [join(prefix, name) for name in names[:-1]]
        raise JobError(
            FailureReason.INVALID_SPEC,
            f"{type(tower).__name__} does not tell its embeddings from its layers",
            field=f"{FIELD}.embeddings",
            remedy=f"Name what to keep by patterns in {FIELD}.modules.",
        ) from None
    parent = tokens.rpartition(".")[0]
    if parent and not layers.startswith(f"{parent}."):
        return [join(prefix, parent)]
    siblings = tower.get_submodule(parent).named_children()
    return [join(prefix, parent, name) for name, module in siblings if isinstance(module, nn.Embedding)]


def _lowest(model: PreTrainedModel, count: int) -> set[str]:
    layers = depths(model)
    if not layers:
        raise JobError(
            FailureReason.INVALID_SPEC,
            f"{type(model).__name__} has no list of layers to count",
            field=f"{FIELD}.lowestLayers",
            remedy=f"Name what to keep by patterns in {FIELD}.modules.",
        )
    if count > len(layers):
        lists = " and ".join(name.rpartition(".")[0] for name in layers[0])
        raise JobError(
            FailureReason.INVALID_SPEC,
            f"lowestLayers is {count}, but the model has {len(layers)} layers ({lists})",
            field=f"{FIELD}.lowestLayers",
            remedy=f"Set {FIELD}.lowestLayers to at most {len(layers)}.",
        )
    return within(model, [name for depth in layers[:count] for name in depth])


def _backbone(model: PreTrainedModel) -> list[str]:
    found = backbone(model)
    if not found:
        raise JobError(
            FailureReason.INVALID_SPEC,
            f"{type(model).__name__} does not tell its backbone from its head",
            field=f"{FIELD}.backbone",
            remedy=f"Name what to keep by patterns in {FIELD}.modules.",
        )
    return found


def _matching(model: PreTrainedModel, names: set[str], pattern: str, field: str) -> set[str]:
    matched = {name for name in names if fnmatch.fnmatchcase(name, pattern)}
    if not matched:
        modules = {
            f"{name}.*" for name, module in model.named_modules() if name and any(True for _ in module.parameters())
        }
        near = difflib.get_close_matches(pattern, sorted(names | modules), n=3, cutoff=0.3) or sorted(names)[:3]
        raise JobError(
            FailureReason.INVALID_SPEC,
            f"the pattern {pattern!r} matches no parameter; the nearest that match are {', '.join(near)}",
            field=field,
            remedy="Correct the pattern, or remove it.",
        )
    return matched
