"""Rows of text-generation as tokens, and which of these are learnt.

A conversation is written by the model's chat template (`chat_template.py`), a text as it stands, between what the tokenizer puts around
texts. Names of control tokens in the data stay text (`broken_names.py`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import datetime
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from finetune_api.options import DEFAULT_TEXT_LOSS, TextGeneration as Options
from finetune_trainer.data.conversations import Conversation, Plain, Row
from finetune_trainer.data.examples import Origins
from finetune_trainer.data.loaded import Data
from finetune_trainer.data.problems import at, data_invalid
from finetune_trainer.tasks.broken_names import MARK, Breaker
from finetune_trainer.tasks.chat_template import BY_LAST, ChatTemplate, Rendered, RenderError, Span
from finetune_trainer.tasks.generation import Frame

_BESIDE = {"system": "system message", "tools": "tools"}
"""What roles hold that a text has no place for."""


class Encoded(NamedTuple):
    """One row as tokens."""

    ids: NDArray[np.int32]
    learnt: NDArray[np.bool_]
    """Of each token."""
    begin: int
    """Where the last answer begins."""


class RowTokens:
    """Rows as a model reads them; counts what there is to say of those of one split."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, data: Data, options: Options, *, is_chat: bool) -> None:
        """`tokenizer` reads control tokens, which chat templates write; `is_chat` says whether all rows are conversations, or none is."""
        self._tokenizer = tokenizer
        self._is_chat = is_chat
        self._options = options
        self._role = next(iter(data.train.roles))
        self._has_prompts = not data.form.has("text")
        completed = ", and that of the completion in output" if data.form.has("completion") else ""
        self._otherwise = (
            f"; or, if a user says the prompt, name its column in spec.dataset.columns.instruction{completed}"
        )
        self._breaker = Breaker(tokenizer)
        self.template = ChatTemplate(tokenizer)
        self.begin_split(None)

    def begin_split(self, now: datetime | None) -> None:
        """Count from nothing. `now` is the time for templates that write it; None is this machine's."""
        self.template.now = now
        self._breaker.forget()
        self._by_last = self._joined = 0
        self._left_out: Counter[str] = Counter()

    def encoded(self, given: Sequence[Row], origins: Origins, begin: int) -> Iterator[Encoded]:
        """The tokens of some rows, of which the first is that numbered `begin` of the split. Raises JobError DATA_INVALID for what the
        chat template does not take."""
        return self._tokens(self._rendered(given, origins, begin))

    def said(self, count: int, what: str = "rows") -> list[str]:
        """Sentences about all of the split that was encoded, which is so many, and `what` these are."""
        notes = []
        if self._by_last:
            notes.append(
                f"Of {self._by_last:,} of {count:,} conversations only the last answer is learnt: the chat template writes the earlier ones "
                "otherwise once others follow, and does not mark what the assistant says."
            )
        notes += [
            f"The chat template leaves out {what} of {rows:,} of {count:,} conversations, so the model does not read it."
            for what, rows in sorted(self._left_out.items())
        ]
        if self._joined:
            notes.append(
                f"In {self._joined:,} of {count:,} {what} one token holds the end of the prompt and the beginning of the answer, such as "
                f"{self._example!r}: who asks with the prompt alone asks otherwise than it was learnt."
            )
        if held := self._breaker.held:
            notes.append(
                f"{held:,} of {count:,} {what} hold names of control tokens, such as {self._breaker.example!r}: read as text, but by "
                "the saved tokenizer as tokens."
            )
        return notes

    @cached_property
    def _around(self) -> tuple[list[int], list[int]]:
        """What stands before and behind a text that no template touches."""
        frame, end = Frame.of(self._tokenizer), self._tokenizer.eos_token_id
        before, after = list(frame.before), list(frame.after)
        return before, after if end is None or end in after else [*after, end]

    def _rendered(self, given: Sequence[Row], origins: Origins, begin: int) -> list[Rendered]:
        found, wrong = [], []
        first: RenderError | None = None
        for number, row in enumerate(given, start=begin):
            if isinstance(row, Plain) == self._is_chat:
                raise data_invalid(
                    f"this row is {'a text' if self._is_chat else 'a list of messages'}, and the first one to train on is not: "
                    f"{origins[number]}",
                    "Write all rows as texts, or all as lists of messages: the two end otherwise, so a model learns one or the other.",
                    f"spec.dataset.columns.{self._role}",
                )
            if isinstance(row, Plain) and self._options.system_prompt and self._has_prompts:
                raise data_invalid(
                    f"a prompt is a text, before which no system prompt can stand: {origins[number]}",
                    "Write prompts and completions as lists of messages, or remove spec.textGeneration.systemPrompt.",
                    "spec.textGeneration.systemPrompt",
                )
            if isinstance(row, Plain) and row.beside:
                role = row.beside[0]
                more = self._otherwise if role == "system" else ""
                raise data_invalid(
                    f"a prompt is a text, before which no {_BESIDE[role]} can stand: {origins[number]}",
                    f"Write what is asked and what is answered as lists of messages, or leave {role} empty{more}.",
                    f"spec.dataset.columns.{role}",
                )
            try:
                found.append(self._render(self._breaker.broken(row)))
            except RenderError as error:
                wrong.append(number)
                first = first or error
        if first:
            raise data_invalid(
                f"the model's chat template does not take {'this conversation' if len(wrong) == 1 else 'these conversations'}: {first} "
                f"({at(origins.take(wrong))})",
                f"{first.remedy}, or put another chat_template.jinja beside the model.",
                f"spec.dataset.columns.{self._role}",
            )
        self._by_last += sum(one.found_by == BY_LAST for one in found)
        self._left_out.update(what for one in found for what in one.left_out)
        return found

    def _render(self, row: Row) -> Rendered:
        if isinstance(row, Conversation):
            return self.template.rendered(row)
        text = row.prompt + row.completion
        return Rendered(text, ((len(row.prompt), len(text)),), len(row.prompt), "")

    def _tokens(self, rendered: Sequence[Rendered]) -> Iterator[Encoded]:
        parts = [one.text.split(MARK) for one in rendered]
        encoding = self._tokenizer(
            [part for of_row in parts for part in of_row],
            add_special_tokens=False,
            return_offsets_mapping=True,
            return_attention_mask=False,
            return_token_type_ids=False,
            verbose=False,
        )
        number = 0
        whole = (self._options.loss or DEFAULT_TEXT_LOSS) == "all"
        for one, of_row in zip(rendered, parts, strict=True):
            ids: list[list[int]] = []
            places: list[NDArray[np.int64]] = []
            place = 0
            for part in of_row:
                ids.append(encoding["input_ids"][number])
                places.append(place + np.asarray(encoding["offset_mapping"][number], np.int64).reshape(-1, 2))
                place += len(part) + len(MARK)
                number += 1
            start, end = np.concatenate(places).T
            learnt = np.zeros(len(end), np.bool_)
            for span in one.learnt:
                learnt |= _within(end, span)
            begin = int((end <= one.begin).sum())
            tokens = np.asarray([token for part in ids for token in part], np.int32)
            if found := np.flatnonzero((start < one.begin) & (end > one.begin)).tolist():
                self._joined += 1
                self._example = one.text[start[found[0]] : end[found[0]]]
            if not one.found_by:  # a text that no template touches
                before, after = self._around
                tokens = np.concatenate([np.asarray(before, np.int32), tokens, np.asarray(after, np.int32)])
                learnt = np.concatenate([np.zeros(len(before), np.bool_), learnt, np.ones(len(after), np.bool_)])
                begin = len(before) + (begin if self._has_prompts else len(end) // 2)
            yield Encoded(tokens, np.ones_like(learnt) if whole else learnt, begin)


def _within(ends: NDArray[np.int64], span: Span) -> NDArray[np.bool_]:
    """Which tokens have their last character in a span; `ends` are the places behind these."""
    found: NDArray[np.bool_] = (ends > span[0]) & (ends <= span[1])
    return found
