"""A base of which nothing but adapters will be trained may stay in bf16 when it was stored so: half of the memory, a third of what it takes
while it is loaded.

What is proved of a model is proved in fp32. So until all of that is done each layer computes by a copy of its numbers in fp32, which lasts as
long as its pass: the same answers, to the last bit, as of a model that was loaded in fp32.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

_hooks: ContextVar[list[RemovableHandle] | None] = ContextVar("as_stored", default=None)
"""Those of the models that were loaded; None where all are loaded in fp32."""
STORED = "_stored_parameters"


class ReadByOthers(Exception):
    """The type of a layer's weights decides what the model around it computes, as in T5: such a model has to be loaded in fp32."""


@contextmanager
def kept_as_stored() -> Iterator[None]:
    """Within, models that are stored in bf16 are loaded so, and compute in fp32. Raises ReadByOthers where one does not."""
    hooks: list[RemovableHandle] = []
    token = _hooks.set(hooks)
    try:
        yield
    finally:
        _hooks.reset(token)
        for hook in hooks:
            hook.remove()


def dtype_of(stored: Mapping[str, tuple[str, tuple[int, ...]]]) -> torch.dtype:
    """In which a model is loaded whose tensors are of these types and shapes: fp32 unless it is to be kept as stored."""
    in_bf16 = all(kind == "BF16" for kind, _ in stored.values())
    return torch.bfloat16 if in_bf16 and _hooks.get() is not None else torch.float32


def compute_in_fp32(model: nn.Module) -> None:
    """Until all is proved, let the layers of `model` compute by copies."""
    hooks = _hooks.get()
    assert hooks is not None
    for module in model.modules():
        if any(parameter.dtype == torch.bfloat16 for parameter in module.parameters(recurse=False)):
            hooks.append(module.register_forward_pre_hook(_take))
            hooks.append(module.register_forward_hook(_give_back, always_call=True))


def _take(module: nn.Module, given: tuple[Any, ...]) -> None:
    if any(isinstance(one, torch.Tensor) and one.dtype == torch.bfloat16 for one in given):
        raise ReadByOthers
    stored = dict(module._parameters)
    module.__dict__[STORED] = stored
    for name, parameter in stored.items():
        if parameter is not None and parameter.dtype == torch.bfloat16:
            module._parameters[name] = nn.Parameter(parameter.float(), requires_grad=parameter.requires_grad)


def _give_back(module: nn.Module, *_: Any) -> None:
    module._parameters.update(module.__dict__.pop(STORED))
