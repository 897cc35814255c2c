"""How many tokens a model can take: as many as its table of positions has rows. Where positions are worked out, or only the distance
between two tokens counts, there is no such end, and what the config says is what the model was made for."""

from __future__ import annotations

from typing import Any

import torch
from transformers import PreTrainedModel

TABLES = ("position_embeddings", "position_embedding", "embed_positions", "wpe", "pos_embedding", "pos_emb")
"""How the names of tables with a row for each position end; those of distances have `rel` in them."""


def _table(model: PreTrainedModel) -> Any:
    for name, module in model.named_modules():
        last = name.rpartition(".")[2]
        if (
            last.endswith(TABLES)
            and "rel" not in last
            and isinstance(getattr(module, "weight", None), torch.nn.Parameter)
        ):
            return module
    return None


def counted_from(model: PreTrainedModel) -> int | None:
    """The padding's id, where positions are counted from behind it, as RoBERTa and its kin do; else None."""
    padding: int | None = getattr(_table(model), "padding_idx", None)
    return padding


def table_length(model: PreTrainedModel) -> int | None:
    """The most tokens that the model can take at all; None without a limit."""
    table = _table(model)
    if table is None:
        return None
    padding = counted_from(model)
    unused = int(getattr(table, "offset", 0)) if padding is None else padding + 1
    rows = int(table.weight.shape[0]) - unused
    return min(rows, made_for(model) or rows)  # some have rows at the beginning that they do not use


def made_for(model: PreTrainedModel) -> int | None:
    """The tokens that the config says the model was made for; None when it does not say."""
    count = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    return count if isinstance(count, int) and count > 0 else None
