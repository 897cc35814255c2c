"""What was loaded as the tokenizer is proved to be this model's: transformers makes one of five tokens where its files are missing.

All of it is asked before any weights are read. What only the data can tell, such as that every word is unknown, is asked when it is
encoded.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from transformers import AutoTokenizer, BatchEncoding, PreTrainedConfig, PreTrainedTokenizerBase

from finetune_api.failures import FailureReason, JobError
from finetune_trainer.tasks.plain_text import control_tokens

FILES = ("tokenizer*.json", "*.model", "*.tiktoken", "tekken.json")
"""What transformers reads whatever the tokenizer's class asks for."""
ROUNDED_UP = 0.2
"""The part of a model's embeddings that may belong to no token; those that are rounded up for speed have 3 % at most."""
FEW = 1000
"""So many may belong to none in any model."""
MANY_ROWS = 10
"""Texts of which one must hold a word that is known."""
MUCH = 0.2
"""A part of unknown tokens that is worth a word."""
FIRST_TOKEN = frozenset(
    {"albert", "bert", "big_bird", "camembert", "deberta", "deberta-v2", "distilbert", "electra", "ernie", "longformer"}
    | {
        "megatron-bert",
        "mobilebert",
        "modernbert",
        "mpnet",
        "nystromformer",
        "roberta",
        "xlm-roberta",
        "xlm-roberta-xl",
    }
)
"""Model types that classify a text by what they make of a special token that stands before it."""
REMEDY = "Put the tokenizer's files that belong to the model beside its weights: tokenizer.json and tokenizer_config.json, or what it came with."


