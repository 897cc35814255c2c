"""One message of a conversation, of whichever way of writing them: OpenAI's (`role`, `content`), which Hugging Face's chat templates take
too, or ShareGPT's (`from`, `value`) with what LLaMA-Factory made of it (`function_call`, `observation`, pairs of a history).

Sources: OpenAI's fine-tuning guide (`tools`, `tool_calls`, `function_call`, `weight`), TRL's "Dataset formats and types", LLaMA-Factory's
data/README.md.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from finetune_trainer.data.alike import is_blank
from finetune_trainer.data.encoding import is_encodable

CALL = pa.struct([("id", pa.large_string()), ("name", pa.large_string()), ("arguments", pa.large_string())])
"""`arguments` is an object as JSON."""
MESSAGE = pa.struct(
    [
        ("role", pa.string()),
        ("content", pa.large_string()),
        ("reasoning", pa.large_string()),
        ("calls", pa.list_(CALL)),
        ("call_id", pa.large_string()),
        ("name", pa.large_string()),
        ("learnt", pa.bool_()),
    ]
)
"""`role` is one of `ROLES`, or empty for a text that stands outside any conversation, or `TOOLS` for the functions that came with a prompt, whose
`content` is as of the kind of that name, or `PERHAPS` before what may be no prompt, whose `content` is null, too; `content` is null beside calls only; `learnt` is null where nothing is said of it."""
Message = dict[str, Any]
"""One as Python has it."""
READ = frozenset(
    {
        *("role", "content", "reasoning_content", "reasoning", "thinking"),
        *("function_call", "tool_calls", "tool_call_id", "name", "weight"),
    }
)
"""The fields of a message that something is made of, where it has a role."""
READ_OF_SHAREGPT = frozenset({"from", "value", "weight"})
"""The same where it has none."""

ROLES = ("system", "user", "assistant", "tool")
ASSISTANT, TOOLS, PERHAPS = "assistant", "tools", "perhaps"
_OPENAI = {**{role: role for role in ROLES}, "developer": "system", "function": "tool"}
_SHAREGPT = {
    **{"system": "system", "human": "user", "gpt": ASSISTANT, "observation": "tool", "function_call": ASSISTANT},
    **{"user": "user", "assistant": ASSISTANT, "tool": "tool"},
}
_SHAPES = ({"role", "content"}, {"role", "tool_calls"}, {"role", "function_call"}, {"from", "value"})
"""What any message has of these."""


@dataclass(frozen=True)
class Fault:
    """What may be wrong with the messages of a row."""

    said: str
    """In the middle of a sentence that begins with the messages."""
    remedy: str


NO_LIST = Fault(
    "are no list of messages",
    'Write [{"role": "user", "content": "…"}, {"role": "assistant", "content": "…"}], or ShareGPT\'s from and value.',
)
NO_TEXT = Fault("are neither a text nor a list of messages", "Write a text, or a list of messages.")
NONE = Fault("are none", "Remove these rows, or give them messages.")
NO_MESSAGE = Fault(
    "hold what is no message",
    "Write each message as an object with role and content, or with from and value.",
)
NO_ROLE = Fault(
    "have a role that is none",
    f"Roles are {', '.join(_OPENAI)}; ShareGPT's are {', '.join(list(_SHAREGPT)[:5])}.",
)
NO_CONTENT = Fault(
    "have a content that is no text",
    'Write a text, or a list of parts such as {"type": "text", "text": "…"}: images and sounds are not read.',
)
EMPTY = Fault(
    "have a message that says nothing",
    "Give it a text, or the assistant's tool_calls; or remove these rows.",
)
NO_CALL = Fault(
    "have a tool call that is none",
    'Write {"type": "function", "function": {"name": "…", "arguments": "{…}"}}: arguments are an object, or one as JSON in a text.',
)
NO_WEIGHT = Fault(
    "have a weight that is neither 0 nor 1",
    "Give the assistant's messages a weight of 0, for what is not learnt, or 1; or none.",
)
NO_ANSWER = Fault(
    "have no answer",
    "Give each row a message of the assistant (of ShareGPT: gpt or function_call), or remove these rows.",
)
NOT_LEARNT = Fault(
    "have no answer that is learnt", "Give one message of the assistant a weight of 1, or remove these rows."
)


class WrongError(Exception):
    """A fault, and an example of it."""

    def __init__(self, fault: Fault, example: Any, number: int | None = None) -> None:
        super().__init__(fault.said)
        self.fault, self.example, self.number = fault, example, number
        """`number` is the message's, counted from 1."""


def text_message(text: str, role: str = "") -> Message:
    """A text that stands outside any conversation, or that somebody says in one."""
    if is_blank(text):
        raise WrongError(EMPTY, text)
    return _message(role, text)


