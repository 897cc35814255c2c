"""A conversation as a model's chat template writes it, and where in that the assistant speaks.

| what is learnt is found by | where |
|---|---|
| the template's own marks, `{% generation %}` | it has them |
| what each answer adds: the conversation up to it, with the template's prompt for an answer, is the beginning of the conversation with it, and that of the whole | it has none |
| what the last answer adds, in the same way | the template writes earlier answers otherwise once others follow, as those that drop earlier reasoning |

Whatever it is found by is proved for each row: where not even the last answer can be told from its prompt, or where what is learnt has not
in it what the assistant says, nothing is learnt of the row and the run ends: a prompt might be learnt, or to say nothing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase
from transformers.utils.chat_template_utils import render_jinja_template

from finetune_trainer.data.conversations import Conversation, Turn
from finetune_trainer.data.kinds.chats import ASSISTANT
from finetune_trainer.said import first_line
from finetune_trainer.tasks.broken_names import MARK

GENERATION = re.compile(r"\{%-?\s*generation\s*-?%\}")
Span = tuple[int, int]
"""Where characters begin, and end."""
SEEN = 16
"""Characters of a message's beginning or end by which it is looked for."""
PIECES = re.compile(r"[\n<>\[\]]")
"""What stands between pieces of a message that templates write apart, such as reasoning and what is said then."""
BY_MARKS, BY_PREFIXES, BY_LAST = "the template's marks", "what each answer adds", "the last answer"

DIRECTIVES = "aAbBcdHIjmMpSxXyYzZ"
"""Of strftime."""
CLOCK = """\
{{%- macro strftime_now(format) -%}}
{{%- set said = namespace(text=format.replace('%-', '%')) -%}}
{{%- for sign, value in {said}.items() -%}}{{%- set said.text = said.text.replace(sign, value) -%}}{{%- endfor -%}}
{{{{- said.text -}}}}
{{%- endmacro %}}
"""
"""In place of transformers' own function, which takes the time of this machine."""
PLAIN = """\
{%- if bos -%}{{ bos }}{%- endif -%}
{%- if tools -%}
{{- '### Tools:\\n' -}}{%- for tool in tools -%}{{- tool.function | tojson + '\\n' -}}{%- endfor -%}{{- '\\n' -}}
{%- endif -%}
{%- for message in messages -%}
{{- '### ' + message.role | capitalize + ':\\n' -}}
{%- if message.role == 'assistant' -%}
{%- generation -%}
{{- message.content -}}
{%- for call in message.tool_calls or [] -%}
{{- ('\\n' if message.content or not loop.first else '') + call.function | tojson -}}
{%- endfor -%}
{{- eos_token -}}
{%- endgeneration -%}
{%- else -%}
{{- message.content -}}
{%- endif -%}
{{- '\\n\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '### Assistant:\\n' -}}{%- endif -%}
"""
"""For models without a template of their own: each message below a line with its role, an answer ended by the end of a text."""


class RenderError(Exception):
    """The template does not take a conversation, or does not tell what of it is learnt; says why."""

    def __init__(self, why: str, remedy: str = "Correct the order and the roles of the messages") -> None:
        super().__init__(why)
        self.remedy = remedy
        """What to do, beside taking another template."""


@dataclass(frozen=True)
class Rendered:
    """A conversation as text."""

    text: str
    learnt: tuple[Span, ...]
    """The answers that are learnt, ascending; of one there may be several parts."""
    begin: int
    """Where the last of these answers begins."""
    found_by: str
    left_out: frozenset[str] = frozenset()
    """What of the conversation is not in the text, in words."""


