"""Models in known shapes with weights drawn at random, a tokenizer of whole words, and texts of stated lengths."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, PreTrainedTokenizerFast

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
LETTERS = [chr(code) for code in range(33, 127)]
SEED = 1


@dataclass(frozen=True)
class Lengths:
    """Tokens of texts: their logarithms are normal, with this median and deviation, between the two ends."""

    median: float
    deviation: float
    least: int
    most: int

    def drawn(self, count: int, generator: np.random.Generator) -> list[int]:
        drawn = np.exp(generator.normal(np.log(self.median), self.deviation, count))
        return [int(length) for length in drawn.round().clip(self.least, self.most)]


@dataclass(frozen=True)
class Shape:
    """A model, and the rows that it is trained on."""

    kind: str
    """transformers' model_type."""
    config: Mapping[str, Any]
    lengths: Lengths
    max_length: int
    batch: int
    """Features a step: pairs of texts, or packs of `max_length` tokens where texts are packed."""
    rows: int
    tiny: Mapping[str, Any] = field(default_factory=dict)
    """What is smaller in the tiny shape."""

    def made_tiny(self) -> Shape:
        lengths = replace(self.lengths, median=self.lengths.median / 8, least=4, most=60)
        return replace(
            self, config={**self.config, **self.tiny}, lengths=lengths, max_length=64, batch=min(self.batch, 4), rows=40
        )

    @property
    def writes(self) -> bool:
        """Whether it is a causal model."""
        return self.kind != "bert"

    def matrices(self) -> int:
        """Numbers in all linear layers of the causal model."""
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(AutoConfig.for_model(self.kind, **self.config))
        return sum(module.weight.numel() for module in model.modules() if isinstance(module, torch.nn.Linear))

    def save(self, folder: Path, device: str) -> Path:
        """Write the model below `folder`, if nobody has yet, and return its folder; drawn on `device`, in bf16 where that is a GPU."""
        model_folder = folder / "model"
        if model_folder.exists():
            return model_folder
        torch.manual_seed(SEED)
        tokenizer = tokenizer_of_words(self.config["vocab_size"], self.config["max_position_embeddings"])
        tokenizer.save_pretrained(model_folder)
        ids = {"pad_token_id": 0, "eos_token_id": 3, "bos_token_id": None} if self.writes else {"pad_token_id": 0}
        config = AutoConfig.for_model(self.kind, **self.config, **ids)
        made_by = AutoModelForCausalLM if self.writes else AutoModel
        with torch.device(device):
            model = made_by.from_config(config, dtype=torch.bfloat16 if device == "cuda" else torch.float32)
        model.save_pretrained(model_folder)
        return model_folder

    def write_rows(self, folder: Path) -> Path:
        """Write train.jsonl and validation.jsonl below `folder` and return their folder. Words are as frequent as in a language: the
        n-th one in proportion to 1 / n."""
        data, generator = folder / "data", np.random.default_rng(SEED)
        data.mkdir(parents=True, exist_ok=True)
        size = self.config["vocab_size"] - len(SPECIAL) - 2 * len(LETTERS)
        chances = 1 / np.arange(1, size + 1)
        chances /= chances.sum()
        for split, rows in (("train", self.rows), ("validation", 16)):
            lengths = self.lengths.drawn(rows, generator)
            words = generator.choice(size, sum(lengths), p=chances)
            texts = [" ".join(f"w{word}" for word in part) for part in np.split(words, np.cumsum(lengths)[:-1])]
            lines = [json.dumps(self._row(number, text)) for number, text in enumerate(texts)]
            (data / f"{split}.jsonl").write_text("\n".join(lines))
        return data

    def _row(self, number: int, text: str) -> Mapping[str, Any]:
        if self.writes:
            return {"text": text}
        middle = text.index(" ", len(text) // 2)
        return {"text": text[:middle], "textPair": text[middle + 1 :], "label": ("no", "yes")[number % 2]}


def tokenizer_of_words(size: int, length: int) -> PreTrainedTokenizerFast:
    """`size` tokens: control tokens, letters, and words, each of which is one token."""
    words = size - len(SPECIAL) - 2 * len(LETTERS)
    names = [*SPECIAL, *LETTERS, *(f"##{letter}" for letter in LETTERS), *(f"w{number}" for number in range(words))]
    tokenizer = Tokenizer(models.WordPiece({name: number for number, name in enumerate(names)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.add_special_tokens(list(SPECIAL))
    around = [("[CLS]", 2), ("[SEP]", 3)]
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=around
    )
    given = {
        "pad_token": "[PAD]",
        "unk_token": "[UNK]",
        "cls_token": "[CLS]",
        "sep_token": "[SEP]",
        "eos_token": "[SEP]",
    }
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, mask_token="[MASK]", model_max_length=length, **given)


SMALL = {
    "vocab_size": 400,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 128,
}
SMALL_LLAMA = {**SMALL, "num_key_value_heads": 1}
SHAPES: Mapping[str, Shape] = {
    # sentence-transformers/all-MiniLM-L6-v2; pairs as long as MRPC's.
    "minilm": Shape(
        "bert",
        {
            "vocab_size": 30522,
            "hidden_size": 384,
            "intermediate_size": 1536,
            "num_hidden_layers": 6,
            "num_attention_heads": 12,
            "max_position_embeddings": 512,
        },
        Lengths(50, 0.35, 16, 125),
        128,
        64,
        64 * 260,
        SMALL,
    ),
    # HuggingFaceTB/SmolLM2-135M; texts as long as instructions with their answers.
    "smollm2": Shape(
        "llama",
        {
            "vocab_size": 49152,
            "hidden_size": 576,
            "intermediate_size": 1536,
            "num_hidden_layers": 30,
            "num_attention_heads": 9,
            "num_key_value_heads": 3,
            "max_position_embeddings": 8192,
            "tie_word_embeddings": True,
        },
        Lengths(220, 0.8, 16, 2000),
        2048,
        8,
        4500,
        SMALL_LLAMA,
    ),
    # meta-llama/Llama-3.1-8B
    "llama": Shape(
        "llama",
        {
            "vocab_size": 128256,
            "hidden_size": 4096,
            "intermediate_size": 14336,
            "num_hidden_layers": 32,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
            "max_position_embeddings": 8192,
            "rope_parameters": {"rope_type": "default", "rope_theta": 500000.0},
            "tie_word_embeddings": False,
        },
        Lengths(420, 0.9, 32, 4000),
        4096,
        2,
        320,
        SMALL_LLAMA,
    ),
}
