"""Answers of which one is preferred to another, and what they answer: texts, or messages in any of the ways that `pairs.py` knows."""

from __future__ import annotations

import json
from typing import Any, ClassVar

import pyarrow as pa

from finetune_trainer.data.alike import is_blank
from finetune_trainer.data.examples import BLOCK, Origins
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
from finetune_trainer.data.kinds.pairs import pair_of
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
    """What is answered, where its column is called as those of other things are, too: what it is then depends on the answers (`pair_of`). Empty
    where it says nothing, and without messages where they are wrong."""

    @staticmethod
    def messages(value: Any) -> list[Message]:
        found = parsed(value)
        if not found or isinstance(found, int | float) or (isinstance(found, str) and is_blank(found)):
            return []
        try:
            return [perhaps(), *Asked.messages(value)]
        except WrongError:
            return [perhaps()]


class Question(Perhaps):
    """The same, of which a text is what a user says, to whom the assistant answers."""

    @staticmethod
    def messages(value: Any) -> list[Message]:
        return [one | {"role": one["role"] or "user"} for one in Perhaps.messages(value)]


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
        begin = 0
        for batch in table.to_batches(max_chunksize=BLOCK):
            for row, values in enumerate(batch.to_pylist(), start=begin):
                try:
                    pair_of(values)
                except WrongError as error:
                    wrong.setdefault((error.fault, error.example), Bad()).add(row, None)
            begin += len(batch)
        for (fault, role), bad in wrong.items():
            raise data_invalid(
                f"the {role} answers {fault.said} in {bad.count:,} of {self.rows:,} {rows_of(self.split)}: "
                f"{at([origins[row] for row in bad.rows], self.column if role == self.role else None, count=bad.count)}",
                fault.remedy,
                f"spec.dataset.columns.{role}",
            )


def _messages(value: Any) -> list[Message]:
    """A text, a message, or a list of them, which JSON may have written into a text. Another text that is JSON is what is answered."""
    found = parsed(value)
    return Prompts.messages(found if are_messages(found) else value)
