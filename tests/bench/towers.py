"""A small CLIP that knows nothing yet: both towers drawn at random from a config, with a tokenizer of the words that there are."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import torch
from transformers import CLIPConfig, CLIPModel

from tests.training.images import processor
from tests.training.models import tokenizer_for

LENGTH = 32
"""Tokens of the longest text."""


def save(folder: Path, texts: Iterable[str], *, side: int, patch: int) -> Path:
    """For images of `side` × `side` pixels, seen in patches of `patch` × `patch`."""
    tokenizer = tokenizer_for(texts, vocabulary=2000)
    tokenizer.model_max_length = LENGTH
    text = {
        "hidden_size": 128, "intermediate_size": 256, "num_attention_heads": 4, "num_hidden_layers": 1, "pad_token_id": 0,
        "eos_token_id": tokenizer.sep_token_id, "vocab_size": len(tokenizer), "max_position_embeddings": LENGTH,
    }  # fmt: skip
    vision = {
        "hidden_size": 128, "intermediate_size": 256, "num_attention_heads": 4, "num_hidden_layers": 4,
        "image_size": side, "patch_size": patch,
    }  # fmt: skip
    torch.manual_seed(0)
    CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=64)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    processor("vit", "ViT", size={"height": side, "width": side}).save_pretrained(folder)
    return folder
