"""The architectures that people fine-tune, each tiny, with a tokenizer of its own kind whose vocabulary is learnt on the spot.

save("t5", folder)                          # as model hubs serve it: tokenizer.json, and the body without a classifier
save("t5", folder, layout="old")            # with the files from before tokenizer.json: spiece.model
"""

from __future__ import annotations

import functools
import io
import json
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import sentencepiece
import torch
from tokenizers import (
    ByteLevelBPETokenizer,
    Tokenizer,
    decoders,
    models,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from tests.training.sentences import ROWS
from tests.training.word_pieces import learn_word_pieces

TEXTS = [text for text, _ in ROWS]
LONGEST = 64
"""Tokens that each of them has positions for."""


@dataclass(frozen=True)
class Vocabulary:
    """What a kind of tokenizer has learnt: its files, and the names of its special tokens."""

    files: dict[str, bytes]
    config: dict[str, Any]
    """tokenizer_config.json."""


@dataclass(frozen=True)
class Architecture:
    """One architecture."""

    model_type: str
    vocabulary: Callable[[], Vocabulary]
    tokenizer_class: str
    options: dict[str, Any] = field(default_factory=dict)
    special: dict[str, str] = field(default_factory=dict)
    """Ids of the config by the tokenizer's names of the tokens, such as `pad_token_id: pad_token`."""


SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
POSITIONS = {**SIZES, "max_position_embeddings": LONGEST}
BEHIND_PADDING = {**SIZES, "max_position_embeddings": LONGEST + 2}
"""Positions are counted from behind the padding's id."""
DECODER = {**POSITIONS, "num_key_value_heads": 1, "head_dim": 8}
PAD, ENDS = {"pad_token_id": "pad_token"}, {"bos_token_id": "bos_token", "eos_token_id": "eos_token"}


@functools.cache
def word_pieces(**names: str) -> Vocabulary:
    """vocab.txt, as of BERT. `names` of the special tokens in the order of their ids."""
    names = names or {
        "pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": "[MASK]"
    }  # fmt: skip
    vocabulary = learn_word_pieces(TEXTS, list(names.values())).get_vocab()
    lines = "".join(f"{token}\n" for token in sorted(vocabulary, key=lambda token: vocabulary[token]))
    return Vocabulary({"vocab.txt": lines.encode()}, {**names, "do_lower_case": True})


@functools.cache
def bytes_pairs(*special: str, **names: str) -> Vocabulary:
    """vocab.json and merges.txt over bytes, as of GPT-2 and RoBERTa. The special tokens come first."""
    tokenizer = ByteLevelBPETokenizer()
    tokenizer.train_from_iterator(TEXTS, vocab_size=400, special_tokens=list(special), show_progress=False)
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save_model(folder)
        files = {name: (Path(folder) / name).read_bytes() for name in ("vocab.json", "merges.txt")}
    return Vocabulary(files, dict(names))


@functools.cache
def sentence_pieces(file: str, kind: Literal["unigram", "bpe"] = "unigram", **options: Any) -> Vocabulary:
    """A model file of sentencepiece, as of T5, XLM-R, ALBERT, DeBERTa-v3, Llama and Gemma."""
    model = io.BytesIO()
    bos = {"add_bos_token": True} if kind == "bpe" else {}
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXTS),
        model_writer=model,
        model_type=kind,
        vocab_size=600 if options.get("byte_fallback") else 350,
        hard_vocab_limit=False,
        minloglevel=2,
        num_threads=1,
        **options,
    )
    return Vocabulary({file: model.getvalue()}, bos)


def _roberta() -> Vocabulary:
    names = {"bos_token": "<s>", "cls_token": "<s>", "eos_token": "</s>", "sep_token": "</s>", "mask_token": "<mask>"}
    return bytes_pairs("<s>", "<pad>", "</s>", "<unk>", "<mask>", **names, unk_token="<unk>", pad_token="<pad>")


def _gpt2() -> Vocabulary:
    return bytes_pairs("<|endoftext|>", bos_token="<|endoftext|>", eos_token="<|endoftext|>", unk_token="<|endoftext|>")


def _qwen() -> Vocabulary:
    special = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
    return bytes_pairs(*special, eos_token="<|im_end|>", pad_token="<|endoftext|>")


