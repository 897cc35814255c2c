"""What a GPU would make of memory, without one: its autocast, dropout and attention, of tensors that have shapes only.

Autocast of CUDA computes other functions in fp32 than that of CPUs, dropout keeps a byte an element, and attention keeps no scores.
https://docs.pytorch.org/docs/stable/amp.html#cuda-op-specific-behavior
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

IN_BF16 = frozenset(
    {
        *(
            "linear",
            "bilinear",
            "conv1d",
            "conv2d",
            "conv3d",
            "conv_transpose1d",
            "conv_transpose2d",
            "conv_transpose3d",
        ),
        *(
            "matmul",
            "__matmul__",
            "__rmatmul__",
            "mm",
            "mv",
            "bmm",
            "addmm",
            "addbmm",
            "baddbmm",
            "addmv",
            "einsum",
            "prelu",
        ),
        *("scaled_dot_product_attention", "multi_dot", "chain_matmul"),
    }
)
IN_FP32 = frozenset(
    {
        *("__pow__", "__rpow__", "__rtruediv__", "acos", "asin", "cosh", "sinh", "tan", "exp", "expm1", "erfinv"),
        *("log", "log10", "log1p", "log2", "pow", "prod", "reciprocal", "rsqrt", "sum", "cumsum", "cumprod", "norm"),
        *("softmax", "softmin", "log_softmax", "softplus", "layer_norm", "group_norm", "normalize", "renorm"),
        *("cross_entropy", "nll_loss", "mse_loss", "l1_loss", "smooth_l1_loss", "kl_div", "cosine_similarity", "cdist"),
        *("binary_cross_entropy_with_logits", "rms_norm"),
    }
)


CAST = IN_BF16 | IN_FP32


class NoQuestions(TorchFunctionMode):
    """Within, code that asks what a number is, such as whether a layer is dropped this time, is told no: nothing is dropped."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function is torch.Tensor.__bool__:
            return False
        return function(*args, **(kwargs or {}))


class OnAGpu(TorchFunctionMode):
    """Within, functions take as much as on a GPU; `bf16` is whether it computes in bf16."""

    def __init__(self, bf16: bool) -> None:
        super().__init__()
        self._bf16 = bf16
        self._copies: dict[int, torch.Tensor] = {}
        self._keeps = True

    def leave_autocast(self) -> None:
        """Keep no copies of weights any more, as when a forward pass is over; what is computed again has copies of its own."""
        self._copies.clear()
        self._keeps = False

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name, kwargs = getattr(function, "__name__", ""), kwargs or {}
        if function is torch.Tensor.__bool__:
            return False
        if name == "dropout":
            return _dropout(*args, **kwargs)
        if name == "rms_norm":  # one kernel, which is called beside autocast
            return torch.ops.aten._fused_rms_norm(*args, **kwargs)[0]
        if self._bf16 and name in CAST:
            dtype = torch.bfloat16 if name in IN_BF16 else torch.float32
            args, kwargs = self._cast(args, dtype), self._cast(kwargs, dtype)
        if name == "scaled_dot_product_attention":
            return _attention(*args, **kwargs)
        return function(*args, **kwargs)

    def _cast(self, given: Any, dtype: torch.dtype) -> Any:
        if isinstance(given, tuple | list):
            return type(given)(self._cast(one, dtype) for one in given)
        if isinstance(given, dict):
            return {name: self._cast(one, dtype) for name, one in given.items()}
        if not isinstance(given, torch.Tensor) or not given.is_floating_point() or given.dtype == dtype:
            return given
        if not (self._keeps and isinstance(given, nn.Parameter) and given.requires_grad):
            return given.to(dtype)
        if id(given) not in self._copies:
            self._copies[id(given)] = given.to(dtype)
        return self._copies[id(given)]


def _dropout(input: torch.Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> torch.Tensor:
    return torch.native_dropout(input, p, True)[0] if training and p else input


def _attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attn_mask: torch.Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> torch.Tensor:
    """By the kernel that takes masks, and for which one of true and false becomes numbers; without one in half precision by that for which
    several heads may share keys and values."""
    if attn_mask is None and query.dtype in (torch.bfloat16, torch.float16):
        of_flash: torch.Tensor = torch.ops.aten._scaled_dot_product_flash_attention(
            query, key, value, dropout_p, is_causal, scale=scale
        )[0]
        return of_flash
    if enable_gqa:
        groups = query.shape[-3] // key.shape[-3]
        key, value = (one.repeat_interleave(groups, -3) for one in (key, value))
    bias = attn_mask
    if bias is not None:
        if bias.dtype == torch.bool:
            bias = torch.zeros_like(bias, dtype=query.dtype).masked_fill(~bias, -torch.inf)
        bias = bias.to(query.dtype).expand(*query.shape[:-1], key.shape[-2])
    found: torch.Tensor = torch.ops.aten._scaled_dot_product_efficient_attention(
        query, key, value, bias, True, dropout_p, is_causal, scale=scale
    )[0]
    return found
