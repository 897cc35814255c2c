"""Text is text: what stands in the data never becomes a control token, whatever the tokenizer would make of it.

A tokenizer reads the names of its control tokens, such as `</s>`, `[SEP]` or `<|im_end|>`, in any text as these tokens. Three things
are in the way of that, and all three are saved with the tokenizer, so that whoever loads it reads texts as they were trained on:

- `split_special_tokens` lets it pass over the names of special tokens.
- Added tokens that are not marked as special, such as `<tool_call>`, are marked so. Those that are words or white space stay: they are
  how the pretrained model reads text.
- Where the vocabulary itself holds the names, as that of a Unigram model does, texts are cut behind a name's first character.

Whether this is enough is not believed but tried, with every name. Where it is not, names in the data are broken up by a space.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, pre_tokenizers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

MARKUP = re.compile(r"\W*[<\[{|].*\w.*[>\]}|]\W*", re.DOTALL)
"""What control tokens look like that were added without being marked as special: a word in brackets, not a face such as `>:(`."""
SAVED = ("model_max_length", "padding_side", "truncation_side", "model_input_names", "clean_up_tokenization_spaces")


class PlainTexts:
    """A tokenizer that reads texts as text.

    `tokenizer` is the one to use and to save: another one than was given where its kind could not keep what was changed.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.names = control_tokens(tokenizer)
        self.tokenizer = _split_names(tokenizer, self.names)
        if self._turns_into_control():
            self.tokenizer = _cut_names(self.tokenizer, self.names)
        self.saved = not self._turns_into_control()
        """Whether the saved tokenizer alone reads texts as text; where it does not, `texts` must be asked."""
        self._first = frozenset(name[0] for name in self.names)
        self._pattern = re.compile("|".join(f"{re.escape(name)}" for name in sorted(self.names, key=len, reverse=True)))
        self._example = ""
        """The first name that was found in a text."""

    def held(self, texts: Iterable[str]) -> int:
        """How many of them hold the name of a control token."""
        found = [name for text in texts if self._may_hold(text) and (name := self._pattern.search(text))]
        self._example = self._example or next((name[0] for name in found), "")
        return len(found)

    def note(self, held: int, examples: int, *, saved_as_it_came: bool = False) -> str:
        """A sentence about `held` texts, of `examples` examples, that hold names. Of a task that saves its tokenizer as it came, whoever
        uses it writes such names on purpose."""
        texts = "1 text" if held == 1 else f"{held:,} texts"
        names = (
            f"{texts} of {examples:,} examples, with names of control tokens such as {self._example!r}: read as text"
        )
        if saved_as_it_came:
            return f"{names}, but the saved tokenizer reads them as tokens."
        if self.saved:
            return f"{names}, by the saved tokenizer too."
        return f"{names}, but not by the saved tokenizer: whoever uses it must put a space behind a name's first character."

    def texts(self, texts: Sequence[str]) -> Sequence[str]:
        """What to give the tokenizer for `texts`: these, but where it cannot be kept from reading names as control tokens."""
        if self.saved:
            return texts
        return [self._pattern.sub(_broken, text) if self._may_hold(text) else text for text in texts]

    def _may_hold(self, text: str) -> bool:
        return bool(self.names) and any(character in text for character in self._first)

    def _turns_into_control(self) -> bool:
        if not self.names:
            return False
        tokenizer, ids = self.tokenizer, frozenset(self.names.values())
        probes = [probe for name in self.names for probe in (name, f"a {name} b", f"a{name}b")]
        encoded = tokenizer(probes, add_special_tokens=False)["input_ids"]
        return any(not ids.isdisjoint(row) for row in encoded)


def control_tokens(tokenizer: PreTrainedTokenizerBase) -> dict[str, int]:
    """Id by name of the tokens that no text may become. The token for the unknown is none, if it is nothing else besides."""
    others = {getattr(tokenizer, f"{role}_token_id", None) for role in ("bos", "eos", "cls", "sep", "pad", "mask")}
    harmless = {tokenizer.unk_token_id} - others
    special = set(tokenizer.all_special_tokens)
    return {
        token.content: number
        for number, token in tokenizer.added_tokens_decoder.items()
        if token.content.strip()
        and number not in harmless
        and (token.special or token.content in special or MARKUP.fullmatch(token.content))
    }


def _split_names(tokenizer: PreTrainedTokenizerBase, names: dict[str, int]) -> PreTrainedTokenizerBase:
    """Pass over all names, in this process and when it is loaded again."""
    tokenizer.split_special_tokens = tokenizer.init_kwargs["split_special_tokens"] = True
    if tokenizer.is_fast:
        unmarked = [t for t in tokenizer.added_tokens_decoder.values() if t.content in names and not t.special]
        tokenizer.add_tokens(
            [AddedToken(t.content, special=True, normalized=False) for t in unmarked], special_tokens=True
        )
    return tokenizer


def _cut_names(tokenizer: PreTrainedTokenizerBase, names: dict[str, int]) -> PreTrainedTokenizerBase:
    """Cut texts behind the first character of every name, after all that the tokenizer does to them before its model."""
    if not tokenizer.is_fast:
        return tokenizer
    rests: dict[str, list[str]] = {}
    for name in names:
        rests.setdefault(name[0], []).append(re.escape(name[1:]))
    pattern = "|".join(f"{re.escape(first)}(?={'|'.join(rest)})" for first, rest in rests.items())
    backend = tokenizer.backend_tokenizer
    cut = pre_tokenizers.Split(Regex(pattern), behavior="isolated")
    backend.pre_tokenizer = pre_tokenizers.Sequence([*filter(None, [backend.pre_tokenizer]), cut])
    return with_steps(tokenizer, backend)


def with_steps(tokenizer: PreTrainedTokenizerBase, backend: Tokenizer) -> PreTrainedTokenizerFast:
    """The tokenizer with these steps, which it keeps when it is saved and loaded again."""
    # Most classes make their own steps anew when they are loaded; this one takes them from tokenizer.json as they are.
    kept: dict[str, Any] = {name: getattr(tokenizer, name) for name in SAVED}
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        split_special_tokens=tokenizer.split_special_tokens,
        chat_template=tokenizer.chat_template,
        **kept,
        **tokenizer.special_tokens_map,
    )


def _broken(name: re.Match[str]) -> str:
    return f"{name[0][0]} {name[0][1:]}" if len(name[0]) > 1 else " "
