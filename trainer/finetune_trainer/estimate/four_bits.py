"""A layer whose weight is held in four bits, of tensors that have shapes only: what bitsandbytes keeps of one, and works with."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from finetune_trainer.engine.nf4 import BLOCK

BLOCK_OF_LARGEST = 256
"""Largest magnitudes that share one of their own, in fp32."""


class FourBits(nn.Module):
    """In the place of `Nf4`."""

    def __init__(self, layer: nn.Linear | Conv1D, dtype: torch.dtype) -> None:
        """`dtype` is that of the numbers that the weight is unpacked to."""
        super().__init__()
        weight = layer.weight
        self._shape = torch.Size(reversed(weight.shape)) if isinstance(layer, Conv1D) else weight.shape
        self._dtype = dtype
        numbers = weight.numel()
        blocks = -(-numbers // BLOCK)
        self.weight = nn.Parameter(weight.new_empty((-(-numbers // 2), 1), dtype=torch.uint8), requires_grad=False)
        self.weight.quant_state = SimpleNamespace(shape=self._shape)  # type: ignore[attr-defined]
        self.register_buffer("largest", weight.new_empty(blocks, dtype=torch.uint8), persistent=False)
        self.register_buffer("largest_of_those", weight.new_empty(-(-blocks // BLOCK_OF_LARGEST)), persistent=False)
        self.bias = layer.bias

    @property
    def W_q(self) -> torch.Tensor:  # noqa: N802
        """By which peft knows that there is a `dequantize`."""
        return self.weight

    def dequantize(self) -> torch.Tensor:
        """The weight in full, shape (out, in)."""
        return self.weight.new_empty(self._shape, dtype=self._dtype)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = _Multiply.apply(x.to(self._dtype), self)
        return found if self.bias is None else found + self.bias.to(self._dtype)


class _Multiply(torch.autograd.Function):
    """By a weight that is unpacked anew for the way back."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, layer: FourBits) -> torch.Tensor:
        ctx.layer = layer
        return x @ layer.dequantize().T

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        return gradients[0] @ ctx.layer.dequantize(), None
