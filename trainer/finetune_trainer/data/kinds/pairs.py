"""Two answers of a row, of which one is preferred: what both answer, and what each of them adds to it.

What is answered has a column of its own, or is what both begin with. The ways of writing that are those of TRL ("Dataset formats and
types"), LLaMA-Factory (data/README.md) and OpenAI (preference fine-tuning): texts, answers to messages, or whole conversations.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import takewhile
from typing import Any, NamedTuple

from finetune_trainer.data.kinds.chats import (
    ASSISTANT,
    PERHAPS,
    TOOLS,
    Fault,
    Message,
    WrongError,
    refuse_without_answer,
    text_message,
)

MIXED = Fault(
    "are texts where the rest of the row has messages, or the other way round",
    "Write what is asked and both answers all as texts, or all as messages.",
)
NO_BEGINNING = Fault(
    "have no words in common that they begin with, and no column says what they answer",
    "Name the column with what is asked in spec.dataset.columns: as instruction where a user says it and the assistant answers, as prompt where the "
    "texts go on with it as they stand.",
)
NO_PROMPT = Fault(
    "have no message in common that they answer",
    "Begin both with the messages that they answer, or name the column that has these in spec.dataset.columns.prompt.",
)
NO_QUESTION = Fault(
    "are to what is neither a text nor messages as they should be",
    "Write what is asked as a text, or as a list of messages; where its column is named in spec.dataset.columns.prompt, it is said what is wrong "
    "with it.",
)
OTHER_PROMPT = Fault(
    "begin with other messages than those that they answer",
    "Give what the assistant says alone, or whole conversations, which begin with the very messages of the prompt.",
)


class Pair(NamedTuple):
    """A row; each a list of messages, or one message without a role where it is a text."""

    prompt: list[Message]
    """Empty beside an instruction."""
    chosen: list[Message]
    rejected: list[Message]
    tools: str | None = None
    """What came with the prompt, as JSON."""
    left_out: bool = False
    """Whether a column says what is asked and is not read, as both answers hold that."""


def pair_of(row: Mapping[str, Any]) -> Pair:
    """The parts of a row, by role. Raises WrongError, with the role of the answer for an example, where they do not fit together."""
    chosen, rejected, prompt = row["chosen"], row["rejected"], row.get("prompt") or None
    if "instruction" in row:
        return _answers(Pair([], _as_message(chosen), _as_message(rejected)))
    if is_text(chosen) != is_text(rejected):
        raise WrongError(MIXED, "rejected")
    if prompt and prompt[0]["role"] == PERHAPS:
        prompt = _unless_told(prompt[1:], chosen, rejected)
        return _pair(prompt, chosen, rejected)._replace(left_out=prompt is None)
    return _pair(prompt, chosen, rejected)


def _pair(prompt: list[Message] | None, chosen: list[Message], rejected: list[Message]) -> Pair:
    tools = None
    if prompt and prompt[0]["role"] == TOOLS:
        tools, prompt = prompt[0]["content"], prompt[1:]
    if prompt and not is_text(prompt):
        return _to_messages(prompt, _as_message(chosen), _as_message(rejected), tools)
    if is_text(chosen):
        return _texts(prompt, chosen, rejected)
    shared = _shared(chosen[:-1], rejected[:-1])
    if prompt and not _holds(chosen[:shared], prompt[0]["content"]):
        raise WrongError(MIXED, "chosen")
    if not shared:
        raise WrongError(NO_PROMPT, "chosen")
    pair = Pair(chosen[:shared], chosen[shared:], rejected[shared:])
    return _refused_without_answer(pair)


def _unless_told(prompt: list[Message], chosen: list[Message], rejected: list[Message]) -> list[Message] | None:
    """What is asked; None where both answers have that themselves: they are conversations with what a user says, or texts that begin with it."""
    if not is_text(chosen):
        told = any(message["role"] == "user" for message in chosen[: _shared(chosen[:-1], rejected[:-1])])
    else:
        asked = [message["content"].strip() for message in prompt if message["role"] in ("user", "")][-1:]
        one, other = chosen[0]["content"], rejected[0]["content"]
        told = any(re.search(rf"(?<!\w){re.escape(text)}(?!\w)", one[: _begin(one, other)]) for text in asked)
    if not told and not prompt:
        raise WrongError(NO_QUESTION, "chosen")
    return None if told else prompt


def _texts(prompt: list[Message] | None, chosen: list[Message], rejected: list[Message]) -> Pair:
    if prompt is not None:
        return Pair(prompt, chosen, rejected)
    one, other = (messages[0]["content"] for messages in (chosen, rejected))
    begin = _begin(one, other)
    if not begin:
        raise WrongError(NO_BEGINNING, "chosen")
    prompt = [chosen[0] | {"content": one[:begin]}]
    return Pair(prompt, [chosen[0] | {"content": one[begin:]}], [rejected[0] | {"content": other[begin:]}])


def _begin(one: str, other: str) -> int:
    """How many characters both begin with: whole words, so that no token begins in what is asked and ends in an answer."""
    words = re.match(r"(?s).*(?=\s)", one[: _shared(one.rstrip()[:-1], other.rstrip()[:-1])])
    return len(words[0].rstrip()) if words else 0


def _to_messages(prompt: list[Message], chosen: list[Message], rejected: list[Message], tools: str | None) -> Pair:
    if prompt[-1] in (chosen[-1], rejected[-1]):  # the whole conversation once more, with one of the answers
        prompt = prompt[:-1]
    if not prompt:
        raise WrongError(NO_PROMPT, "chosen")
    chosen, rejected = (messages[_begun(messages, prompt) :] for messages in (chosen, rejected))
    return _answers(Pair(prompt, chosen, rejected, tools))


def _answers(pair: Pair) -> Pair:
    """They are what the assistant says."""
    for role, messages in (("chosen", pair.chosen), ("rejected", pair.rejected)):
        if messages and messages[0]["role"] != ASSISTANT:
            raise WrongError(OTHER_PROMPT, role)
    return _refused_without_answer(pair)


def _refused_without_answer(pair: Pair) -> Pair:
    for role, messages in (("chosen", pair.chosen), ("rejected", pair.rejected)):
        try:
            refuse_without_answer(messages)
        except WrongError as error:
            raise WrongError(error.fault, role) from None
    return pair


def is_text(messages: Sequence[Message]) -> bool:
    return not messages[0]["role"]


def _as_message(messages: list[Message]) -> list[Message]:
    """What the assistant says, which may be given as a text."""
    return [text_message(messages[0]["content"], ASSISTANT)] if is_text(messages) else messages


def _begun(messages: Sequence[Message], prompt: Sequence[Message]) -> int:
    """How many of the messages are the prompt's: all of that, or none."""
    return len(prompt) if messages[: len(prompt)] == prompt else 0


def _shared(one: Sequence[Any], other: Sequence[Any]) -> int:
    """How many messages, or characters, both begin with."""
    return sum(1 for _ in takewhile(lambda both: both[0] == both[1], zip(one, other, strict=False)))


def _holds(messages: Sequence[Message], text: str) -> bool:
    """Whether one of them says just this: datasets such as UltraFeedback have the question once more as a text."""
    return text.strip() in [(message["content"] or "").strip() for message in messages]
