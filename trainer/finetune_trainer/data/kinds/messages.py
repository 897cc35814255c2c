"""Conversations, and what is completed, which may be a text instead: lists of messages, a text being one outside any conversation."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from xxhash import xxh3_64_intdigest

from finetune_trainer.data.alike import look
from finetune_trainer.data.examples import BLOCK, Origins, Split
from finetune_trainer.data.kinds.chats import (
    MESSAGE,
    NO_TEXT,
    Fault,
    Message,
    WrongError,
    answered,
    conversation,
    history,
    refuse_without_answer,
    text_message,
    unread,
    unwrapped,
    without_nulls,
)
from finetune_trainer.data.kinds.lists import written_as_json
from finetune_trainer.data.kinds.values import Bad, Values
from finetune_trainer.data.problems import SHOWN, at, data_invalid, listed, rows_of, shortened


class Messages(Values):
    """Conversations with an answer."""

    type: ClassVar[pa.DataType] = pa.list_(MESSAGE)
    noun: ClassVar[str] = "conversation"
    is_list: ClassVar[bool] = True
    called: ClassVar[str] = "messages"
    """What they are called in a sentence about what is wrong with them."""

    def __init__(self, role: str, column: str, split: Split) -> None:
        super().__init__(role, column, split)
        self._wrong: dict[Fault, Bad] = {}
        self._unread: Counter[str] = Counter()

    def read(self, values: Sequence[Any] | pa.Array) -> pa.Array:
        rows = without_nulls(values.to_pylist()) if isinstance(values, pa.Array) else values
        found = []
        for row, value in enumerate(rows, start=self.rows):
            try:
                found.append(self.messages(value))
                self._unread.update(unread(value))
            except WrongError as error:
                self._wrong.setdefault(error.fault, Bad()).add(row, (error.example, error.number))
                found.append([])
        self.rows += len(found)
        return pa.array(found, self.type)

    @staticmethod
    def messages(value: Any) -> list[Message]:
        """What a row holds. Raises WrongError."""
        found = conversation(value)
        refuse_without_answer(found)
        return found

    def check(self, table: pa.Table, origins: Origins) -> None:
        self.refuse(self._wrong, self.called, origins)

    def refuse(self, wrong: Mapping[Fault, Bad], called: str, origins: Origins) -> None:
        """Raises JobError for the first of these faults."""
        for fault, bad in wrong.items():
            example, number = bad.example
            message = "" if number is None else f" in message {number}"
            raise data_invalid(
                f"the {called} {fault.said} in {bad.count:,} of {self.rows:,} {rows_of(self.split)}, such as "
                f"{shortened(example)}{message}: {at([origins[row] for row in bad.rows], self.column, count=bad.count)}",
                fault.remedy + written_as_json(example),
                self.field,
            )

    def warnings(self) -> list[str]:
        if not self._unread:
            return []
        most = sorted(self._unread, key=lambda name: (-self._unread[name], name))
        names, count = listed(most, SHOWN), self._unread[most[0]]
        return [
            f"Of the {self.called} in {count:,} of {self.rows:,} {rows_of(self.split)} {names} {'is' if len(self._unread) == 1 else 'are'} not "
            "read; what is not to be learnt has a weight of 0."
        ]

    @staticmethod
    def keys(values: Iterable[Any]) -> NDArray[np.uint64]:
        """Equal for conversations that look the same to a reader."""
        return np.fromiter((xxh3_64_intdigest(_spelt(messages, look).encode()) for messages in values), np.uint64)

    @staticmethod
    def spelt(values: Sequence[Any]) -> Iterable[str]:
        return map(_spelt, values)


class History(Messages):
    """Earlier turns, of which there may be none."""

    @staticmethod
    def messages(value: Any) -> list[Message]:
        return history(value)


class Prompts(Messages):
    """Texts, or conversations that need no answer yet."""

    noun: ClassVar[str] = "prompt"
    called: ClassVar[str] = "prompts"

    @staticmethod
    def messages(value: Any) -> list[Message]:
        """A text, a message, or a list of them. JSON stays a text here: what it is says the other part of the row; see `answered`."""
        if isinstance(value, str):
            return [text_message(value)]
        if isinstance(value, dict):
            value = [value]
        if not isinstance(value, list):
            raise WrongError(NO_TEXT, value)
        return conversation(value)

    @staticmethod
    def keys(values: Iterable[Any]) -> NDArray[np.uint64]:
        """Equal also where one has as JSON in a text what is a list in the other."""
        return Messages.keys(map(unwrapped, values))


class Completions(Prompts):
    """What completes them: a text or messages, as the prompt is."""

    is_input: ClassVar[bool] = False
    noun: ClassVar[str] = "completion"
    called: ClassVar[str] = "completions"
    prompt: ClassVar[str] = "prompt"
    """The role of what is completed."""

    @staticmethod
    def messages(value: Any) -> list[Message]:
        found = Prompts.messages(value)
        if found[0]["role"]:
            refuse_without_answer(found)
        return found

    def check(self, table: pa.Table, origins: Origins) -> None:
        super().check(table, origins)
        wrong: dict[Fault, Bad] = {}
        unlike, begin = Bad(), 0
        for batch in table.select([self.prompt, self.role]).to_batches(max_chunksize=BLOCK):
            for row, pair in enumerate(
                zip(*(column.to_pylist() for column in batch.columns), strict=True), start=begin
            ):
                try:
                    texts = [not messages[0]["role"] for messages in answered(*pair)]
                except WrongError as error:
                    wrong.setdefault(error.fault, Bad()).add(row, (error.example, error.number))
                    continue
                if texts[0] != texts[1]:
                    unlike.add(row, pair[1][0]["content"])
            begin += len(batch)
        self.refuse(wrong, "prompts or completions", origins)
        if unlike.count:
            raise data_invalid(
                f"of prompt and completion one is a text and the other has messages in {unlike.count:,} of {self.rows:,} "
                f"{rows_of(self.split)}, such as {shortened(unlike.example)}: "
                f"{at([origins[row] for row in unlike.rows], self.column, count=unlike.count)}",
                "Write both as texts, or both as lists of messages.",
                self.field,
            )


def _spelt(messages: Sequence[Message], spell: Any = str) -> str:
    """All that tells two conversations apart."""
    return json.dumps(
        [
            [
                one["role"],
                spell(one["content"] or ""),
                *(call["name"] + call["arguments"] for call in one["calls"] or ()),
            ]
            for one in messages
        ]
    )
