"""A tiny causal model that holds conversations, as model hubs serve it: a Llama with a tokenizer over bytes and a chat template.

save_chatter(folder)
save_chatter(folder, architecture="gpt2", template=None)
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

END, BEGIN, WORD = "<|im_end|>", "<|im_start|>", "<think>"
CHATML = """\
{%- for message in messages -%}
{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}
"""
SIZES: Mapping[str, Any] = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 512,
}
CONFIGS: Mapping[str, Mapping[str, Any]] = {
    "llama": {**SIZES, "tie_word_embeddings": True},
    "gpt2": {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 512, "resid_pdrop": 0.0, "embd_pdrop": 0.0},
    "gemma2": {**SIZES, "num_key_value_heads": 1, "head_dim": 8, "final_logit_softcapping": 2.0},
    "granite": {**SIZES, "logits_scaling": 8.0},
    "cohere": {**SIZES, "logit_scale": 0.5},
    "bloom": {"hidden_size": 16, "n_layer": 2, "n_head": 2},
}
"""Each of these turns hidden states into logits in a way of its own, or knows positions so."""
GROUPED: Mapping[str, Any] = {**SIZES, "num_key_value_heads": 1, "head_dim": 8}
ATTENDING: Mapping[str, Mapping[str, Any]] = {
    "qwen2": {**SIZES, "num_key_value_heads": 1},
    "qwen3": GROUPED,
    "gemma": GROUPED,
    "mistral": {**GROUPED, "sliding_window": 7},
    "gemma3_text": {**GROUPED, "sliding_window": 7},
    "lfm2": {**SIZES, "num_key_value_heads": 2, "full_attn_idxs": [1]},
}
"""Each of these sees the tokens before in a way of its own: some only a few of them, some by a convolution."""
SPARSE: Mapping[str, Mapping[str, Any]] = {
    "qwen3_moe": {**GROUPED, "moe_intermediate_size": 32, "num_experts": 8, "num_experts_per_tok": 2},
}
"""The experts of each layer are two parameters, and no layers themselves."""


def tokenizer_of_bytes(
    template: str | None = CHATML,
    special: Iterable[str] = (BEGIN, END),
    words: Iterable[str] = (WORD,),
    merges: Sequence[tuple[str, str]] = (),
    **options: Any,
) -> PreTrainedTokenizerFast:
    """Each byte is a token, and what `merges` makes of several. The token that ends an answer fills up batches, too."""
    names = ["<|endoftext|>", *special]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {name: number for number, name in enumerate([*names, *alphabet, *map("".join, merges)])}
    tokenizer = Tokenizer(models.BPE(vocabulary, list(merges)))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in names])
    tokenizer.add_tokens([AddedToken(word, special=False, normalized=False) for word in words])
    given = {"eos_token": END, "pad_token": END, "model_max_length": 512, "chat_template": template, **options}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **given)


def save_chatter(
    folder: Path,
    *,
    architecture: str = "llama",
    template: str | None = CHATML,
    dropout: float = 0.0,
    std: float = 0.3,
    tokenizer: PreTrainedTokenizerFast | None = None,
    **config: Any,
) -> Path:
    """Write a folder of such a model. Weights of that deviation are so lively that each text gets an answer of its own."""
    tokenizer = tokenizer or tokenizer_of_bytes(template)
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    ids = {"pad_token_id": tokenizer.pad_token_id, "eos_token_id": tokenizer.eos_token_id, "bos_token_id": None}
    given = {
        **{**CONFIGS, **ATTENDING, **SPARSE}[architecture],
        **ids,
        "vocab_size": len(tokenizer),
        "attention_dropout": dropout,
        **config,
    }
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(architecture, **given))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim >= 2:
                parameter.normal_(0, std)
    model.save_pretrained(folder)
    return folder
