"""Attention as torch computes it fastest in training, through transformers' interface for implementations of others.

On a CPU torch's own has no fast way with dropout; here it is two products, a softmax and our dropout between them. On a GPU
transformers looks at each mask whether it masks anything, for which a step has to wait; here the mask is always given.

Of features of several texts (`documents.py`) each token attends within its own: by the mask, or, where `flash.py` is proved, by a kernel that
computes nothing else.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward
from transformers.masking_utils import causal_mask_function, sdpa_mask

from finetune_trainer.documents import read_now
from finetune_trainer.engine import flash
from finetune_trainer.engine.dropout import dropout as drop

NAME = "in_training"
OF_NO_CONCERN = frozenset({"use_cache"})
"""What an encoder hands on from its config: whether keys and values are kept, which attention does not do."""
HARMLESS = frozenset({"position_ids", "sliding_window"})
"""What layers hand on besides, and what says nothing where no mask does."""


def attend(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    is_causal: bool | None = None,
    **others: Any,
) -> tuple[torch.Tensor, None]:
    """What transformers calls for each layer: query, key and value of shape (batch, heads, tokens, size), a mask that is true where
    there is something to look at; returns (batch, tokens, heads, size)."""
    causal = is_causal if is_causal is not None else getattr(module, "is_causal", True)
    more = {name for name, other in others.items() if other is not None and other is not False} - OF_NO_CONCERN
    documents = read_now()
    if documents is not None and attention_mask is None:
        if more <= HARMLESS and causal and not dropout and flash.takes(query, key, value):
            return flash.attend(query, key, value, documents, scaling), None
        attention_mask = documents.causal
    if not dropout or query.device.type != "cpu" or (attention_mask is None and causal) or more:
        found: tuple[torch.Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout, scaling, is_causal, **others
        )
        return found
    groups = getattr(module, "num_key_value_groups", 1)
    scores = (query * (query.shape[-1] ** -0.5 if scaling is None else scaling)) @ repeat_kv(key, groups).mT
    if attention_mask is not None:
        if attention_mask.dtype == torch.bool:
            scores = scores.masked_fill(~attention_mask, torch.finfo(scores.dtype).min)
        else:
            scores = scores + attention_mask
    weights = drop(scores.softmax(-1), dropout)
    return (weights @ repeat_kv(value, groups)).transpose(1, 2).contiguous(), None


def mask(*, device: torch.device | None = None, **how: Any) -> torch.Tensor | None:
    """The mask of each layer as torch's own attention gets it; none where texts stand side by side and a kernel keeps them apart."""
    documents = read_now()
    if documents is not None:
        function, window = how["mask_function"], how.get("local_size")
        if device is not None and flash.works_on(device) and _is_causal(function, window, how["q_length"]):
            return None
        how |= {"mask_function": documents.within(function), "attention_mask": None}
    if documents is not None or (device is not None and torch.device(device).type != "cpu"):
        how["allow_is_causal_skip"] = how["allow_is_bidirectional_skip"] = False
    found: torch.Tensor | None = sdpa_mask(device=device, **how)
    return found


def _is_causal(function: Any, window: int | None, tokens: int) -> bool:
    """Whether each token sees all before it: of a model that looks back so far only, as of Mistral, if no text is longer."""
    return function is causal_mask_function or (window is not None and window >= tokens)


def use(model: PreTrainedModel) -> bool:
    """Let `model` attend so where transformers would take torch's own attention for all of it; returns whether it does."""
    parts = [part for part in model.modules() if isinstance(part, PreTrainedModel)]
    if all(part.config._attn_implementation == NAME for part in parts):
        return True
    if not all(part.config._attn_implementation == "sdpa" and part._can_set_attn_implementation() for part in parts):
        return False
    AttentionInterface.register(NAME, attend)
    AttentionMaskInterface.register(NAME, mask)
    model.set_attn_implementation(NAME)
    return True
