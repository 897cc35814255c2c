"""Which parameters keep their pretrained values, for any transformers encoder, found from the model's own structure."""

from __future__ import annotations

import difflib
import fnmatch
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from torch import nn
from transformers import PreTrainedModel

from finetune_api.failures import FailureReason, JobError
from finetune_api.training import Freeze

FIELD = "spec.method.freeze"


@dataclass(frozen=True)
class ParameterCount:
    """How many numbers the optimiser moves and how many stay."""

    trained: int
    frozen: int

    def __str__(self) -> str:
        total = self.trained + self.frozen
        return f"{self.trained:,} of {total:,} parameters are trained ({100 * self.trained / total:.1f} %), {self.frozen:,} frozen"


def freeze(model: PreTrainedModel, what: Freeze | None, new: Collection[str] = ()) -> ParameterCount:
    """Take the parameters that `what` names out of training; they get no gradient and no optimiser state.

    `new` are the names of parameters without pretrained values, such as a pooler that the weights did not hold:
    `backbone` leaves them in training with the head. Raises JobError INVALID_SPEC when a choice matches nothing, asks for more layers
    than there are, or leaves nothing to train.
    """
    names = {name for name, _ in model.named_parameters()}
    frozen: set[str] = set()
    if what is not None:
        if what.embeddings:
            frozen |= _within(names, embeddings(model))
        if what.lowest_layers:
            frozen |= _lowest(model, names, what.lowest_layers)
        if what.backbone:
            frozen |= _within(names, [_backbone(model)]) - set(new)
        for index, pattern in enumerate(what.modules or ()):
            frozen |= _matching(model, names, pattern, f"{FIELD}.modules[{index}]")
    if names <= frozen:
        raise JobError(FailureReason.INVALID_SPEC, "every parameter is frozen, nothing is left to train", field=FIELD)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name not in frozen)
    return ParameterCount(
        trained=sum(p.numel() for p in model.parameters() if p.requires_grad),
        frozen=sum(p.numel() for p in model.parameters() if not p.requires_grad),
    )


def embeddings(model: PreTrainedModel) -> list[str]:
    """The dotted names of the embedding modules: the one that holds the token embeddings with positions, types and their norm,
    or, where they lie beside the layers, each of them."""
    modules = dict(model.named_modules())
    tokens = next(name for name, module in modules.items() if module is model.get_input_embeddings())
    parent = tokens.rpartition(".")[0]
    if not _layer_list(model)[0].startswith(f"{parent}."):
        return [parent]
    siblings = modules[parent].named_children()
    return [f"{parent}.{name}" for name, module in siblings if isinstance(module, nn.Embedding)]


def _layer_list(model: PreTrainedModel) -> tuple[str, nn.ModuleList]:
    """The name and the list of the model's layers: its longest list of modules that is not inside another one."""
    lists = [(name, module) for name, module in model.named_modules() if isinstance(module, nn.ModuleList)]
    outermost = [
        (name, module) for name, module in lists if not any(name.startswith(f"{outer}.") for outer, _ in lists)
    ]
    if not outermost:
        raise JobError(
            FailureReason.INVALID_SPEC,
            f"{type(model).__name__} has no list of layers to count",
            field=f"{FIELD}.lowestLayers",
            remedy=f"Name what to keep by patterns in {FIELD}.modules.",
        )
    return max(outermost, key=lambda item: len(item[1]))


def _lowest(model: PreTrainedModel, names: set[str], count: int) -> set[str]:
    prefix, layers = _layer_list(model)
    if count > len(layers):
        raise JobError(
            FailureReason.INVALID_SPEC,
            f"lowestLayers is {count}, but the model has {len(layers)} layers ({prefix})",
            field=f"{FIELD}.lowestLayers",
            remedy=f"Set {FIELD}.lowestLayers to at most {len(layers)}.",
        )
    return _within(names, [f"{prefix}.{index}" for index in range(count)])


def _backbone(model: PreTrainedModel) -> str:
    if model.base_model is model:
        raise JobError(
            FailureReason.INVALID_SPEC,
            f"{type(model).__name__} does not tell its backbone from its head",
            field=f"{FIELD}.backbone",
            remedy=f"Name what to keep by patterns in {FIELD}.modules.",
        )
    backbone: str = next(name for name, module in model.named_modules() if module is model.base_model)
    return backbone


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


def _within(names: set[str], modules: Iterable[str]) -> set[str]:
    prefixes = tuple(f"{module}." for module in modules)
    return {name for name in names if name.startswith(prefixes)}