def load_tokenizer(folder: Path, config: PreTrainedConfig, *, trust_remote_code: bool) -> PreTrainedTokenizerBase:
    """The tokenizer in `folder`, for the model that `config` describes.

    Raises JobError MODEL_INVALID when there is none, or when it cannot be this model's; and what transformers raises when its files
    cannot be read.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=trust_remote_code)
    except (AttributeError, OSError, TypeError, ValueError) as error:
        if not _has_file(folder) and (missing := _half(folder) or _none(folder)):
            raise missing from error
        raise
    if type(tokenizer).__module__.startswith("transformers."):  # code that came with the model reads files of its own
        _refuse_without_files(folder, tokenizer)
    if tokenizer.vocab_files_names:
        words = set(tokenizer.get_vocab()) - {token.content for token in tokenizer.added_tokens_decoder.values()}
        if not words:
            raise _invalid(
                f"there is no tokenizer beside the model: what was loaded knows {len(tokenizer)} special tokens and no word"
            )
    if (
        tokenizer.model_max_length <= tokenizer.num_special_tokens_to_add(True) + 1
    ):  # room for a token of each text of a pair
        raise _invalid(
            f"the tokenizer cuts every text at {tokenizer.model_max_length} tokens (model_max_length), which leaves nothing of it"
        )
    control = control_tokens(tokenizer)
    template = _encode("a", tokenizer)
    rows = getattr(config.get_text_config(), "vocab_size", None)
    if isinstance(rows, int) and rows > 0:
        _refuse_other_ids(tokenizer, template, control, rows)
    if config.model_type in FIRST_TOKEN and (not template or template[0] not in control.values()):
        raise _invalid(
            f"the tokenizer puts no special token such as [CLS] before a text, but a {config.model_type} model classifies by it"
        )
    _encode("\u2603 \u1e25 \u6f22 \U00013080", tokenizer)  # what no vocabulary but one of bytes holds
    return tokenizer


def judge_unknown(
    unknown: int, tokens: int, rows: int, tokenizer: PreTrainedTokenizerBase, *, pairs: bool
) -> list[str]:
    """Sentences about what `tokenizer` made of `rows` texts, or pairs of them: so many `tokens`, of which some are `unknown`.

    Raises JobError MODEL_INVALID when it knows no word of so many of them that it cannot be their fault.
    """
    if tokenizer.unk_token_id is None or tokenizer.unk_token_id in control_tokens(tokenizer).values():
        return []  # where it is another token too, such as GPT-2's, it is no sign of an unknown word
    words = tokens - rows * tokenizer.num_special_tokens_to_add(pairs)
    if unknown >= max(words, 1) and rows >= MANY_ROWS:
        raise _invalid(f"the tokenizer knows no word of the data: all of {unknown:,} tokens are {tokenizer.unk_token}")
    if unknown > MUCH * words:
        return [
            f"{unknown / words:.0%} of the tokens of {rows:,} examples are {tokenizer.unk_token}: the tokenizer does not know them."
        ]
    return []


def fill_empty(encoding: BatchEncoding, tokenizer: PreTrainedTokenizerBase) -> int:
    """Give rows that have no token at all one that means nothing, and return how many there were."""
    roles = (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id)
    filler = next(number for number in roles if number is not None)
    empty = [index for index, row in enumerate(encoding["input_ids"]) if not row]
    for index in empty:
        for name, rows in encoding.items():
            rows[index] = [filler if name == "input_ids" else 0]
    return len(empty)


def _refuse_without_files(folder: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    names = {role: name for role, name in tokenizer.vocab_files_names.items() if name and role != "tokenizer_file"}
    if not tokenizer.vocab_files_names or _has_file(folder, FILES[:1]):
        return
    kind = type(tokenizer).__name__
    there = [name for name in names.values() if (folder / name).exists()]
    if not there and not _has_file(folder):
        raise _invalid(
            f"there is no tokenizer beside the model: {kind} reads tokenizer.json, or {' and '.join(names.values())}"
        )
    if "merges_file" in names and (half := _half(folder)):
        raise half


def _half(folder: Path) -> JobError | None:
    """What is wrong with a folder that has one of two files that belong together."""
    there, missing = sorted(("vocab.json", "merges.txt"), key=lambda name: not (folder / name).exists())
    if (folder / there).exists() and not (folder / missing).exists():
        return _invalid(
            f"half of the tokenizer is missing: {there} is there, {missing} is not, and there is no tokenizer.json"
        )
    return None


def _none(folder: Path) -> JobError | None:
    return None if _has_file(folder, ("*vocab*", "*.codes")) else _invalid("there is no tokenizer beside the model")


def _has_file(folder: Path, patterns: Sequence[str] = FILES) -> bool:
    return any(file.name != "tokenizer_config.json" for pattern in patterns for file in folder.glob(pattern))


def _refuse_other_ids(
    tokenizer: PreTrainedTokenizerBase, template: list[int], control: dict[str, int], rows: int
) -> None:
    """What texts and the tokenizer's own template can become must be rows of the embeddings, and these must about all be used."""
    vocabulary = tokenizer.get_vocab()
    beyond = {token: number for token, number in vocabulary.items() if number >= rows}
    reached = {token: number for token, number in beyond.items() if token not in control or number in template}
    if reached:
        token = max(reached, key=lambda name: reached[name])
        raise _invalid(
            f"the tokenizer is not this model's: {token!r} has the id {reached[token]}, but the model has {rows} embeddings"
        )
    spare = rows - len(vocabulary)
    if vocabulary and spare > max(FEW, ROUNDED_UP * rows):
        raise _invalid(
            f"the tokenizer is not this model's: it has {len(vocabulary):,} tokens, but the model has {rows:,} embeddings"
        )


def _encode(text: str, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    try:
        ids: list[int] = tokenizer(text)["input_ids"]
    except Exception as error:  # the tokenizers written in Rust raise nothing more special
        raise _invalid(f"the tokenizer cannot encode {text!r}: {error}") from error
    return ids


def _invalid(message: str) -> JobError:
    return JobError(FailureReason.MODEL_INVALID, message, field="spec.model.uri", remedy=REMEDY)
