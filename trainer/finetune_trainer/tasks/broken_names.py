"""Names of control tokens in conversations stay text, while those that the chat template writes become tokens.

What stands in the data, such as `<|im_end|>` in a question about chat templates, is broken behind its first character by a mark before the
template is rendered; what is rendered is cut at the marks, and its parts are tokenised one by one. So no part holds a name that the template
has not written, and nothing is tokenised otherwise in rows that hold none.

Tokens that were added without being special, such as `<think>` or `<tool_call>`, are the model's own words: in what the assistant says, and in
plain texts, they are read as tokens, elsewhere as text.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from transformers import PreTrainedTokenizerBase

from finetune_trainer.data.conversations import Conversation, Plain, Row
from finetune_trainer.data.kinds.chats import ASSISTANT
from finetune_trainer.tasks.plain_text import control_tokens

MARK = "\ufdd0"
"""A character that Unicode keeps out of any text."""


class Breaker:
    """Breaks the names of a tokenizer's control tokens."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        names = control_tokens(tokenizer)
        special = set(tokenizer.all_special_tokens)
        special |= {token.content for token in tokenizer.added_tokens_decoder.values() if token.special}
        self._names = names
        self._all = _pattern(names)
        self._special = _pattern(name for name in names if name in special)
        self.forget()

    def forget(self) -> None:
        """Count from nothing."""
        self.held = 0
        """Rows that held such a name so far."""
        self.example = ""
        """The first of these names."""

    def broken(self, row: Row) -> Row:
        """The row with marks in it."""
        self._changed = self._found = False
        if isinstance(row, Plain):
            made: Row = Plain(self._text(row.prompt, self._special), self._text(row.completion, self._special))
        else:
            messages = tuple(
                self._value(turn, self._special if turn["role"] == ASSISTANT else self._all) for turn in row.messages
            )
            tools = None if row.tools is None else tuple(self._value(tool, self._all) for tool in row.tools)
            made = Conversation(messages, row.learnt, tools)
        self.held += self._found
        return made if self._changed else row

    def _value(self, value: Any, pattern: re.Pattern[str] | None) -> Any:
        if isinstance(value, str):
            return self._text(value, pattern)
        if isinstance(value, dict):
            return {self._text(name, pattern): self._value(one, pattern) for name, one in value.items()}
        if isinstance(value, list):
            return [self._value(one, pattern) for one in value]
        return value

    def _text(self, text: str, pattern: re.Pattern[str] | None) -> str:
        if MARK in text:
            text, self._changed = text.replace(MARK, ""), True
        if pattern is None or not (found := pattern.search(text)):
            return text
        self._changed = self._found = True
        self.example = self.example or max((n for n in self._names if text.startswith(n, found.start())), key=len)
        return pattern.sub(lambda name: name[0] + MARK, text)


def _pattern(names: Iterable[str]) -> re.Pattern[str] | None:
    """The first character of each name, wherever one begins, within another too."""
    rests: dict[str, list[str]] = {}
    for name in names:
        rests.setdefault(name[0], []).append(re.escape(name[1:]))
    found = [f"{re.escape(first)}(?={'|'.join(rest)})" for first, rest in rests.items()]
    return re.compile("|".join(found)) if found else None
