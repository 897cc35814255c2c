"""RMS normalisation (Zhang and Sennrich 2019) as torch's one kernel, where transformers' code is six, and twelve on the way back: on a GPU each of
them reads and writes all that goes through.

Both compute in fp32; transformers rounds what is normalised to bf16 before it multiplies by the scale, and the kernel does after.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn.functional import rms_norm

EPSILONS = "variance_epsilon", "eps"
"""What transformers' classes call it."""
SIZE = 64
MOST_NOISE = 0.02
"""Of the length of the whole: bf16 has eight bits."""


def use(model: nn.Module) -> int:
    """Let the layers of `model` normalise so whose class gives the same in that way; returns how many do."""
    named = [module for module in model.modules() if type(module).__name__.endswith("RMSNorm")]
    plain = {type(module): _is_plain(module) for module in named}
    found = [module for module in named if plain[type(module)]]
    for module in found:
        module.forward = partial(_normalised, module, _epsilon(module))
    return len(found)


def _normalised(module: Any, epsilon: float | None, hidden_states: torch.Tensor) -> torch.Tensor:
    if hidden_states.dtype != module.weight.dtype:  # then transformers' code gives the wider one
        found: torch.Tensor = type(module).forward(module, hidden_states)
        return found
    with torch.autocast(hidden_states.device.type, enabled=False):  # it would turn all to fp32 first
        return rms_norm(hidden_states, (hidden_states.shape[-1],), module.weight, epsilon)


def _epsilon(module: nn.Module) -> float | None:
    return next((value for name in EPSILONS if isinstance(value := getattr(module, name, None), float)), None)


def _is_plain(module: nn.Module) -> bool:
    """Tried with a small one of its class, where the model is, forward and backward: some add one to the scale (Gemma), or take groups of
    numbers or a gate."""
    epsilon = _epsilon(module)
    if epsilon is None or [name for name, _ in module.named_parameters()] != ["weight"]:
        return False
    generator = torch.Generator().manual_seed(0)
    small: Any = type(module).__new__(type(module))
    nn.Module.__init__(small)
    small.__dict__ |= {name: value for name, value in vars(module).items() if name[:1] != "_" and name != "forward"}
    drawn = [torch.randn(*shape, generator=generator) for shape in ((SIZE,), (3, SIZE), (3, SIZE))]
    weight, given, upstream = (values.to(next(module.parameters()).device, torch.bfloat16) for values in drawn)
    small.weight = nn.Parameter(weight)
    # Small and large ones: of the small ones the epsilon counts.
    sizes = torch.tensor([epsilon**0.5, 1.0, 30.0], device=given.device, dtype=given.dtype).unsqueeze(-1)
    given = (given * sizes).requires_grad_()
    try:
        wanted, found = small(given), _normalised(small, epsilon, given)
        theirs, ours = (torch.autograd.grad(one, [given, small.weight], upstream) for one in (wanted, found))
    except (RuntimeError, TypeError, ValueError, AttributeError):
        return False
    pairs = zip([wanted, *theirs], [found, *ours], strict=True)
    return all(one.dtype == other.dtype and one.shape == other.shape and _near(one, other) for one, other in pairs)


def _near(found: torch.Tensor, wanted: torch.Tensor) -> bool:
    return bool((found - wanted).norm() <= MOST_NOISE * wanted.norm())
