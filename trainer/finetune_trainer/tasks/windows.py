"""Long inputs are read in windows that overlap, so that nothing of them is lost: how far they overlap, and in which one a word counts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from finetune_api.failures import FailureReason, JobError


def refuse_without_places(tokenizer: PreTrainedTokenizerBase) -> None:
    """Raises JobError MODEL_INVALID where it does not tell where in a text its tokens are."""
    if not tokenizer.is_fast:
        raise JobError(
            FailureReason.MODEL_INVALID,
            f"the tokenizer, a {type(tokenizer).__name__}, does not tell which part of a text its tokens are",
            field="spec.model.uri",
            remedy="Use a model whose tokenizer has a tokenizer.json.",
        )


def stride_of(given: int | None, length: int, room: int, field: str) -> int:
    """Tokens that two neighbouring windows of `length` tokens share: what was asked for, else a quarter of them. `room` of them are left
    of a window for the text that is cut.

    Raises JobError INVALID_SPEC where windows would not get on.
    """
    if given is not None and given >= room:
        raise JobError(
            FailureReason.INVALID_SPEC,
            f"windows of {length} tokens have room for {room} of the text, so they cannot share {given} with their neighbours",
            field=field,
            remedy=f"Set {field} to less than {room}, or spec.training.maxLength to more.",
        )
    return min(length // 4, room - 1) if given is None else given


def first_pieces(windows: Sequence[NDArray[np.int64]], advance: int) -> list[NDArray[np.int64]]:
    """For each token of the windows of one text the number of the word that it begins, -1 for all others.

    `windows` have for each token the number of its word, -1 for special tokens; each window begins `advance` tokens of the text after the
    one before. A word belongs to one window alone, where it stands farthest from an edge behind which the text goes on.
    """
    if len(windows) == 1:
        return [_begun(windows[0])]
    text = [np.flatnonzero(words >= 0) for words in windows]
    place = np.concatenate([number * advance + np.arange(len(tokens)) for number, tokens in enumerate(text)])
    word = np.concatenate([words[tokens] for words, tokens in zip(windows, text, strict=True)])
    window = np.repeat(np.arange(len(windows)), [len(tokens) for tokens in text])
    token = np.concatenate(text)
    last = len(windows) - 1
    around = np.concatenate(
        [
            np.minimum(
                np.arange(len(tokens)) if number else np.inf,
                np.arange(len(tokens))[::-1] if number < last else np.inf,
            )
            for number, tokens in enumerate(text)
        ]
    )
    begin = np.full(int(word.max(initial=-1)) + 1, np.iinfo(np.int64).max)
    np.minimum.at(begin, word, place)
    order = np.lexsort((window, -around, word))
    order = order[place[order] == begin[word[order]]]
    chosen = order[np.unique(word[order], return_index=True)[1]]
    found = [np.full(len(words), -1, np.int64) for words in windows]
    for index in chosen.tolist():
        found[window[index]][token[index]] = word[index]
    return found


def _begun(words: NDArray[np.int64]) -> NDArray[np.int64]:
    """The same where all of a text is in one window."""
    return np.where(words != np.concatenate([[-1], words[:-1]]), words, -1)
