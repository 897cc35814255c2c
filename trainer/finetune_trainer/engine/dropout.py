"""Dropout on a CPU with a quarter of the random numbers: 16 bits an element, drawn four at once.

Torch draws one after another on most processors, 64 bits an element, which takes longer than what dropout is put on. The bits are from
its own generator, so they come back with a checkpoint.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

VALUES = 2**16
"""Of 16 bits. A probability is rounded to one of these parts, and what is kept is scaled by the rounded one, so that means stay."""


def dropout(values: torch.Tensor, p: float) -> torch.Tensor:
    """`values` with each element set to 0 with probability `p`, the others divided by 1 - p."""
    if values.device.type != "cpu" or not 0 < round(p * VALUES) < VALUES:
        return nn.functional.dropout(values, p)
    dropped: torch.Tensor = _Dropout.apply(values, round(p * VALUES))
    return dropped


class Dropout(nn.Dropout):
    """The module, with nothing of its own."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return dropout(input, self.p) if self.training else input


class _Dropout(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: torch.Tensor, dropped: int) -> torch.Tensor:
        factors = _factors(values, dropped)
        ctx.save_for_backward(factors)
        return values * factors

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
        (factors,) = ctx.saved_tensors
        return gradient * factors, None


def _factors(values: torch.Tensor, dropped: int) -> torch.Tensor:
    """0 for `dropped` of the 65,536 values that 16 bits have, for the others what keeps the mean."""
    quarters = torch.empty(-(-values.numel() // 4), dtype=torch.int64).random_(-(2**63), None)
    bits = quarters.view(torch.int16)[: values.numel()].view(values.shape)
    least_kept = dropped - VALUES // 2  # bits are read as signed numbers
    kept = bits.clamp_(least_kept - 1, least_kept).sub_(least_kept - 1)  # 0 or 1, faster than a comparison
    return kept.to(values.dtype).mul_(VALUES / (VALUES - dropped))
