"""Attention within texts that stand end to end, by the kernel that torch has for them (flash attention, Dao et al. 2022): it knows where texts
begin, needs no mask, computes nothing between two of them and keeps no scores.

It is there for GPUs that compute in bf16, and is used on those where it was proved in this process. Of its two forms the one that is made for
any lengths is taken: cuDNN's is planned anew for each number of texts.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from finetune_trainer.documents import Documents

LARGEST_HEAD = 256
LENGTHS = ((150, 1, 37, 68), (256,))
"""Of the texts of the features that it is tried on."""
MOST_NOISE = 0.02
"""Of the length of the whole: the numbers of bf16 are off by a fifth of that; what is seen of other texts changes it by a third or more."""

_PROVED: set[str] = set()
"""Kinds of devices on which the latest proof held: a process trains one model, and that was of its heads."""


def works_on(device: torch.device | str) -> bool:
    """Whether it was proved there."""
    return torch.device(device).type in _PROVED


def takes(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> bool:
    """Whether it is made for such tensors, of shape (features, heads, tokens, size) each."""
    size = query.shape[-1]
    shapes = key.shape == value.shape and key.shape[2:] == query.shape[2:] and size % 8 == 0 and size <= LARGEST_HEAD
    return works_on(query.device) and shapes and _precision(query) in (torch.bfloat16, torch.float16)


def attend(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, documents: Documents, scaling: float | None
) -> torch.Tensor:
    """Of tensors of shape (features, heads, tokens, size), shape (features, tokens, heads, size): each token sees those of its text up to
    itself."""
    features, heads, tokens, size = query.shape
    query, key, value = (one.transpose(1, 2).flatten(0, 1).to(_precision(query)) for one in (query, key, value))
    starts, longest = documents.starts, tokens  # how long the longest is in truth a step would have to wait for
    with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
        found: torch.Tensor = _kernel()(query, key, value, starts, starts, longest, longest, scale=scaling)
    return found.view(features, tokens, heads, size)


def prove(device: torch.device, heads: int, shared: int, size: int) -> bool:
    """Whether it gives, on this device, what attention by a mask gives, forward and backward, of so many heads of queries, and of keys and
    values, of that size. It is used from then on, if so, and only then."""
    proved = _agrees(device, heads, shared, size)
    (_PROVED.add if proved else _PROVED.discard)(device.type)
    return proved


def _agrees(device: torch.device, heads: int, shared: int, size: int) -> bool:
    generator = torch.Generator().manual_seed(0)
    documents = _documents(LENGTHS, device)
    features, tokens = documents.numbers.shape
    drawn = [torch.randn(features, count, tokens, size, generator=generator) for count in (heads, shared, shared)]
    query, key, value = given = [one.to(device, torch.bfloat16).requires_grad_() for one in drawn]
    upstream = torch.randn(features, tokens, heads, size, generator=generator).to(device, torch.bfloat16)
    try:
        found = attend(query, key, value, documents, None)
        ours = [found, *torch.autograd.grad(found, given, upstream)]
    except (
        RuntimeError,
        TypeError,
        ValueError,
        NotImplementedError,
    ):  # there is none for this device, or not for such heads
        return False
    exact = [one.detach().float().requires_grad_() for one in given]
    groups = heads // shared
    query, key, value = exact[0], *(one.repeat_interleave(groups, 1) for one in exact[1:])
    wanted = scaled_dot_product_attention(query, key, value, attn_mask=documents.causal).transpose(1, 2)
    theirs = [wanted, *torch.autograd.grad(wanted, exact, upstream.float())]
    return all(_near(one, other) for one, other in zip(ours, theirs, strict=True))


@cache
def _kernel() -> Callable[..., Any]:
    """torch's, within which each token sees those before it. It takes a second to import."""
    from torch.nn.attention.varlen import varlen_attn

    # That several heads of queries share one of keys is taken for granted by older versions.
    shared: dict[str, Any] = {"enable_gqa": True} if "enable_gqa" in inspect.signature(varlen_attn).parameters else {}
    return partial(varlen_attn, window_size=(-1, 0), **shared)


def _near(found: torch.Tensor, wanted: torch.Tensor) -> bool:
    return bool((found.float() - wanted).norm() <= MOST_NOISE * wanted.norm())


def _documents(lengths: Sequence[Sequence[int]], device: torch.device) -> Documents:
    numbers = torch.stack([torch.arange(len(each)).repeat_interleave(torch.tensor(each)) for each in lengths])
    positions = torch.stack([torch.cat([torch.arange(length) for length in each]) for each in lengths])
    starts = torch.tensor([0, *(length for each in lengths for length in each)]).cumsum(0).to(torch.int32)
    return Documents(numbers.to(device), positions.to(device), starts.to(device))


def _precision(query: torch.Tensor) -> torch.dtype:
    """What products of it are computed in."""
    kind = query.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else query.dtype
