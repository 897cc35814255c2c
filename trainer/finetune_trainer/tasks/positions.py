"""How many tokens a model can take: as many as its table of positions has rows. Where positions are worked out, or only the distance
between two tokens counts, there is no such end, and what the config says is what the model was made for."""

from __future__ import annotations

import torch
from transformers import PreTrainedModel

TABLES = ("position_embeddings", "position_embedding", "embed_positions", "wpe", "pos_embedding", "pos_emb")
"""How the names of tables with a row for each position end; those of distances have `rel` in them."""


def position_table(model: PreTrainedModel) -> tuple[str, torch.nn.Embedding] | None:
    """The name and the table with a row for each position; None where there is none."""
    for name, module in model.named_modules():
        last = name.rpartition(".")[2]
        if last.endswith(TABLES) and "rel" not in last and isinstance(module, torch.nn.Embedding):
            return name, module
    return None


def counted_from(model: PreTrainedModel) -> int | None:
    """The padding's id, where positions are counted from behind it, as RoBERTa and its kin do; else None."""
    table = position_table(model)
    return None if table is None else table[1].padding_idx


def table_length(model: PreTrainedModel) -> int | None:
    """The most tokens that the model can take at all; None without a limit."""
    table = position_table(model)
    if table is None:
        return None
    padding = table[1].padding_idx
    unused = int(getattr(table[1], "offset", 0)) if padding is None else padding + 1
    return int(table[1].num_embeddings) - unused


def made_for(model: PreTrainedModel) -> int | None:
    """The tokens that the config says the model was made for; None when it does not say."""
    count = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    return count if isinstance(count, int) and count > 0 else None
