"""What a row of text-generation says, whichever form it has: a conversation as chat templates take it, or a text that stands as it is."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from finetune_trainer.data.kinds.chats import ASSISTANT, answered

Turn = dict[str, Any]
"""A message as Hugging Face's chat templates take it: `role`, `content`, and what else it has, such as `tool_calls`."""


@dataclass(frozen=True)
class Conversation:
    """Messages, of which the assistant's are learnt."""

    messages: tuple[Turn, ...]
    learnt: tuple[bool, ...]
    """Of each message, whether it is learnt: the assistant's, but for those with a weight of 0."""
    tools: tuple[dict[str, Any], ...] | None = None


@dataclass(frozen=True)
class Plain:
    """A text that no chat template touches, of which what completes it is learnt."""

    prompt: str
    completion: str
    beside: tuple[str, ...] = ()
    """Roles of which the row has something that only a conversation can have before it."""


Row = Conversation | Plain


def rows(block: Mapping[str, Sequence[Any]], system_prompt: str | None = None) -> Iterator[Row]:
    """The rows of a block of examples, by role. `system_prompt` stands before conversations that have no system message."""
    count = len(next(iter(block.values())))
    for number in range(count):
        yield row_of({role: values[number] for role, values in block.items()}, system_prompt)


def spoken(turn: Turn) -> str:
    """What a message says, as people read it: its text, and its calls as JSON."""
    calls = [json.dumps(call["function"], ensure_ascii=False) for call in turn.get("tool_calls", ())]
    return "\n".join(filter(None, [turn["content"], *calls]))


def row_of(row: Mapping[str, Any], system_prompt: str | None) -> Row:
    """One row, by role."""
    if "text" in row:
        return Plain("", row["text"])
    if "instruction" in row:
        messages = [*asked(row), said(ASSISTANT, row["output"])]
    elif "prompt" in row:
        prompt, completion = answered(row["prompt"], row["completion"])
        if not prompt[0]["role"]:
            beside = tuple(role for role in ("system", "tools") if (row.get(role) or "").strip())
            return Plain(prompt[0]["content"], completion[0]["content"], beside)
        # What the prompt's assistant says is given, not learnt.
        messages = [*(message | {"learnt": False} for message in prompt), *completion]
    else:
        messages = row["messages"]
    system = (row.get("system") or "").strip() or system_prompt
    if system and messages[0]["role"] != "system":
        messages = [said("system", system), *messages]
    tools = json.loads(row["tools"]) if row.get("tools") else None
    return Conversation(
        tuple(map(_turn, messages)),
        tuple(message["role"] == ASSISTANT and message.get("learnt") is not False for message in messages),
        tuple(tools) if tools else None,
    )


def asked(row: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The messages of a row with an instruction, up to that."""
    text = "\n".join(filter(None, [row["instruction"], (row.get("input") or "").strip()]))
    return [*(row.get("history") or []), said("user", text)]


def said(role: str, content: str) -> dict[str, Any]:
    """A message of this text alone."""
    return {"role": role, "content": content}


def _turn(message: Mapping[str, Any]) -> Turn:
    turn: Turn = {"role": message["role"], "content": message["content"] or ""}
    if calls := message.get("calls"):
        turn["tool_calls"] = [_call(call) for call in calls]
    if reasoning := message.get("reasoning"):
        turn |= {"reasoning_content": reasoning, "thinking": reasoning}  # as one or the other template calls it
    for name, key in (("call_id", "tool_call_id"), ("name", "name")):
        if message.get(name):
            turn[key] = message[name]
    return turn


def _call(call: Mapping[str, Any]) -> dict[str, Any]:
    function = {"name": call["name"], "arguments": json.loads(call["arguments"])}
    return {"type": "function", **({"id": call["id"]} if call["id"] else {}), "function": function}