def conversation(value: Any) -> list[Message]:
    """The messages of a row, of a list or of one as JSON in a text; at least one. Raises WrongError."""
    value = parsed(value)
    if not isinstance(value, list):
        raise WrongError(NO_LIST, value)
    if not value:
        raise WrongError(NONE, value)
    return list(_messages(value))


def history(value: Any) -> list[Message]:
    """Earlier turns: pairs of what was asked and answered, or messages; none is right. Raises WrongError."""
    value = parsed(value)
    if value is None or value == "":
        return []
    if not isinstance(value, list):
        raise WrongError(NO_LIST, value)
    if not all(
        isinstance(pair, list) and len(pair) == 2 and all(one is None or isinstance(one, str) for one in pair)
        for pair in value
    ):
        return list(_messages(value))
    turns = [pair for pair in value if any(one and not is_blank(one) for one in pair)]  # the others say nothing at all
    return list(
        _messages(
            [{"role": role, "content": text} for pair in turns for role, text in zip(ROLES[1:3], pair, strict=True)]
        )
    )


def refuse_without_answer(messages: Sequence[Message]) -> None:
    """There is something to learn. Raises WrongError."""
    answers = [one for one in messages if one["role"] == ASSISTANT]
    if not answers:
        raise WrongError(NO_ANSWER, [one["role"] for one in messages])
    if all(one["learnt"] is False for one in answers):
        raise WrongError(NOT_LEARNT, [0] * len(answers))


def parsed(value: Any) -> Any:
    """The value, or what JSON in a text says; the text where it is no JSON."""
    if not isinstance(value, str) or not value.lstrip().startswith(("[", "{")):
        return value
    try:
        found = json.loads(value)
    except (ValueError, RecursionError):
        return value
    return found if is_encodable(found) else value


def are_messages(value: Any) -> bool:
    """Whether what stood as JSON in a text are messages, or is one, and not just any JSON: that may be what is asked or answered."""
    ones = value if isinstance(value, list) else [value]
    said = [one.get("role", one.get("from")) for one in ones if isinstance(one, dict)]
    return (
        len(said) == len(ones)
        and all(any(shape <= one.keys() for shape in _SHAPES) for one in ones)
        and any(isinstance(role, str) and role in {*_OPENAI, *_SHAREGPT} for role in said)
    )


def answered(prompt: list[Message], completion: list[Message]) -> tuple[list[Message], list[Message]]:
    """Both, as messages where each holds these, be it as JSON in a text, and such a completion is what the assistant says; else as they are: such
    JSON may be what is asked, or the answer. Raises WrongError."""
    given, said = (one if one[0]["role"] else parsed(one[0]["content"]) for one in (prompt, completion))
    if not are_messages(given) or not are_messages(said):
        return prompt, completion
    given, said = (one if isinstance(one, list) else [one] for one in (given, said))
    if not completion[0]["role"]:
        if said[0].get("role", said[0].get("from")) not in (ASSISTANT, "gpt", "function_call"):
            return prompt, completion
        completion = conversation(said)
        refuse_without_answer(completion)
    return prompt if prompt[0]["role"] else conversation(given), completion


def unwrapped(messages: list[Message]) -> list[Message]:
    """The messages that stand as JSON in a text; the same where that is none, or they are wrong."""
    if len(messages) != 1 or messages[0]["role"]:
        return messages
    found = parsed(messages[0]["content"])
    try:
        return conversation(found if isinstance(found, list) else [found]) if are_messages(found) else messages
    except WrongError:
        return messages


def unread(value: Any) -> set[str]:
    """The fields of messages, which were found to be right, that nothing is made of."""
    found = parsed(value)
    messages = map(parsed, found) if isinstance(found, list) else ()
    empty: tuple[Any, ...] = (None, "", [], {})
    return {
        name
        for one in messages
        if isinstance(one, dict)
        for name, of in one.items()
        if name not in (READ_OF_SHAREGPT if one.get("role") is None else READ) and of not in empty
    }


def without_nulls(value: Any) -> Any:
    """What Arrow has of objects of different fields: each has all of them, and null where it has none."""
    if isinstance(value, dict):
        return {name: without_nulls(one) for name, one in value.items() if one is not None}
    if isinstance(value, list):
        return [without_nulls(one) for one in value]
    return value


def _messages(values: Sequence[Any]) -> Iterator[Message]:
    for number, value in enumerate(values, start=1):
        try:
            yield _one(parsed(value))
        except WrongError as error:
            raise WrongError(error.fault, error.example, number) from None


def _one(value: Any) -> Message:
    if not isinstance(value, dict):
        raise WrongError(NO_MESSAGE, value)
    if value.get("role") is not None:
        return _of_openai(value)
    if value.get("from") is not None:
        return _of_sharegpt(value)
    raise WrongError(NO_MESSAGE, value)


