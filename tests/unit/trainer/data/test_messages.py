"""Conversations in all documented ways of writing them, each read to the same; and what is wrong with others, by file, row and column.

The rows are made after OpenAI's guide to fine-tuning, TRL's "Dataset formats and types" and LLaMA-Factory's data/README.md.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from finetune_api.failures import FailureReason, JobError
from finetune_api.tasks import TASKS
from finetune_trainer.data import Data
from finetune_trainer.data.conversations import Conversation, Plain, Row, rows
from tests.public_data import DATA, needs
from tests.unit.trainer.data.folders import load_forms, written
from tests.unit.trainer.data.talk import DEV, WEATHER, assistant, load_lines, user

FORMS = TASKS["text-generation"].forms


def called(text: str = "", **arguments: Any) -> dict[str, Any]:
    return assistant(text, tool_calls=[{"type": "function", "function": {"name": "weather", "arguments": arguments}}])


def load(folder: Path, *lines: Any) -> Data:
    return load_lines(folder, FORMS, *lines)


def read(data: Data, system_prompt: str | None = None) -> list[Row]:
    examples = data.train
    [block] = examples.blocks(*examples.roles)
    return list(rows(block, system_prompt))


ASKED = [user("Is it raining?"), assistant("Yes.")]
GOOD: dict[str, tuple[dict[str, Any], Row]] = {
    "OpenAI": ({"messages": ASKED}, Conversation((*ASKED,), (False, True))),
    "OpenAI, several turns of which one is not learnt": (
        {"messages": [user("a"), assistant("b", weight=0), user("c"), assistant("d", weight=1)]},
        Conversation((user("a"), assistant("b"), user("c"), assistant("d")), (False, False, False, True)),
    ),
    "OpenAI, developer and parts of text": (
        {
            "messages": [
                {"role": "developer", "content": "Be short."},
                {"role": "user", "content": [{"type": "text", "text": "Is it "}, {"type": "text", "text": "raining?"}]},
                assistant("Yes."),
            ]
        },
        Conversation(({"role": "system", "content": "Be short."}, *ASKED), (False, False, True)),
    ),
    "OpenAI, tools": (
        {
            "messages": [
                user("Is it raining in Oslo?"),
                {
                    "role": "assistant",
                    "tool_calls": [
                        {
                            "id": "call_1",
                            "type": "function",
                            "function": {"name": "weather", "arguments": '{"town": "Oslo"}'},
                        }
                    ],
                },
                {"role": "tool", "tool_call_id": "call_1", "content": "rain"},
                assistant("Yes."),
            ],
            "tools": [WEATHER],
            "parallel_tool_calls": False,
        },
        Conversation(
            (
                user("Is it raining in Oslo?"),
                assistant(
                    "",
                    tool_calls=[
                        {
                            "type": "function",
                            "id": "call_1",
                            "function": {"name": "weather", "arguments": {"town": "Oslo"}},
                        }
                    ],
                ),
                {"role": "tool", "content": "rain", "tool_call_id": "call_1"},
                assistant("Yes."),
            ),
            (False, True, False, True),
            (WEATHER,),
        ),
    ),
    "OpenAI, functions as they were called before": (
        {
            "messages": [
                user("Is it raining in Oslo?"),
                {
                    "role": "assistant",
                    "content": None,
                    "function_call": {"name": "weather", "arguments": '{"town": "Oslo"}'},
                },
                {"role": "function", "name": "weather", "content": "rain"},
                assistant("Yes."),
            ],
            "functions": [WEATHER["function"]],
        },
        Conversation(
            (
                user("Is it raining in Oslo?"),
                called(town="Oslo"),
                {"role": "tool", "content": "rain", "name": "weather"},
                assistant("Yes."),
            ),
            (False, True, False, True),
            (WEATHER,),
        ),
    ),
    "TRL, calls whose arguments are an object": (
        {"messages": [user("Rain?"), called(town="Oslo")], "tools": json.dumps([WEATHER])},
        Conversation((user("Rain?"), called(town="Oslo")), (False, True), (WEATHER,)),
    ),
    "ShareGPT": (
        {"conversations": [{"from": "human", "value": "Is it raining?"}, {"from": "gpt", "value": "Yes."}]},
        Conversation((*ASKED,), (False, True)),
    ),
    "ShareGPT, of which one answer is not learnt": (
        {
            "conversations": [
                {"from": "human", "value": "a"},
                {"from": "function_call", "value": '{"name": "weather", "arguments": {}}', "weight": 0},
                {"from": "observation", "value": "rain"},
                {"from": "gpt", "value": "b", "weight": 0},
                {"from": "human", "value": "c"},
                {"from": "gpt", "value": "d", "weight": 1},
            ]
        },
        Conversation(
            (user("a"), called(), {"role": "tool", "content": "rain"}, assistant("b"), user("c"), assistant("d")),
            (False, False, False, False, False, True),
        ),
    ),
    "ShareGPT with tools as LLaMA-Factory has them": (
        {
            "conversations": [
                {"from": "human", "value": "Rain?"},
                {"from": "function_call", "value": '{"name": "weather", "arguments": {"town": "Oslo"}}'},
                {"from": "observation", "value": '{"rain": true}'},
                {"from": "gpt", "value": "Yes."},
            ],
            "system": "Be short.",
            "tools": json.dumps([WEATHER["function"]]),
        },
        Conversation(
            (
                {"role": "system", "content": "Be short."},
                user("Rain?"),
                called(town="Oslo"),
                {"role": "tool", "content": '{"rain": true}'},
                assistant("Yes."),
            ),
            (False, False, True, False, True),
            (WEATHER,),
        ),
    ),
    "LLaMA-Factory's parts": (
        {
            "messages": [
                {"role": "user", "content": [{"type": "text", "value": "Rain?"}]},
                {
                    "role": "assistant",
                    "content": [
                        {"type": "reasoning", "value": "Let me see."},
                        {"type": "tool_call", "value": '{"name": "weather", "arguments": {"town": "Oslo"}}'},
                    ],
                },
            ]
        },
        Conversation(
            (user("Rain?"), called(town="Oslo") | {"reasoning_content": "Let me see.", "thinking": "Let me see."}),
            (False, True),
        ),
    ),
    "reasoning": (
        {"messages": [user("Rain?"), assistant("Yes.", reasoning_content="I see clouds.")]},
        Conversation(
            (user("Rain?"), assistant("Yes.", reasoning_content="I see clouds.", thinking="I see clouds.")),
            (False, True),
        ),
    ),
    "Alpaca": (
        {"instruction": "Is it raining?", "input": "", "output": "Yes."},
        Conversation((*ASKED,), (False, True)),
    ),
    "Alpaca with all that LLaMA-Factory has": (
        {
            "instruction": "Translate.",
            "input": "Oslo",
            "output": "Kristiania",
            "system": "Be short.",
            "history": [["Is it raining?", "Yes."]],
        },
        Conversation(
            ({"role": "system", "content": "Be short."}, *ASKED, user("Translate.\nOslo"), assistant("Kristiania")),
            (False, False, True, False, True),
        ),
    ),
    "a prompt and its completion": ({"prompt": "The sky is", "completion": " blue."}, Plain("The sky is", " blue.")),
    "a prompt and its completion as messages": (
        {"prompt": [user("a"), assistant("b"), user("c")], "completion": [assistant("d")]},
        Conversation((user("a"), assistant("b"), user("c"), assistant("d")), (False, False, False, True)),
    ),
    "a prompt and its completion as messages that are JSON in a text": (
        {"prompt": json.dumps([user("a")]), "completion": json.dumps([assistant("d")])},
        Conversation((user("a"), assistant("d")), (False, True)),
    ),
    "a message to complete, with a system message of its own": (
        {"prompt": json.dumps(ASKED[0]), "completion": ASKED[1], "system": "Be short."},
        Conversation(({"role": "system", "content": "Be short."}, *ASKED), (False, False, True)),
    ),
    "JSON that is no message": (
        {
            "prompt": '[{"role": "king"}, {"from": "Oslo", "to": "Bergen"}]',
            "completion": '{"from": "Oslo", "value": 3}',
        },
        Plain('[{"role": "king"}, {"from": "Oslo", "to": "Bergen"}]', '{"from": "Oslo", "value": 3}'),
    ),
    "a conversation as JSON that completes a text": (
        {"prompt": "Write a chat.", "completion": json.dumps(ASKED)},
        Plain("Write a chat.", json.dumps(ASKED)),
    ),
    "a message as JSON that completes a text": (
        {"prompt": "Extract:", "completion": '{"from": "user", "value": "3 EUR"}'},
        Plain("Extract:", '{"from": "user", "value": "3 EUR"}'),
    ),
    "a text that completes a conversation as JSON": (
        {"prompt": json.dumps(ASKED), "completion": "They speak of rain."},
        Plain(json.dumps(ASKED), "They speak of rain."),
    ),
    "a conversation as JSON that completes another": (
        {"prompt": json.dumps([user("Regnet es?")]), "completion": json.dumps(ASKED)},
        Plain(json.dumps([user("Regnet es?")]), json.dumps(ASKED)),
    ),
    "ShareGPT as JSON in a prompt and its completion": (
        {
            "prompt": json.dumps([{"from": "human", "value": "Is it raining?"}]),
            "completion": json.dumps({"from": "gpt", "value": "Yes."}),
        },
        Conversation((*ASKED,), (False, True)),
    ),
    "messages, and their completion as JSON": (
        {"prompt": ASKED[:1], "completion": json.dumps(ASKED[1:])},
        Conversation((*ASKED,), (False, True)),
    ),
    "ShareGPT, calls as LLaMA-Factory's documentation has them": (
        {
            "conversations": [
                {"from": "human", "value": "Rain?"},
                {"from": "function", "value": '{"name": "weather", "arguments": {"town": "Oslo"}}'},
                {"from": "observation", "value": "rain"},
                {"from": "gpt", "value": "Yes."},
            ],
            "functions": [],
        },
        Conversation(
            (user("Rain?"), called(town="Oslo"), {"role": "tool", "content": "rain"}, assistant("Yes.")),
            (False, True, False, True),
        ),
    ),
    "a history with turns in which nobody says anything": (
        {"instruction": "a", "output": "b", "history": [["", " "], ["Is it raining?", "Yes."], [None, None]]},
        Conversation((*ASKED, user("a"), assistant("b")), (False, True, False, True)),
    ),
    "a text": ({"text": "The sky is blue."}, Plain("", "The sky is blue.")),
}


@pytest.mark.parametrize("line", GOOD)
def test_a_row_as_it_is_documented_is_read(line: str, tmp_path: Path) -> None:
    given, wanted = GOOD[line]
    assert read(load(tmp_path, given)) == [wanted]


def test_columns_of_which_some_rows_have_nothing_are_read_where_they_have_something(tmp_path: Path) -> None:
    rain = {"from": "human", "value": "Rain?"}, {"from": "gpt", "value": "Yes."}
    found = read(
        load(
            tmp_path,
            {"conversations": rain, "system": "", "tools": "[]"},
            {"conversations": [{"from": "system", "value": "Be kind."}, *rain], "system": "Be short."},
            {"conversations": rain, "tools": [WEATHER]},
        ),
        "Be brief.",
    )
    systems = [row.messages[0] for row in found if isinstance(row, Conversation)]
    assert [system["content"] for system in systems] == ["Be brief.", "Be kind.", "Be brief."]
    assert [row.tools for row in found if isinstance(row, Conversation)] == [None, None, (WEATHER,)]


def test_a_split_may_lack_a_column_that_need_not_be_there(tmp_path: Path) -> None:
    with_tools = {"messages": ASKED, "tools": [WEATHER]}
    written(
        tmp_path, {"train.jsonl": f"{json.dumps(with_tools)}\n", "dev.jsonl": f"{json.dumps({'messages': ASKED})}\n"}
    )
    data = load_forms(tmp_path, *FORMS, **DEV)
    assert data.validation.roles == ("messages", "tools")
    assert list(data.validation.values("tools")) == [None]


def test_parquet_has_objects_of_which_each_has_all_fields(tmp_path: Path) -> None:
    lines = [GOOD["OpenAI, tools"][0], GOOD["OpenAI"][0]]
    table = pa.Table.from_pylist([{"messages": line["messages"], "tools": line.get("tools")} for line in lines])
    pq.write_table(table, tmp_path / "train.parquet")
    pq.write_table(table, tmp_path / "dev.parquet")
    data = load_forms(tmp_path, *FORMS, splits={"validation": "dev.parquet"})
    wanted = GOOD["OpenAI, tools"][1]
    assert isinstance(wanted, Conversation)
    [first, second] = read(data)
    assert isinstance(first, Conversation) and first.messages == wanted.messages
    assert second == GOOD["OpenAI"][1]


def test_messages_may_be_json_in_a_text(tmp_path: Path) -> None:
    assert read(load(tmp_path, {"messages": json.dumps(ASKED)})) == [GOOD["OpenAI"][1]]


BAD: dict[str, tuple[dict[str, Any], str, str]] = {
    "a text": ({"messages": "Hello."}, 'are no list of messages in 1 of 2 training rows, such as "Hello."', "role"),
    "a list as Python prints it": (
        {"messages": str(ASKED)},
        "are no list of messages in 1 of 2 training rows, such as \"\\[{'role'",
        "JSON, which has double quotes",
    ),
    "nothing": ({"messages": []}, "the messages are none", "Remove"),
    "a message that is a text": (
        {"messages": ["Hello."]},
        'hold what is no message .* "Hello." in message 1',
        "object",
    ),
    "no role": ({"messages": [{"content": "Hello."}]}, "hold what is no message", "role and content"),
    "a role that is none": (
        {"messages": [{"role": "robot", "content": "a"}]},
        'a role that is none .* "robot" in message 1',
        "assistant",
    ),
    "a speaker that is none": (
        {"messages": [{"from": "bing", "value": "a"}]},
        'a role that is none .* "bing" in message 1',
        "human",
    ),
    "an image": (
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "…"}}]}, assistant("a")]},
        "a content that is no text .* in message 1",
        "images and sounds are not read",
    ),
    "a number": (
        {"messages": [user("a"), assistant(3)]},
        "a content that is no text .* 3 in message 2",
        "Write a text",
    ),  # type: ignore[arg-type]
    "an empty question": (
        {"messages": [user(" "), assistant("a")]},
        "a message that says nothing",
        "remove these rows",
    ),
    "an empty answer": ({"messages": [user("a"), assistant("")]}, "says nothing .* in message 2", "tool_calls"),
    "no answer": ({"messages": [user("a")]}, "the messages have no answer", "assistant"),
    "no answer that is learnt": (
        {"messages": [user("a"), assistant("b", weight=0)]},
        "have no answer that is learnt",
        "weight of 1",
    ),
    "a weight that is none": (
        {"messages": [user("a"), assistant("b", weight=0.5)]},
        "a weight that is neither 0 nor 1 .* 0.5 in message 2",
        "weight of 0",
    ),
    "a weight of ShareGPT that is none": (
        {"messages": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b", "weight": "0"}]},
        'a weight that is neither 0 nor 1 .* "0" in message 2',
        "weight of 0",
    ),
    "arguments that are no JSON": (
        {"messages": [user("a"), assistant("", function_call={"name": "f", "arguments": "{town"})]},
        "a tool call that is none .* in message 2",
        "arguments are an object",
    ),
    "a call without a name": (
        {"messages": [user("a"), assistant("", tool_calls=[{}])]},
        "a tool call that is none",
        "name",
    ),
    "calls of the user": (
        {"messages": [user("a") | {"tool_calls": [{"function": {"name": "f", "arguments": "{}"}}]}, assistant("b")]},
        "a tool call that is none .* in message 1",
        "function",
    ),
    "a function call of ShareGPT that is a text": (
        {"messages": [{"from": "human", "value": "a"}, {"from": "function_call", "value": "f()"}]},
        'a tool call that is none .* "f\\(\\)" in message 2',
        "function",
    ),
    "tools that are none": (
        {"messages": ASKED, "tools": "weather"},
        'the tools are no list of functions .* "weather"',
        "name",
    ),
    "a tool without a name": ({"messages": ASKED, "tools": [{"type": "function"}]}, "no list of functions", "name"),
    "a prompt that is a number": (
        {"prompt": 3, "completion": "a"},
        "the prompts are neither a text nor",
        "Write a text",
    ),
    "an empty completion": (
        {"prompt": "a", "completion": " "},
        "the completions have a message that says nothing",
        "text",
    ),
    "a completion by the user": (
        {"prompt": [user("a")], "completion": [user("b")]},
        "the completions have no answer",
        "assis",
    ),
    "a text completed by messages": (
        {"prompt": "a", "completion": [assistant("b")]},
        "of prompt and completion one is a text and the other has messages",
        "Write both",
    ),
    "a completion that is JSON of another role": (
        {"prompt": [user("a")], "completion": json.dumps([user("b")])},
        "of prompt and completion one is a text and the other has messages",
        "Write both",
    ),
    "a completion that is JSON and says nothing": (
        {"prompt": json.dumps([user("a")]), "completion": json.dumps([assistant(" ")])},
        "the prompts or completions have a message that says nothing .* in message 1",
        "tool_calls",
    ),
    "a function's answer that may be a call": (
        {"messages": [{"from": "human", "value": "a"}, {"from": "function", "value": "rain"}]},
        'a role that is none .* "function" in message 2',
        "observation, function_call",
    ),
    "a history in which one says nothing": (
        {"instruction": "a", "output": "b", "history": [["Hi.", ""]]},
        "a message that says nothing .* in message 2",
        "remove",
    ),
    "a history that is none": (
        {"instruction": "a", "output": "b", "history": ["a"]},
        "hold what is no message",
        "object",
    ),
    "an answer that is missing": ({"instruction": "a", "output": ""}, "the text is empty", "give them a text"),
}


@pytest.mark.parametrize("line", BAD)
def test_a_bad_row_is_named_with_what_is_allowed(line: str, tmp_path: Path) -> None:
    given, says, remedy = BAD[line]
    like = next(good for good, _ in GOOD.values() if next(iter(good)) == next(iter(given)))
    with pytest.raises(JobError, match=says) as caught:
        load(tmp_path, like, given)
    assert caught.value.reason == FailureReason.DATA_INVALID
    column = next(
        (name for name in ("tools", "completion", "history", "output") if name in given and name in str(caught.value)),
        None,
    )
    assert f'train.jsonl, line 2, column "{column or next(iter(given))}"' in str(caught.value)
    assert remedy in (caught.value.remedy or "")


def test_fields_of_messages_that_are_not_read_are_named(tmp_path: Path) -> None:
    """Whoever wrote them may believe that they say what is not to be learnt."""
    given = [user("a") | {"id": 1}, assistant("b", train=False, refusal=None, annotations=[])]
    [one] = load(tmp_path / "one", {"messages": ASKED}, {"messages": given}).warnings[:1]
    assert one.startswith(
        'Of the messages in 1 of 2 training rows "id", "train" are not read; what is not to be learnt has a weight of 0'
    )
    assert not [said for said in load(tmp_path / "none", GOOD["OpenAI, tools"][0]).warnings if "not read" in said]


TWICE: dict[str, tuple[dict[str, Any], str]] = {
    "ShareGPT's names beside OpenAI's": ({"from": "gpt", "value": "No."}, '"from", "value" are'),
    "a text of ShareGPT beside a content": ({"value": "No."}, '"value" is'),
}


@pytest.mark.parametrize("case", TWICE)
def test_a_message_that_is_written_in_both_ways_is_read_in_one_and_the_other_is_named(
    case: str, tmp_path: Path
) -> None:
    more, says = TWICE[case]
    data = load(tmp_path, {"messages": [user("Is it raining?"), assistant("Yes.", **more)]})
    assert read(data) == [Conversation((*ASKED,), (False, True))]
    assert [says in warning for warning in data.warnings if "not read" in warning] == [True, True]  # of both splits


@pytest.mark.parametrize("name", ["content", "reasoning_content", "tool_calls"])
def test_what_openai_has_in_messages_is_named_where_sharegpt_s_names_are_read(name: str, tmp_path: Path) -> None:
    lines = [{"from": "human", "value": "Is it raining?"}, {"from": "gpt", "value": "Yes.", name: "It rains."}]
    data = load(tmp_path, {"conversations": lines})
    assert read(data) == [Conversation((*ASKED,), (False, True))]
    assert [f'"{name}" is not read' in one for one in data.warnings if "not read" in one] == [True, True]


RULE = {"role": "system", "content": "Be kind."}
SYSTEMS: dict[str, dict[str, Any]] = {
    "messages": {"messages": [RULE, *ASKED]},
    "a history": {"instruction": "a", "output": "b", "history": [RULE, *ASKED]},
    "a prompt": {"prompt": [RULE, ASKED[0]], "completion": [ASKED[1]]},
    "a prompt as JSON": {"prompt": json.dumps([RULE, ASKED[0]]), "completion": json.dumps([ASKED[1]])},
    "a prompt of a pair": {"prompt": [RULE, ASKED[0]], "chosen": [ASKED[1]], "rejected": [assistant("No.")]},
    "messages before a pair": {"messages": [RULE, ASKED[0]], "chosen": [ASKED[1]], "rejected": [assistant("No.")]},
    "a pair": {"chosen": [RULE, *ASKED], "rejected": [RULE, ASKED[0], assistant("No.")]},
}


@pytest.mark.parametrize("way", SYSTEMS)
def test_a_system_message_that_is_not_read_as_there_is_another_is_said(way: str, tmp_path: Path) -> None:
    row = SYSTEMS[way]
    forms = [form for form in FORMS if form.has("chosen") is ("chosen" in row)]
    data = load_lines(tmp_path, forms, {**row, "system": "Be short."}, {**row, "system": " Be kind.\n"}, row)
    [warning] = [one for one in data.warnings if "not read" in one]
    assert warning == (
        "In 1 of 3 training rows the conversation has a system message of its own, and what system says is not read: train.jsonl, line 1."
    )


@pytest.mark.parametrize("nothing", ["nan", "None", "N/A", "NULL "])
@pytest.mark.parametrize("column", ["input", "system"])
def test_what_programs_write_for_nothing_is_said_of_texts_that_may_be_left_out_too(
    column: str, nothing: str, tmp_path: Path
) -> None:
    row = {"instruction": "a", "output": "b"}
    data = load(tmp_path, row, {**row, column: nothing}, {**row, column: "nan is no number"}, {**row, column: None})
    [warning] = [one for one in data.warnings if "no value" in one]
    assert warning.startswith(f'1 training rows have a text such as "{nothing}"')
    assert warning.endswith("train.jsonl, line 2.")


def test_a_number_for_nothing_is_nothing_in_a_text_that_may_be_left_out(tmp_path: Path) -> None:
    row = {"instruction": "a", "input": "c", "output": "b"}
    data = load(tmp_path, row, {**row, "input": float("nan")})
    assert list(data.train.values("input")) == ["c", None]
    with pytest.raises(JobError, match="the text is empty in 1 of 2 training rows") as caught:
        load(tmp_path, row, {**row, "output": float("nan")})
    assert "give them a text" in (caught.value.remedy or "")


def test_data_without_any_of_the_columns_is_told_of_the_plainest_form(tmp_path: Path) -> None:
    with pytest.raises(JobError, match='has no column "messages"') as caught:
        load(tmp_path, {"dialogue": "a"})
    assert caught.value.reason == FailureReason.COLUMN_MISSING


def test_the_same_conversation_in_another_way_of_writing_is_a_row_that_is_trained_on(tmp_path: Path) -> None:
    lines = {"train.jsonl": GOOD["OpenAI"][0], "dev.jsonl": {"messages": GOOD["ShareGPT"][0]["conversations"]}}
    written(tmp_path, {name: f"{json.dumps(line)}\n" for name, line in lines.items()})
    assert "have the conversation of a training row" in load_forms(tmp_path, *FORMS, **DEV).warnings[0]


HELLO = [{"role": "system", "content": "Be short."}, user("Hello.")]
SAME_PROMPTS: dict[str, Any] = {
    "as messages": HELLO,
    "as JSON in a text": json.dumps(HELLO),
    "as JSON over several lines": json.dumps(HELLO, indent=1),
    "as ShareGPT": [{"from": "system", "value": "Be short."}, {"from": "human", "value": "Hello."}],
    "as ShareGPT in a text": json.dumps(
        [{"from": "system", "value": "Be short."}, {"from": "human", "value": "Hello."}]
    ),
}


@pytest.mark.parametrize("dev", SAME_PROMPTS)
@pytest.mark.parametrize("train", SAME_PROMPTS)
@pytest.mark.parametrize("rest", [("completion",), ("chosen", "rejected")], ids=" and ".join)
def test_the_same_prompt_in_another_way_of_writing_is_that_of_a_row_that_is_trained_on(
    rest: tuple[str, ...], train: str, dev: str, tmp_path: Path
) -> None:
    said = {role: [assistant(f"It is {role}.")] for role in rest}
    lines = {"train.jsonl": {"prompt": SAME_PROMPTS[train], **said}, "dev.jsonl": {"prompt": SAME_PROMPTS[dev], **said}}
    written(tmp_path, {name: f"{json.dumps(line)}\n" for name, line in lines.items()})
    assert "have the prompt of a training row" in load_forms(tmp_path, *FORMS, **DEV).warnings[0]


def test_json_that_is_no_conversation_is_a_prompt_as_it_is_written(tmp_path: Path) -> None:
    for number, (train, dev) in enumerate((('{"a": 1}', '{"a":1}'), (json.dumps(HELLO), json.dumps(HELLO[1:])))):
        lines = {"train.jsonl": {"prompt": train, "completion": " b"}, "dev.jsonl": {"prompt": dev, "completion": " b"}}
        folder = written(tmp_path / str(number), {name: f"{json.dumps(line)}\n" for name, line in lines.items()})
        assert not [one for one in load_forms(folder, *FORMS, **DEV).warnings if "of a training row" in one]


@needs("toolcall")
def test_tool_calls_as_llama_factory_ships_them_are_read(tmp_path: Path) -> None:
    [shared] = [json.loads((DATA / "toolcall/glaive_toolcall_en_demo.json").read_text())]
    found = read(load(tmp_path, *shared))
    assert len(found) == 300
    calls = [
        turn["tool_calls"][0]["function"]
        for row in found
        if isinstance(row, Conversation)
        for turn in row.messages
        if "tool_calls" in turn
    ]
    assert len(calls) > 100 and all(isinstance(call["arguments"], dict) for call in calls)
    reasoned = [json.loads(line) for line in (DATA / "toolcall/reason_tool_use_demo_50.jsonl").read_text().splitlines()]
    assert len(read(load(tmp_path, *reasoned))) == 50