@functools.cache
def _modernbert() -> Vocabulary:
    """tokenizer.json alone, over bytes, with the special tokens' names of BERT."""
    special = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        TEXTS,
        trainers.BpeTrainer(
            vocab_size=400, special_tokens=list(special), initial_alphabet=alphabet, show_progress=False
        ),
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    names = {
        "pad_token": "[PAD]",
        "unk_token": "[UNK]",
        "cls_token": "[CLS]",
        "sep_token": "[SEP]",
        "mask_token": "[MASK]",
    }
    return Vocabulary(
        {"tokenizer.json": tokenizer.to_str().encode()},
        {**names, "model_input_names": ["input_ids", "attention_mask"]},
    )


def _mpnet() -> Vocabulary:
    return word_pieces(cls_token="<s>", pad_token="<pad>", sep_token="</s>", unk_token="[UNK]", mask_token="<mask>")


def _albert() -> Vocabulary:
    return sentence_pieces(
        "spiece.model", pad_id=0, unk_id=1, bos_id=-1, eos_id=-1, control_symbols="[CLS],[SEP],[MASK]"
    )


def _deberta_v3() -> Vocabulary:
    return sentence_pieces(
        "spm.model", pad_id=0, bos_id=1, eos_id=2, unk_id=3,
        pad_piece="[PAD]", bos_piece="[CLS]", eos_piece="[SEP]", unk_piece="[UNK]",
    )  # fmt: skip


def _t5() -> Vocabulary:
    return sentence_pieces("spiece.model", pad_id=0, eos_id=1, unk_id=2, bos_id=-1)


def _xlm_roberta() -> Vocabulary:
    return sentence_pieces("sentencepiece.bpe.model")


def _llama() -> Vocabulary:
    return sentence_pieces("tokenizer.model", "bpe", byte_fallback=True)


def _gemma() -> Vocabulary:
    return sentence_pieces(
        "tokenizer.model", "bpe", byte_fallback=True, pad_id=0, eos_id=1, bos_id=2, unk_id=3,
        pad_piece="<pad>", eos_piece="<eos>", bos_piece="<bos>",
        user_defined_symbols="<mask>,<start_of_turn>,<end_of_turn>",
    )  # fmt: skip


LIKE_BART: dict[str, Any] = {
    "d_model": 16,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 32,
    "decoder_ffn_dim": 32,
    "max_position_embeddings": LONGEST,
}

