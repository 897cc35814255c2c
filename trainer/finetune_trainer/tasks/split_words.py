"""Words that are given one by one are read as they are in a text: with the blank before them, where the tokenizer makes it part of a word.

Tokenizers over bytes, such as RoBERTa's and GPT-2's, and some others know ` word` and `word` as different tokens, and a model has seen
nearly all of its words after a blank. So one is put before every word, and before a text, and the tokenizer is saved so.
"""

from __future__ import annotations

from tokenizers import normalizers
from transformers import PreTrainedTokenizerBase

from finetune_trainer.tasks.plain_text import with_steps
from finetune_trainer.tasks.windows import refuse_without_places

PROBE = ("Salt", "the", "soup,", "stir", "it", "and", "taste", "it.")
ALONE = "This model's tokenizer reads words that are given one by one otherwise than in a text, and so did this training: ask it likewise."


def reading_words(tokenizer: PreTrainedTokenizerBase) -> tuple[PreTrainedTokenizerBase, list[str]]:
    """The tokenizer to use for lists of words, and sentences about it.

    Raises JobError MODEL_INVALID where it does not tell which token is of which word.
    """
    refuse_without_places(tokenizer)
    in_text = {tuple(_ids(tokenizer, " ".join(PROBE))), tuple(_ids(tokenizer, f" {' '.join(PROBE)}"))}
    if tuple(_ids(tokenizer, PROBE)) in in_text:
        return tokenizer, []
    steps = tokenizer.backend_tokenizer
    before = steps.normalizer
    steps.normalizer = normalizers.Sequence([normalizers.Prepend(" "), *filter(None, [before])])
    found = with_steps(tokenizer, steps)
    if tuple(_ids(found, PROBE)) in in_text:
        return found, []
    steps.normalizer = before
    return tokenizer, [ALONE]


def _ids(tokenizer: PreTrainedTokenizerBase, given: str | tuple[str, ...]) -> list[int]:
    words = not isinstance(given, str)
    ids: list[int] = tokenizer(list(given) if words else given, is_split_into_words=words)["input_ids"]
    return ids
