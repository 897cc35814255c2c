"""A step of a model of many layers that are alike, by five of them.

Of each run of such layers two at each end are computed and one between, and what that keeps stands for all between: what of its own is alive once
the next one is done, what went into it, and its gradients. While it is computed itself nothing is counted. At the same point of each layer in
turn as much more is alive as at that of the one before, or as much less, so that no one between takes more than both beside it do, the second
and the last but one. The outermost may be otherwise: what goes into the first one may need no gradient.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_leaves
from transformers import PreTrainedModel

from finetune_trainer.engine.layers import layer_lists, towers
from finetune_trainer.estimate.meter import LiveBytes, Made

ENDS = 2
"""Layers that are computed at each end of a run."""
FEWEST = 2 * ENDS + 2
"""Layers of a run of which fewer have to be computed."""
NUMBER = re.compile(r"layer_?(idx|id|index|number)|idx|index|depth|position")
"""How attributes are called that say which one a layer is."""


@dataclass(frozen=True)
class Run:
    """Layers one after another that are alike."""

    layers: Sequence[nn.Module]

    @property
    def between(self) -> Sequence[nn.Module]:
        """For which the first of them stands."""
        return self.layers[ENDS:-ENDS]

    @property
    def computed(self) -> nn.Module:
        return self.between[0]

    @property
    def next(self) -> nn.Module:
        """Which is computed after that."""
        return self.layers[-ENDS]


class Alike:
    """The runs of a model."""

    def __init__(self, model: PreTrainedModel) -> None:
        self._model = model
        self._lists: list[tuple[str, nn.ModuleList, list[Run]]] = []
        for name, tower in towers(model):
            found = layer_lists(name, tower)
            if len(found) != 1 or _tells_by_number(tower, len(found[0][1])):
                continue  # where parts of a layer stand in several lists, or the config has a word for each, they are called by their numbers
            self._lists.append((*found[0], list(_runs(list(found[0][1])))))

    @property
    def runs(self) -> list[Run]:
        return [run for _, _, runs in self._lists for run in runs]

    def stands_for(self) -> Mapping[nn.Parameter, nn.Parameter]:
        """Parameters of layers that are not computed, and whose gradients are as large as theirs."""
        return {
            other: one
            for run in self.runs
            for layer in run.between[1:]
            for other, one in zip(layer.parameters(), run.computed.parameters(), strict=True)
        }

    def multiply_gradients(self, meter: LiveBytes) -> None:
        """Those that there are of what stands for others."""
        for run in self.runs:
            for parameter in run.computed.parameters():
                if parameter.grad is not None:
                    meter.made(parameter.grad).times = len(run.between)

    @contextmanager
    def shortened(self, meter: LiveBytes) -> Iterator[None]:
        """Within, the model has no more layers than are computed, and `meter` is told for how many each stands."""
        with ExitStack() as stack:
            for name, layers, runs in self._lists:
                left_out = {id(layer) for run in runs for layer in run.between[1:]}
                parent, _, own = name.rpartition(".")
                holder = self._model.get_submodule(parent)
                setattr(holder, own, nn.ModuleList([layer for layer in layers if id(layer) not in left_out]))
                stack.callback(setattr, holder, own, layers)
                for run in runs:
                    stack.enter_context(_watched(run, meter))
            yield


def _tells_by_number(tower: nn.Module, count: int) -> bool:
    """Whether the config says something else of one layer than of another."""
    said = vars(getattr(tower, "config", tower)).values()
    return any(isinstance(one, list) and len(one) == count and any(other != one[0] for other in one) for one in said)


def _runs(layers: Sequence[nn.Module]) -> Iterator[Run]:
    begin = 0
    said = [_structure(layer) for layer in layers]
    for number in range(1, len(layers) + 1):
        if number == len(layers) or said[number] != said[number - 1]:
            if number - begin >= FEWEST:
                yield Run(layers[begin:number])
            begin = number


def _structure(layer: nn.Module) -> Any:
    """Equal for layers that compute the same, whatever their numbers are."""
    plain = (str, bool, int, float, type(None))
    modules = [
        (
            name,
            type(one),
            "forward" in vars(one),
            {k: v for k, v in vars(one).items() if isinstance(v, plain) and not NUMBER.search(k)},
        )
        for name, one in layer.named_modules()
    ]
    tensors = [
        (name, one.shape, one.dtype, one.requires_grad)
        for name, one in (*layer.named_parameters(), *layer.named_buffers())
    ]
    return modules, tensors


@contextmanager
def _watched(run: Run, meter: LiveBytes) -> Iterator[None]:
    begin = end = 0
    given: Made | None = None
    made: Made | None = None  # no tensors, which would live for longer by that

    def enters(_: nn.Module, args: Any, kwargs: Any) -> None:
        nonlocal begin, given
        if not _on_the_way_back():
            given = meter.made(_hidden((args, kwargs)))
            meter.stop_counting()
            begin = meter.now

    def leaves(_: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        nonlocal end, made
        if _on_the_way_back():
            return
        came, goes = _hidden((args, kwargs)), _hidden(output)
        if goes.requires_grad:
            goes.register_hook(lambda gradient: meter.stop_counting())  # type: ignore[no-untyped-call]
            came.register_hook(lambda gradient: meter.go_on_counting())  # type: ignore[no-untyped-call]
        end, made = meter.now, meter.made(goes)
        meter.go_on_counting()

    def next_is_done(*_: Any) -> None:
        nonlocal given, made
        if _on_the_way_back():
            return
        if given is None or made is None:
            raise ValueError("it came before the one that it stands behind")
        kept = [one for one in (*meter.between(begin, end), given) if one.died is None and one is not made]
        for one in kept:
            one.times = len(run.between)
        given = made = None

    handles = [
        run.computed.register_forward_pre_hook(enters, with_kwargs=True),
        run.computed.register_forward_hook(leaves, with_kwargs=True),
        run.next.register_forward_hook(next_is_done),
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _on_the_way_back() -> bool:
    """Where layers are computed again."""
    return torch._C._current_graph_task_id() != -1


def _hidden(values: Any) -> torch.Tensor:
    """What goes on from layer to layer: the first tensor of numbers."""
    return next(one for one in tree_leaves(values) if isinstance(one, torch.Tensor) and one.is_floating_point())