class ChatTemplate:
    """The chat template of a tokenizer."""

    now: datetime | None = None
    """When it is, for templates that write the date; None for the clock of this machine."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer

    def rendered(self, conversation: Conversation) -> Rendered:
        """The conversation, and what is learnt of it. Raises RenderError."""
        tools = None if conversation.tools is None else list(conversation.tools)
        try:
            found = self._by_marks(conversation, tools) or self._by_prefixes(conversation, tools)
        except RenderError:
            if not any("tool_calls" in turn for turn in conversation.messages):
                raise
            # Some, such as DeepSeek's, want arguments as JSON.
            conversation = _with_json(conversation)
            found = self._by_marks(conversation, tools) or self._by_prefixes(conversation, tools)
        return replace(found, left_out=frozenset(_left_out(conversation, found)))

    def prompt(self, messages: Sequence[Turn], tools: list[dict[str, Any]] | None = None) -> str:
        """The messages, and what stands before an answer to them. Raises RenderError."""
        return self._render(messages, tools, answers=True)

    def _by_marks(self, conversation: Conversation, tools: list[dict[str, Any]] | None) -> Rendered | None:
        """None where the template has no marks, or they do not tell which answer is which."""
        template = self._written(tools)
        if not GENERATION.search(template):
            return None
        try:
            [text], [spans] = render_jinja_template(
                conversations=[list(conversation.messages)],
                tools=tools,
                chat_template=template,
                return_assistant_tokens_mask=True,
                **self._tokenizer.special_tokens_map,
            )
        except _WRONG as error:
            raise RenderError(first_line(error)) from error
        messages = conversation.messages
        answers = [number for number, turn in enumerate(messages) if turn["role"] == ASSISTANT]
        apart = len(spans) == len(answers)
        all_learnt = all(conversation.learnt[number] for number in answers)
        if not spans or not (all_learnt or apart):
            return None
        marked = [text[begin:end] for begin, end in spans]
        said = marked if apart else ["".join(marked)] * len(answers)
        if not all(_says(messages[number]["content"], one) for number, one in zip(answers, said, strict=True)):
            return None  # templates that mark within a macro do not tell the right places
        if apart:
            spans = [span for number, span in zip(answers, spans, strict=True) if conversation.learnt[number]]
        last = max(number for number, learnt in enumerate(conversation.learnt) if learnt)
        prompt = self._render(messages[:last], tools, answers=True) if last else ""
        if prompt and text.startswith(prompt):  # marks may hold the name of who speaks, which the prompt has already
            return Rendered(text, tuple(spans), len(prompt), BY_MARKS)
        begin = spans[-1][0] if apart else next((b for b, end in spans if end > _shared(prompt, text)), spans[-1][0])
        return Rendered(text, tuple(spans), begin, BY_MARKS)

    def _by_prefixes(self, conversation: Conversation, tools: list[dict[str, Any]] | None) -> Rendered:
        messages = conversation.messages
        text = self._render(messages, tools)
        added = [self._added(messages, number, tools) for number, learnt in enumerate(conversation.learnt) if learnt]
        spans = [span for one in added if (span := self._span(text, *one)) is not None]
        if len(spans) == len(added):
            return Rendered(text, tuple(spans), spans[-1][0], BY_PREFIXES)
        _, whole = added[-1]
        span = self._span(whole, *added[-1])
        if span is None:
            raise RenderError(
                "it writes what stands before an answer otherwise once the answer follows",
                "Take a model whose template does not",
            )
        return Rendered(whole, (span,), span[0], BY_LAST)  # without what follows, which the answer was written without

    def _added(
        self, messages: Sequence[Turn], number: int, tools: list[dict[str, Any]] | None
    ) -> tuple[int | None, str]:
        """Where in the conversation up to this answer, which comes second, it begins; None where the conversation before it does not stand
        before it."""
        prompt = self._render(messages[:number], tools, answers=True) if number else ""
        whole = self._render(messages[: number + 1], tools)
        if whole.startswith(prompt):
            return len(prompt), whole
        # A prompt may ask for reasoning first, and the answer have none: what they have in common is no part of it.
        before = self._render(messages[:number], tools).removesuffix(self._last)
        if not whole.startswith(before):
            return None, whole
        return max(len(before), _shared(prompt, whole)), whole

    def _span(self, text: str, begin: int | None, whole: str) -> Span | None:
        """An answer in the text of the conversation; None where that does not begin with the conversation up to it, `whole`."""
        if not text.startswith(whole):
            whole = whole.removesuffix(self._last)
        return (begin, self._end(whole)) if begin is not None and text.startswith(whole) else None

    def _written(self, tools: list[dict[str, Any]] | None) -> str:
        """The template, which has to be told the time where it writes it."""
        template: str = self._tokenizer.get_chat_template(None, tools)
        if self.now is None or "strftime_now" not in template:
            return template
        return CLOCK.format(said={f"%{sign}": self.now.strftime(f"%{sign}") for sign in DIRECTIVES}) + template

    @property
    def _last(self) -> str:
        """What some templates put behind the last message, whichever it is."""
        return str(self._tokenizer.eos_token or "")

    def _end(self, text: str) -> int:
        """The end of the text, without blanks behind a control token: whoever writes has stopped there."""
        names = self._tokenizer.get_added_vocab()
        short = text.rstrip()
        return len(short) if any(short.endswith(name) for name in names) else len(text)

    def _render(self, messages: Sequence[Turn], tools: list[dict[str, Any]] | None, *, answers: bool = False) -> str:
        try:
            text: str = self._tokenizer.apply_chat_template(
                list(messages),
                tools=tools,
                chat_template=self._written(tools),
                tokenize=False,
                add_generation_prompt=answers,
            )
        except _WRONG as error:
            raise RenderError(first_line(error)) from error
        return text


def _left_out(conversation: Conversation, found: Rendered) -> Iterator[str]:
    """What the template does not write of a conversation. Raises RenderError where that is an answer which is to be learnt."""
    taught = [turn for turn, learnt in zip(conversation.messages, conversation.learnt, strict=True) if learnt]
    spans = [found.text[begin:end] for begin, end in found.learnt]
    if found.found_by == BY_LAST:
        taught = taught[-1:]
    said = spans if len(spans) == len(taught) else ["".join(spans)] * len(taught)
    for turn, text in zip(taught, said, strict=True):
        if any(call["function"]["name"] not in text for call in turn.get("tool_calls", ())):
            raise RenderError(
                "it leaves out tool calls, so that the model would learn to say nothing instead",
                "Take a model whose template writes them, or data without them",
            )
        if not _says(turn["content"], text):
            raise RenderError(
                "it leaves out what the assistant says, so that the model would learn to say nothing",
                "Take a model whose template writes it",
            )
        if not _says(turn.get("reasoning_content", ""), text):
            yield "the reasoning"
        if not _begins(turn["content"], text):
            yield "the beginning of what the assistant says, such as reasoning,"
    for turn in conversation.messages:
        if turn["role"] in ("system", "user") and not _says(turn["content"], found.text):
            yield f"what the {turn['role']} says"
    if conversation.tools and not any(tool["function"]["name"] in found.text for tool in conversation.tools):
        yield "the tools"


def _pieces(content: str) -> list[str]:
    return [piece.strip() for piece in PIECES.split(content) if piece.strip()] or [content.strip()]


def _says(content: str, text: str) -> bool:
    """Whether a text has the end of a message; before it something may be left out, or be written otherwise."""
    return _pieces(content)[-1][-SEEN:] in text


def _begins(content: str, text: str) -> bool:
    """Whether it has the beginning."""
    return _pieces(content)[0][:SEEN] in text


def _shared(one: str, other: str) -> int:
    """How many characters they begin with that are the same."""
    pairs = zip(one, other, strict=False)
    return next((place for place, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))


def _with_json(conversation: Conversation) -> Conversation:
    """The conversation with the arguments of calls as texts."""

    def call(of: dict[str, Any]) -> dict[str, Any]:
        function = of["function"]
        arguments = json.dumps(function["arguments"], ensure_ascii=False)
        return {**of, "function": {**function, "arguments": arguments}}

    messages = [
        {**turn, "tool_calls": list(map(call, turn["tool_calls"]))} if "tool_calls" in turn else turn
        for turn in conversation.messages
    ]
    return replace(conversation, messages=tuple(messages))


_WRONG = (TemplateError, TypeError, ValueError, KeyError, AttributeError, IndexError)
"""What templates raise, on purpose and otherwise."""


def plain_template(tokenizer: PreTrainedTokenizerBase) -> str:
    """`PLAIN` for this tokenizer: with what it puts before any text, which nobody puts before what a template has written."""
    first = tokenizer("a")["input_ids"][:1]
    bos = tokenizer.bos_token if first and first[0] == tokenizer.bos_token_id else ""
    return f"{{%- set bos = {bos!r} -%}}\n{PLAIN}"


def end_of_answers(template: ChatTemplate) -> str:
    """What stands behind an answer of one letter, as the template writes it; empty where that cannot be told."""
    turns: list[Mapping[str, Any]] = [{"role": "user", "content": "a"}, {"role": ASSISTANT, "content": "b"}]
    try:
        found = template.rendered(Conversation(tuple(map(dict, turns)), (False, True)))
    except RenderError:
        return ""
    begin, end = found.learnt[-1]
    return found.text[begin:end].rpartition("b")[2].strip().replace(MARK, "")
