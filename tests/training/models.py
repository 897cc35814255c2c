"""Tiny models with random weights and a real WordPiece tokenizer. Folders of all architectures: tests/training/architectures.py."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from tokenizers import processors
from transformers import (
    AutoModelForSequenceClassification,
    BertConfig,
    DebertaV2Config,
    DistilBertConfig,
    ElectraConfig,
    ModernBertConfig,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    RobertaConfig,
)

from tests.training.word_pieces import learn_word_pieces

SIZES: dict[str, Any] = {"hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 32}
LAYERS = 3

CONFIGS: dict[str, PreTrainedConfig] = {
    "bert": BertConfig(vocab_size=100, num_hidden_layers=LAYERS, max_position_embeddings=64, **SIZES),
    "distilbert": DistilBertConfig(
        vocab_size=100, n_layers=LAYERS, n_heads=2, dim=16, hidden_dim=32, max_position_embeddings=64
    ),
    "roberta": RobertaConfig(
        vocab_size=100, num_hidden_layers=LAYERS, max_position_embeddings=66, pad_token_id=1, **SIZES
    ),
    "deberta-v2": DebertaV2Config(
        vocab_size=100,
        num_hidden_layers=LAYERS,
        max_position_embeddings=64,
        relative_attention=True,
        pos_att_type=["p2c", "c2p"],
        position_buckets=8,
        **SIZES,
    ),
    "electra": ElectraConfig(
        vocab_size=100, num_hidden_layers=LAYERS, max_position_embeddings=64, embedding_size=8, **SIZES
    ),
    "modernbert": ModernBertConfig(
        vocab_size=100, num_hidden_layers=LAYERS, max_position_embeddings=64, pad_token_id=0, **SIZES
    ),
}


def tiny(architecture: str, labels: int = 2) -> PreTrainedModel:
    """A model with `LAYERS` layers and a classification head."""
    torch.manual_seed(0)
    config = CONFIGS[architecture]
    config.num_labels = labels
    return AutoModelForSequenceClassification.from_config(config)


def tokenizer_for(texts: Iterable[str], vocabulary: int = 400) -> PreTrainedTokenizerFast:
    """A BERT-like tokenizer whose vocabulary was learnt from `texts`."""
    tokenizer = learn_word_pieces(texts, ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"], vocabulary)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="[UNK]",
        pad_token="[PAD]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
        model_max_length=64,
    )


def save_tiny_bert(folder: Path, texts: Iterable[str], dropout: float = 0.1) -> Path:
    """A pretrained-model folder: BERT's body without a head, with dropout so that random generators matter."""
    tokenizer = tokenizer_for(texts)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(tokenizer),
        num_hidden_layers=2,
        max_position_embeddings=64,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
        **SIZES,
    )
    from transformers import BertModel

    BertModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
