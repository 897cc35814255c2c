"""Answers of which one is preferred to another, and what they answer: texts, or messages in any of the ways that `pairs.py` knows."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, ClassVar

import pyarrow as pa

from finetune_trainer.data.alike import is_blank
from finetune_trainer.data.examples import BLOCK, Origins, Split
from finetune_trainer.data.kinds.chats import (
    TOOLS,
    Fault,
    Message,
    WrongError,
    are_messages,
    conversation,
    parsed,
    perhaps,
    text_message,
)
from finetune_trainer.data.kinds.messages import Prompts
from finetune_trainer.data.kinds.pairs import Pair, is_text, pair_of
from finetune_trainer.data.kinds.tools import tools_of
from finetune_trainer.data.kinds.values import Bad
from finetune_trainer.data.problems import at, data_invalid, rows_of

NO_TOOLS = Fault(
    "have tools that are no list of functions",
    'Write [{"type": "function", "function": {"name": "…", "parameters": {…}}}], and nothing where there are none.',
)


class Asked(Prompts):
    """What is answered, which OpenAI writes as an object with its messages and tools."""

    @staticmethod
    def messages(value: Any) -> list[Message]:
        whole = parsed(value)
        if not isinstance(whole, dict) or not isinstance(whole.get("messages"), list):
            return _messages(value)
        tools = tools_of(whole.get("tools"))
        if tools is None:
            raise WrongError(NO_TOOLS, whole["tools"])
        found = conversation(whole["messages"])
        return [text_message(json.dumps(tools, ensure_ascii=False), TOOLS), *found] if tools else found


class Perhaps(Asked):
    """What is answered, where its column is called as those of other things are, too: what it is then depends on the answers (`pair_of`). A text
    is what a user says, to whom the assistant answers. Empty where it says nothing, and without messages where they are wrong."""

    as_role: ClassVar[str] = "prompt"
    """As which role its column is to be named, to be read whatever the answers hold."""

    def __init__(self, role: str, column: str, split: Split) -> None:
        super().__init__(role, column, split)
        self._used = self._left = 0
        self._left_texts = Bad()

    def count(self, row: int, value: Sequence[Message], pair: Pair) -> None:
        """What became of it in a row, which has this pair."""
        if not value:
            return
        self._left += pair.left_out
        self._used += not pair.left_out
        if pair.left_out and is_text(pair.chosen):
            self._left_texts.add(row, None)

    def check_counted(self, origins: Origins) -> None:
        """Not that in some rows a user says it, and others are texts that hold it."""
        if (left := self._left_texts).count and self._used:
            raise data_invalid(
                f'both answers hold what the column "{self.column}" says in {left.count:,} of {self.rows:,} {rows_of(self.split)}, which so are '
                f"texts, and others are conversations: {at([origins[row] for row in left.rows], count=left.count)}",
                f"{self._as_named} Else remove these rows.",
                f"spec.dataset.columns.{self.as_role}",
            )

    @property
    def is_left_out(self) -> bool:
        return not self._used

    def warnings(self) -> list[str]:
        if self.split != "train" or not self._left:
            return super().warnings()
        return [
            *super().warnings(),
            f'The column "{self.column}" is not read in {self._left:,} of {self.rows:,} training rows, as both answers hold what is '
            f"asked.{f' {self._as_named}' if self._left_texts.count else ''}",
        ]

    @property
    def _as_named(self) -> str:
        return f"If both are what the assistant says to it, name it in spec.dataset.columns.{self.as_role}."

    @staticmethod
    def messages(value: Any) -> list[Message]:
        found = parsed(value)
        if not found or isinstance(found, int | float) or (isinstance(found, str) and is_blank(found)):
            return []
        try:
            return [perhaps(), *(one | {"role": one["role"] or "user"} for one in Asked.messages(value))]
        except WrongError:
            return [perhaps()]


class Question(Perhaps):
    """The same, of what is a text."""

    as_role: ClassVar[str] = "instruction"


class Told(Question):
    """The same where its column is called as that of messages which are to be answered: these are it, whatever the answers have."""

    @staticmethod
    def messages(value: Any) -> list[Message]:
        return Perhaps.messages(value) if isinstance(parsed(value), str) else Asked.messages(value)


class Preferences(Prompts):
    """An answer, or a conversation that ends in one."""

    noun: ClassVar[str] = "answer"
    called: ClassVar[str] = "answers"
    last: ClassVar[str] = "rejected"
    """The role that is read when the others are: it is checked with them."""

    @staticmethod
    def messages(value: Any) -> list[Message]:
        return _messages(value)

    def check(self, table: pa.Table, origins: Origins) -> None:
        super().check(table, origins)
        if self.role != self.last:
            return
        wrong: dict[tuple[Fault, str], Bad] = {}
        asked = self.others.get("prompt")
        begin = 0
        for batch in table.to_batches(max_chunksize=BLOCK):
            for row, values in enumerate(batch.to_pylist(), start=begin):
                try:
                    pair = pair_of(values)
                except WrongError as error:
                    wrong.setdefault((error.fault, error.example), Bad()).add(row, None)
                    continue
                if isinstance(asked, Perhaps):
                    asked.count(row, values["prompt"], pair)
            begin += len(batch)
        for (fault, role), bad in wrong.items():
            raise data_invalid(
                f"the {role} answers {fault.said} in {bad.count:,} of {self.rows:,} {rows_of(self.split)}: "
                f"{at([origins[row] for row in bad.rows], self.column if role == self.role else None, count=bad.count)}",
                fault.remedy,
                f"spec.dataset.columns.{role}",
            )
        if isinstance(asked, Perhaps):
            asked.check_counted(origins)


def _messages(value: Any) -> list[Message]:
    """A text, a message, or a list of them, which JSON may have written into a text. Another text that is JSON is what is answered."""
    found = parsed(value)
    return Prompts.messages(found if are_messages(found) else value)