def _of_openai(value: Mapping[str, Any]) -> Message:
    said = value["role"]
    role = _OPENAI.get(said) if isinstance(said, str) else None
    if role is None:
        raise WrongError(NO_ROLE, said)
    content, reasoning, calls = _parts(value.get("content"))
    for name in ("reasoning_content", "reasoning", "thinking"):
        if isinstance(value.get(name), str):
            reasoning = value[name] or reasoning
    if value.get("function_call") is not None:
        calls.append(_call(value["function_call"]))
    if value.get("tool_calls") is not None:
        if not isinstance(value["tool_calls"], list):
            raise WrongError(NO_CALL, value["tool_calls"])
        calls += map(_call, value["tool_calls"])
    if calls and role != ASSISTANT:
        raise WrongError(NO_CALL, value)
    return _checked(
        _message(
            role,
            content,
            reasoning=reasoning,
            calls=calls or None,
            call_id=_optional(value, "tool_call_id"),
            name=_optional(value, "name"),
            learnt=_learnt(role, value),
        ),
        value,
    )


def _learnt(role: str, value: Mapping[str, Any]) -> bool | None:
    weight = value.get("weight")
    if role != ASSISTANT or weight is None:
        return None
    if weight not in (0, 1):
        raise WrongError(NO_WEIGHT, weight)
    return bool(weight)


def _of_sharegpt(value: Mapping[str, Any]) -> Message:
    said = value["from"]
    role = _SHAREGPT.get(said) if isinstance(said, str) else None
    if said == "function" and _is_call(
        value.get("value")
    ):  # as LLaMA-Factory's documentation has it; not what a function answers
        said, role = "function_call", ASSISTANT
    if role is None:
        raise WrongError(NO_ROLE, said)
    if said == "function_call":
        calls = parsed(value.get("value"))
        found = [_call(call) for call in (calls if isinstance(calls, list) else [calls])]
        return _message(role, None, calls=found, learnt=_learnt(role, value))
    content, reasoning, calls = _parts(value.get("value"))
    learnt = _learnt(role, value)
    return _checked(_message(role, content, reasoning=reasoning, calls=calls or None, learnt=learnt), value)


def _checked(message: Message, value: Mapping[str, Any]) -> Message:
    """One that says something: an instruction or what a tool answers may be empty."""
    says_nothing = message["content"] is None or is_blank(message["content"])
    if says_nothing and message["role"] in ("user", ASSISTANT) and not message["calls"]:
        raise WrongError(EMPTY, value)
    if message["content"] is None and not message["calls"]:
        message["content"] = ""
    return message


def _parts(content: Any) -> tuple[str | None, str | None, list[dict[str, Any]]]:
    """Text, reasoning and calls of a content."""
    if content is None or isinstance(content, str):
        return content, None, []
    if not isinstance(content, list):
        raise WrongError(NO_CONTENT, content)
    texts: list[str] = []
    reasons: list[str] = []
    calls: list[dict[str, Any]] = []
    for part in content:
        kind = part.get("type") if isinstance(part, dict) else None
        said = (
            next((part[name] for name in ("text", "value", "thinking") if part.get(name) is not None), None)
            if kind
            else None
        )
        if kind == "tool_call":
            calls.append(_call(parsed(said)))
        elif kind in ("text", "reasoning", "thinking") and isinstance(said, str):
            (texts if kind == "text" else reasons).append(said)
        else:
            raise WrongError(NO_CONTENT, part)
    return "".join(texts) if texts else None, "".join(reasons) or None, calls


def _call(value: Any) -> dict[str, Any]:
    call = value.get("function") if isinstance(value, dict) and value.get("function") is not None else value
    if not isinstance(call, dict) or not isinstance(call.get("name"), str) or is_blank(call["name"]):
        raise WrongError(NO_CALL, value)
    arguments = {} if call.get("arguments") in (None, "") else parsed(call["arguments"])
    if not isinstance(arguments, dict):
        raise WrongError(NO_CALL, value)
    return {"id": _optional(value, "id"), "name": call["name"], "arguments": json.dumps(arguments, ensure_ascii=False)}


def _is_call(value: Any) -> bool:
    """Whether it can be nothing else: calls with their arguments."""
    calls = parsed(value)
    ones = calls if isinstance(calls, list) else [calls]
    return bool(ones) and all(isinstance(one, dict) and {"name", "arguments"} <= one.keys() for one in ones)


def _optional(value: Mapping[str, Any], name: str) -> str | None:
    found = value.get(name)
    return found if isinstance(found, str) else None


def perhaps() -> Message:
    """Stands before what may be no prompt."""
    return _message(PERHAPS, None)


def _message(role: str, content: str | None, **others: Any) -> Message:
    return dict.fromkeys(MESSAGE.names) | {"role": role, "content": content} | others