ARCHITECTURES: dict[str, Architecture] = {
    "bert": Architecture("bert", word_pieces, "BertTokenizer", POSITIONS, PAD),
    "roberta": Architecture(
        "roberta", _roberta, "RobertaTokenizer", {**BEHIND_PADDING, "type_vocab_size": 1}, {**PAD, **ENDS}
    ),
    "albert": Architecture("albert", _albert, "AlbertTokenizer", {**POSITIONS, "embedding_size": 8}, PAD),
    "electra": Architecture("electra", word_pieces, "ElectraTokenizer", {**POSITIONS, "embedding_size": 8}, PAD),
    "deberta-v2": Architecture(
        "deberta-v2",
        _deberta_v3,
        "DebertaV2Tokenizer",
        {**POSITIONS, "relative_attention": True, "pos_att_type": ["p2c", "c2p"]},
        PAD,
    ),
    "deberta-v3": Architecture(
        "deberta-v2",
        _deberta_v3,
        "DebertaV2Tokenizer",
        {
            **POSITIONS,
            "relative_attention": True,
            "pos_att_type": ["p2c", "c2p"],
            "position_buckets": 8,
            "norm_rel_ebd": "layer_norm",
            "share_att_key": True,
            "position_biased_input": False,
            "type_vocab_size": 0,
        },
        PAD,
    ),
    "distilbert": Architecture(
        "distilbert",
        word_pieces,
        "DistilBertTokenizer",
        {"n_layers": 2, "n_heads": 2, "dim": 16, "hidden_dim": 32, "max_position_embeddings": LONGEST},
        PAD,
    ),
    "mpnet": Architecture(
        "mpnet",
        _mpnet,
        "MPNetTokenizer",
        BEHIND_PADDING,
        {**PAD, "bos_token_id": "cls_token", "eos_token_id": "sep_token"},
    ),
    "xlm-roberta": Architecture(
        "xlm-roberta", _xlm_roberta, "XLMRobertaTokenizer", {**BEHIND_PADDING, "type_vocab_size": 1}, {**PAD, **ENDS}
    ),
    "modernbert": Architecture(
        "modernbert",
        _modernbert,
        "PreTrainedTokenizerFast",
        {**POSITIONS, "global_attn_every_n_layers": 2, "local_attention": 8},
        {
            **PAD,
            "cls_token_id": "cls_token",
            "sep_token_id": "sep_token",
            "bos_token_id": "cls_token",
            "eos_token_id": "sep_token",
        },
    ),
    "longformer": Architecture(
        "longformer",
        _roberta,
        "LongformerTokenizer",
        {**BEHIND_PADDING, "attention_window": [8, 8], "type_vocab_size": 1},
        {**PAD, **ENDS},
    ),
    "t5": Architecture(
        "t5",
        _t5,
        "T5Tokenizer",
        {"d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 2, "num_heads": 2},
        {**PAD, "eos_token_id": "eos_token", "decoder_start_token_id": "pad_token"},
    ),
    "bart": Architecture(
        "bart",
        _roberta,
        "BartTokenizer",
        LIKE_BART,
        {**PAD, **ENDS, "decoder_start_token_id": "eos_token"},
    ),
    "gpt2": Architecture(
        "gpt2", _gpt2, "GPT2Tokenizer", {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": LONGEST}, ENDS
    ),
    "llama": Architecture("llama", _llama, "LlamaTokenizer", DECODER, ENDS),
    "qwen": Architecture("qwen2", _qwen, "Qwen2Tokenizer", DECODER, {"eos_token_id": "eos_token"}),
    "qwen3": Architecture("qwen3", _qwen, "Qwen2Tokenizer", DECODER, {"eos_token_id": "eos_token"}),
    "gemma": Architecture("gemma", _gemma, "GemmaTokenizer", DECODER, {**PAD, **ENDS}),
    "gemma3": Architecture("gemma3_text", _gemma, "GemmaTokenizer", {**DECODER, "sliding_window": 8}, {**PAD, **ENDS}),
}
"""By a short name."""


def save_tokenizer(name: str, folder: Path, layout: Literal["new", "old"] = "new") -> PreTrainedTokenizerBase:
    """Write the tokenizer's files into `folder`, and return it as transformers reads it."""
    architecture = ARCHITECTURES[name]
    vocabulary = architecture.vocabulary()
    folder.mkdir(parents=True, exist_ok=True)
    config = {"tokenizer_class": architecture.tokenizer_class, "model_max_length": LONGEST, **vocabulary.config}
    with tempfile.TemporaryDirectory() as elsewhere:
        place = folder if layout == "old" else Path(elsewhere)
        for file, content in {**vocabulary.files, "tokenizer_config.json": json.dumps(config).encode()}.items():
            (place / file).write_bytes(content)
        tokenizer = AutoTokenizer.from_pretrained(place)
    if layout == "new":
        tokenizer.save_pretrained(folder)
    return tokenizer


def config_for(name: str, tokenizer: PreTrainedTokenizerBase, **options: Any) -> PreTrainedConfig:
    """The config of an architecture for that tokenizer's vocabulary."""
    architecture = ARCHITECTURES[name]
    special = {key: getattr(tokenizer, f"{token}_id") for key, token in architecture.special.items()}
    sizes = {"vocab_size": len(tokenizer), **architecture.options, **special, **options}
    return AutoConfig.for_model(architecture.model_type, **sizes)


def save(
    name: str,
    folder: Path,
    *,
    layout: Literal["new", "old"] = "new",
    labels: Sequence[str] | None = None,
    **options: Any,
) -> Path:
    """Write a folder of a pretrained model: its body alone, or with a classifier for `labels`. `options` are for its config."""
    config = config_for(name, save_tokenizer(name, folder, layout), **options)
    torch.manual_seed(0)
    if labels is None:
        model = AutoModel.from_config(config)
    else:
        config.id2label = dict(enumerate(labels))
        config.label2id = {label: number for number, label in enumerate(labels)}
        model = AutoModelForSequenceClassification.from_config(config)
    _make_lively(model)
    model.save_pretrained(folder)
    return folder


def _make_lively(model: PreTrainedModel) -> None:
    """Weights so large that different inputs give clearly different outputs, as those of a trained model do."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim >= 2:
                parameter.normal_(0, 0.3)
