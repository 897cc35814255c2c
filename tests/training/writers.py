"""Tiny models that write texts, each as model hubs serve it: with its own way to begin and to end a text, and a tokenizer of its kind.

save_writer("bart", folder)
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import sentencepiece
import torch
from safetensors.torch import load_file, save_file
from tokenizers import decoders
from transformers import (
    AutoConfig,
    AutoModelForSeq2SeqLM,
    BertConfig,
    EncoderDecoderConfig,
    MarianTokenizer,
    MBartTokenizer,
    PreTrainedTokenizerBase,
)

from tests.training.architectures import LIKE_BART, LONGEST, TEXTS, save_tokenizer
from tests.training.models import SIZES, tokenizer_for

LANGUAGES = ("en_XX", "de_DE")


def save_writer(
    name: str,
    folder: Path,
    *,
    dropout: float = 0.0,
    std: float = 0.8,
    generation: Mapping[str, Any] | None = None,
) -> Path:
    """Write a folder of the writer of that name. Weights of that deviation are so lively that each text gets one of its own; `generation`
    is what generation_config.json says besides."""
    folder.mkdir(parents=True, exist_ok=True)
    config = {**WRITERS, **SPARSE}[name](folder, dropout)
    torch.manual_seed(0)
    model = AutoModelForSeq2SeqLM.from_config(config)
    if name == "flan t5":
        model.lm_head.weight = torch.nn.Parameter(torch.empty_like(model.lm_head.weight))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim >= 2:
                parameter.normal_(0, std)
    if name == "bart":
        model.generation_config.forced_bos_token_id = config.bos_token_id
    for key, value in (generation or {}).items():
        setattr(model.generation_config, key, value)
    model.save_pretrained(folder)
    return folder


def without_cross_attention(folder: Path) -> Path:
    """The weights of two encoders put together, as they were before."""
    file = folder / "model.safetensors"
    tensors = {name: values for name, values in load_file(file).items() if "crossattention" not in name}
    save_file({name: values for name, values in tensors.items() if ".cls." not in name}, file, {"format": "pt"})
    return folder


def change(folder: Path, file: str, **values: Any) -> Path:
    """Set these in a JSON file of the folder; None takes one out."""
    said = json.loads((folder / file).read_text())
    said = {name: value for name, value in {**said, **values}.items() if value is not None}
    (folder / file).write_text(json.dumps(said))
    return folder


def _bart_like(model_type: str, tokenizer: PreTrainedTokenizerBase, dropout: float, **special: Any) -> Any:
    dropouts = dict.fromkeys(("dropout", "attention_dropout", "activation_dropout"), dropout)
    ids = {"pad_token_id": tokenizer.pad_token_id, "eos_token_id": tokenizer.eos_token_id}
    return AutoConfig.for_model(
        model_type,
        vocab_size=len(tokenizer),
        **{**LIKE_BART, **dropouts, **ids, "forced_eos_token_id": None, **special},
    )


def _bart(folder: Path, dropout: float) -> Any:
    tokenizer = save_tokenizer("bart", folder)
    bos, eos = tokenizer.bos_token_id, tokenizer.eos_token_id
    return _bart_like("bart", tokenizer, dropout, bos_token_id=bos, decoder_start_token_id=eos)


def _t5(folder: Path, dropout: float) -> Any:
    tokenizer = save_tokenizer("t5", folder)
    sizes = {"d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 2, "num_heads": 2, "dropout_rate": dropout}
    return AutoConfig.for_model("t5", vocab_size=len(tokenizer), decoder_start_token_id=tokenizer.pad_token_id, **sizes)


def _switch(folder: Path, dropout: float) -> Any:
    """Of each text a router sends every token to one of eight experts, so most of these get none of a short one."""
    tokenizer = save_tokenizer("t5", folder)
    sizes = {"d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 2, "num_heads": 2, "dropout_rate": dropout}
    sparse = {"num_experts": 8, "num_decoder_layers": 2, "num_sparse_encoder_layers": 1, "num_sparse_decoder_layers": 1}
    start = tokenizer.pad_token_id
    return AutoConfig.for_model(
        "switch_transformers", vocab_size=len(tokenizer), decoder_start_token_id=start, **sizes, **sparse
    )


def _nllb_moe(folder: Path, dropout: float) -> Any:
    tokenizer = save_tokenizer("t5", folder)
    sparse = {"num_experts": 8, "encoder_sparse_step": 2, "decoder_sparse_step": 2, "moe_token_dropout": 0.0}
    return _bart_like("nllb-moe", tokenizer, dropout, decoder_start_token_id=tokenizer.pad_token_id, **sparse)


def _flan_t5(folder: Path, dropout: float) -> Any:
    """Its output layer is none of its embeddings, although its config says so."""
    config = _t5(folder, dropout)
    return type(config)(**{**config.to_diff_dict(), "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False})


def _pegasus(folder: Path, dropout: float) -> Any:
    tokenizer = save_tokenizer("t5", folder)
    return _bart_like("pegasus", tokenizer, dropout, decoder_start_token_id=tokenizer.pad_token_id)


def _marian(folder: Path, dropout: float) -> Any:
    """Two vocabularies, of the language that is read and of the one that is written."""
    pieces: list[str] = []
    for file, texts in (("source.spm", TEXTS), ("target.spm", [text.upper() for text in TEXTS])):
        model = io.BytesIO()
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(texts), model_writer=model, vocab_size=200, hard_vocab_limit=False, minloglevel=2,
            num_threads=1, bos_id=-1, eos_id=0, unk_id=1,
        )  # fmt: skip
        (folder / file).write_bytes(model.getvalue())
        read = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
        pieces += [read.id_to_piece(number) for number in range(read.get_piece_size())]
    vocabulary = dict.fromkeys(["</s>", "<unk>", *pieces, "<pad>"])
    (folder / "vocab.json").write_text(json.dumps({piece: number for number, piece in enumerate(vocabulary)}))
    tokenizer = MarianTokenizer(
        *(str(folder / file) for file in ("source.spm", "target.spm", "vocab.json")), model_max_length=LONGEST
    )
    tokenizer.save_pretrained(folder)
    padding = tokenizer.pad_token_id
    return _bart_like(
        "marian", tokenizer, dropout, decoder_vocab_size=len(tokenizer), decoder_start_token_id=padding,
    )  # fmt: skip


def _mbart(folder: Path, dropout: float) -> Any:
    """The language that is written stands behind its text, and is what writing begins from."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXTS), model_writer=model, vocab_size=300, hard_vocab_limit=False, minloglevel=2,
        num_threads=1,
    )  # fmt: skip
    (folder / "sentencepiece.bpe.model").write_bytes(model.getvalue())
    reads, writes = LANGUAGES
    tokenizer = MBartTokenizer.from_pretrained(folder, src_lang=reads, tgt_lang=writes, model_max_length=LONGEST)
    tokenizer.save_pretrained(folder)
    (folder / "sentencepiece.bpe.model").unlink()
    start = tokenizer.convert_tokens_to_ids(writes)
    return _bart_like("mbart", tokenizer, dropout, bos_token_id=tokenizer.bos_token_id, decoder_start_token_id=start)


def _two_berts(folder: Path, dropout: float) -> Any:
    tokenizer = tokenizer_for(TEXTS)
    tokenizer.backend_tokenizer.decoder = decoders.WordPiece()
    tokenizer.save_pretrained(folder)
    parts = [
        BertConfig(
            vocab_size=len(tokenizer), num_hidden_layers=2, max_position_embeddings=LONGEST, hidden_dropout_prob=dropout,
            attention_probs_dropout_prob=dropout, **SIZES,
        )
        for _ in range(2)
    ]  # fmt: skip
    return EncoderDecoderConfig.from_encoder_decoder_configs(
        *parts,
        decoder_start_token_id=tokenizer.cls_token_id,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.sep_token_id,
    )


WRITERS: Mapping[str, Callable[[Path, float], Any]] = {
    "t5": _t5,
    "flan t5": _flan_t5,
    "bart": _bart,
    "pegasus": _pegasus,
    "marian": _marian,
    "mbart": _mbart,
    "two berts": _two_berts,
}
SPARSE: Mapping[str, Callable[[Path, float], Any]] = {"switch": _switch, "nllb moe": _nllb_moe}
"""Those with experts, each a module of its own."""
