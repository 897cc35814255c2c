"""Weights in four bits, of linear layers that are not trained themselves: QLoRA (Dettmers et al. 2023, https://arxiv.org/abs/2305.14314).

Of every 64 numbers the largest magnitude is kept, in eight bits, and each number as the nearest of 16 parts of it (NF4), which lie where
numbers of a normal distribution do: half a byte a weight, and little more. bitsandbytes quantises, and multiplies.

A model is loaded, and all is proved of it, as without. Then each layer is replaced alone, and it is proved that what takes its place has
the same weights but for that rounding, and multiplies by them: bitsandbytes has a kernel for each kind of device, and number of rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from finetune_api.failures import FailureReason, JobError
from finetune_trainer.said import first_line

BLOCK = 64
"""Numbers that share a largest magnitude."""
ROUNDING = 0.152
"""Of that magnitude: half the distance of the two parts that lie farthest apart, −1 and −0.696."""
ROUNDING_OF_LARGEST = 0.0071
"""Of the largest magnitude of all: half the distance of the largest two numbers of eight bits that magnitudes are kept as."""
ROWS = (1, 16)
"""For so many at once there are kernels of their own."""
CLOSE = {torch.bfloat16: 0.02, torch.float32: 1e-3}
"""How far products are from those by the weight that is meant, as a part of these, by type."""
LAYERS = (nn.Linear, Conv1D)
"""What can be replaced. Not what is made of one, whose code may be another."""
WORKS_ON = frozenset({"cuda"})
"""Kinds of devices."""


def refuse_here() -> None:
    """Raise JobError INVALID_SPEC where there is no CUDA device, or no bitsandbytes."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if device not in WORKS_ON:
        raise JobError(
            FailureReason.INVALID_SPEC,
            "weights in four bits take a CUDA GPU, and no CUDA device is visible",
            field="spec.method.type",
            remedy="Ask for an NVIDIA GPU in spec.resources.limits, such as nvidia.com/gpu: 1; or set spec.method.type to lora.",
        )
    library()


def library() -> Any:
    """bitsandbytes. Raises JobError INVALID_SPEC where the image has none."""
    try:
        import bitsandbytes
    except (ImportError, OSError, RuntimeError) as error:
        raise JobError(
            FailureReason.INVALID_SPEC,
            f"this trainer image cannot load bitsandbytes, which holds weights in four bits: {first_line(error)}",
            field="spec.image",
            remedy="Name an image in spec.image that was built with --build-arg EXTRAS=gpu; or set spec.method.type to lora.",
        ) from error
    return bitsandbytes


class Nf4(nn.Module):
    """A linear layer whose weight, shape (out, in), is held in four bits. It computes as `nn.Linear` would with the weight that these
    stand for, under autocast too."""

    def __init__(self, layer: nn.Linear | Conv1D, device: torch.device, dtype: torch.dtype) -> None:
        """Of a layer's weight, as numbers of type `dtype`. Raises JobError INVALID_SPEC where what is held stands for others, or is not
        what is multiplied by."""
        super().__init__()
        found = library()
        given = layer.weight.detach().to(device, dtype)
        whole = (given.T if isinstance(layer, Conv1D) else given).contiguous()
        how = {"blocksize": BLOCK, "compress_statistics": True, "quant_type": "nf4"}
        packed, state = found.functional.quantize_4bit(whole, **how)
        self.weight = found.nn.Params4bit(packed, requires_grad=False, quant_state=state, bnb_quantized=True, **how)
        self.bias = None if layer.bias is None else nn.Parameter(layer.bias.detach(), requires_grad=False)
        self._multiply = found.matmul_4bit
        meant = found.functional.dequantize_4bit(packed, state)
        if wrong := _weights_are_off(whole, meant) or self._products_are_off(whole, meant):
            raise JobError(
                FailureReason.INVALID_SPEC,
                f"bitsandbytes {found.__version__} does not hold a weight of {' × '.join(map(str, whole.shape))} in four bits on "
                f"{device}: {wrong}",
                field="spec.image",
                remedy="Use another image, or another kind of GPU; or set spec.method.type to lora.",
            )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        kind = x.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype
        bias = None if self.bias is None else self.bias.to(dtype)
        found: torch.Tensor = self._multiply(x.to(dtype), self.weight, self.weight.quant_state, bias=bias)
        return found

    @torch.no_grad()
    def _products_are_off(self, whole: torch.Tensor, meant: torch.Tensor) -> str | None:
        """By its own first rows, as good as any."""
        for rows in ROWS:
            given = whole[:rows]
            wanted = given @ meant.T
            off = (self._multiply(given, self.weight, self.weight.quant_state) - wanted).float().norm()
            if not bool(off <= CLOSE[whole.dtype] * wanted.float().norm()):  # NaN is not either
                return f"products of {rows} rows are off by {off / wanted.float().norm():.2g} of themselves"
        return None


def count(parameter: nn.Parameter) -> int:
    """The numbers that it stands for."""
    state = getattr(parameter, "quant_state", None)
    return parameter.numel() if state is None else state.shape.numel()


def is_quantised(parameter: nn.Parameter) -> bool:
    """Whether it is in four bits."""
    return getattr(parameter, "quant_state", None) is not None


@contextmanager
def read_by_others(layers: Mapping[str, nn.Module]) -> Iterator[set[str]]:
    """Within, the names of those layers are collected whose weight is read by others than themselves, such as T5's, to which what goes in
    is made equal in type: quantised numbers would mean something else there."""
    read: set[str] = set()
    kinds = {name: type(layer) for name, layer in layers.items()}
    for name, layer in layers.items():
        layer.__class__ = _watched(type(layer), name, read)
    try:
        yield read
    finally:
        for name, layer in layers.items():
            layer.__class__ = kinds[name]


def _watched(kind: type[nn.Module], name: str, read: set[str]) -> type[nn.Module]:
    class Watched(kind):  # type: ignore[valid-type, misc]
        inside = False

        def forward(self, *given: Any, **more: Any) -> Any:
            self.__dict__["inside"] = True
            try:
                return super().forward(*given, **more)
            finally:
                del self.__dict__["inside"]

        def __getattr__(self, asked: str) -> Any:  # which parameters are found by
            if asked == "weight" and not self.inside:
                read.add(name)
            return super().__getattr__(asked)

    return Watched


def _weights_are_off(whole: torch.Tensor, meant: torch.Tensor) -> str | None:
    """Where one is farther from what it is to be than four bits take it, which one."""
    flat, other = whole.float().flatten(), meant.float().flatten()
    missing = -len(flat) % BLOCK
    off = nn.functional.pad((flat - other).abs(), (0, missing)).view(-1, BLOCK)
    largest = nn.functional.pad(flat.abs(), (0, missing)).view(-1, BLOCK).amax(dim=1, keepdim=True)
    allowed = (ROUNDING + torch.finfo(whole.dtype).eps) * largest + ROUNDING_OF_LARGEST * largest.max()
    if bool((off <= allowed).all()):
        return None
    worst = int((off - allowed).nan_to_num(torch.inf).argmax())
    return f"{flat[worst]:.4g} is held as {other[worst]:.4g}, of {BLOCK} numbers up to {largest.flatten()[worst // BLOCK]:.4g}"
