"""Pairs of answers in all documented ways of writing them, each read to the same; and what is wrong with others.

The rows are made after TRL's "Dataset formats and types", LLaMA-Factory's data/README.md and OpenAI's guide to preference fine-tuning.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from finetune_api.failures import FailureReason, JobError
from finetune_api.tasks import TASKS
from finetune_trainer.data import Data
from finetune_trainer.data.conversations import Conversation, Plain, Row
from finetune_trainer.data.preferences import pairs
from tests.public_data import DATA, needs
from tests.unit.trainer.data.folders import load_forms, written
from tests.unit.trainer.data.talk import WEATHER, assistant, load_lines, user

FORMS = [form for form in TASKS["text-generation"].forms if form.has("chosen")]


def load(folder: Path, *lines: Any) -> Data:
    return load_lines(folder, FORMS, *lines)


def read(data: Data, system_prompt: str | None = None) -> list[tuple[Row, Row]]:
    [block] = data.train.blocks(*data.train.roles)
    return list(pairs(block, system_prompt))


def talks(
    *asked: dict[str, Any], chosen: str = "Blue.", rejected: str = "Green.", tools: Any = None
) -> tuple[Row, Row]:
    """Both conversations, in which the last message alone is learnt."""
    learnt = (*(False for _ in asked), True)
    one, other = (Conversation((*asked, assistant(said)), learnt, tools) for said in (chosen, rejected))
    return one, other


ASKED = user("What colour is the sky?")
BLUE, GREEN = assistant("Blue."), assistant("Green.")
EARLIER = user("Hi"), assistant("Hello.")
SYSTEM = {"role": "system", "content": "Be short."}
TEXTS = Plain("The sky is", " blue."), Plain("The sky is", " green.")
DIALOGUES = (
    Plain("\n\nHuman: Colour?\n\nAssistant:", " Blue."),
    Plain("\n\nHuman: Colour?\n\nAssistant:", " Green."),
)
GOOD: dict[str, tuple[dict[str, Any], tuple[Row, Row]]] = {
    "TRL, texts": ({"prompt": "The sky is", "chosen": " blue.", "rejected": " green."}, TEXTS),
    "TRL, texts, the prompt implicit": ({"chosen": "The sky is blue.", "rejected": "The sky is green."}, TEXTS),
    "TRL, messages": ({"prompt": [ASKED], "chosen": [BLUE], "rejected": [GREEN]}, talks(ASKED)),
    "TRL, messages, the prompt implicit": ({"chosen": [ASKED, BLUE], "rejected": [ASKED, GREEN]}, talks(ASKED)),
    "TRL, messages and tools": (
        {"prompt": [ASKED], "chosen": [BLUE], "rejected": [GREEN], "tools": json.dumps([WEATHER])},
        talks(ASKED, tools=(WEATHER,)),
    ),
    "several turns, of which the last differs": (
        {"chosen": [SYSTEM, *EARLIER, ASKED, BLUE], "rejected": [SYSTEM, *EARLIER, ASKED, GREEN]},
        talks(SYSTEM, *EARLIER, ASKED),
    ),
    "the prompt, and once more in both conversations": (
        {"prompt": [ASKED], "chosen": [ASKED, BLUE], "rejected": [ASKED, GREEN]},
        talks(ASKED),
    ),
    "the prompt as a text beside whole conversations, as in UltraFeedback": (
        {"prompt": ASKED["content"], "chosen": [ASKED, BLUE], "rejected": [ASKED, GREEN]},
        talks(ASKED),
    ),
    "texts that are dialogues, as in HH-RLHF": (
        {"chosen": "\n\nHuman: Colour?\n\nAssistant: Blue.", "rejected": "\n\nHuman: Colour?\n\nAssistant: Green."},
        DIALOGUES,
    ),
    "answers that begin with the same letters": (
        {"chosen": "It is blue.", "rejected": "It is black."},
        (Plain("It is", " blue."), Plain("It is", " black.")),
    ),
    "a question and texts, as in Orca's pairs": (
        {"system": "Be short.", "question": ASKED["content"], "chosen": "Blue.", "rejected": "Green."},
        talks(SYSTEM, ASKED),
    ),
    "a question, and once more in both conversations": (
        {"question": ASKED["content"], "chosen": [ASKED, BLUE], "rejected": [ASKED, GREEN]},
        talks(ASKED),
    ),
    "a question beside conversations with a system message": (
        {"question": ASKED["content"], "chosen": [SYSTEM, ASKED, BLUE], "rejected": [SYSTEM, ASKED, GREEN]},
        talks(SYSTEM, ASKED),
    ),
    "a question that is the first of several": (
        {"question": EARLIER[0]["content"], "chosen": [*EARLIER, ASKED, BLUE], "rejected": [*EARLIER, ASKED, GREEN]},
        talks(*EARLIER, ASKED),
    ),
    "a question that is the last of several": (
        {"question": ASKED["content"], "chosen": [*EARLIER, ASKED, BLUE], "rejected": [*EARLIER, ASKED, GREEN]},
        talks(*EARLIER, ASKED),
    ),
    "a question that is a number beside conversations": (
        {"question": 17, "chosen": [ASKED, BLUE], "rejected": [ASKED, GREEN]},
        talks(ASKED),
    ),
    "a question that is a number beside texts": (
        {"question": 17, "chosen": "The sky is blue.", "rejected": "The sky is green."},
        TEXTS,
    ),
    "a question that is empty beside texts": (
        {"question": "", "chosen": "The sky is blue.", "rejected": "The sky is green."},
        TEXTS,
    ),
    "a question that both texts begin with": (
        {"question": "The sky is", "chosen": "The sky is blue.", "rejected": "The sky is green."},
        TEXTS,
    ),
    "a question that is part of a word of what both texts begin with": (
        {"question": "sky is", "chosen": "The skysky is blue.", "rejected": "The skysky is green."},
        talks(user("sky is"), chosen="The skysky is blue.", rejected="The skysky is green."),
    ),
    "a question beside dialogues, as in HH-RLHF": (
        {
            "question": "Colour?",
            "chosen": "\n\nHuman: Colour?\n\nAssistant: Blue.",
            "rejected": "\n\nHuman: Colour?\n\nAssistant: Green.",
        },
        DIALOGUES,
    ),
    "messages beside dialogues": (
        {
            "messages": [SYSTEM, user("Colour?")],
            "chosen": "\n\nHuman: Colour?\n\nAssistant: Blue.",
            "rejected": "\n\nHuman: Colour?\n\nAssistant: Green.",
        },
        DIALOGUES,
    ),
    "messages with a system message and the answer that is chosen, beside conversations without that": (
        {"messages": [SYSTEM, ASKED, BLUE], "chosen": [ASKED, BLUE], "rejected": [ASKED, GREEN]},
        talks(ASKED),
    ),
    "messages with the answer that is rejected": (
        {"messages": [ASKED, GREEN], "chosen": [ASKED, BLUE], "rejected": [ASKED, GREEN]},
        talks(ASKED),
    ),
    "messages with the answer that is rejected, beside texts": (
        {"messages": [ASKED, GREEN], "chosen": "Blue.", "rejected": "Green."},
        talks(ASKED),
    ),
    "a prompt with the answer that is rejected": (
        {"prompt": [ASKED, GREEN], "chosen": [BLUE], "rejected": [GREEN]},
        talks(ASKED),
    ),
    "messages that are none": (
        {"messages": [], "chosen": [ASKED, BLUE], "rejected": [ASKED, GREEN]},
        talks(ASKED),
    ),
    "messages that are null": (
        {"messages": None, "chosen": [ASKED, BLUE], "rejected": [ASKED, GREEN]},
        talks(ASKED),
    ),
    "messages that are wrong beside conversations": (
        {"messages": [{"role": "robot", "content": "a"}], "chosen": [ASKED, BLUE], "rejected": [ASKED, GREEN]},
        talks(ASKED),
    ),
    "messages and texts": (
        {"messages": [*EARLIER, ASKED], "chosen": "Blue.", "rejected": "Green."},
        talks(*EARLIER, ASKED),
    ),
    "messages, and answers to them": (
        {"messages": [ASKED], "chosen": [BLUE], "rejected": [GREEN]},
        talks(ASKED),
    ),
    "a prompt of messages, and texts": (
        {"prompt": [ASKED], "chosen": "Blue.", "rejected": "Green."},
        talks(ASKED),
    ),
    "messages with the answer that is chosen, as in UltraFeedback without its prompt": (
        {"messages": [ASKED, BLUE], "chosen": [ASKED, BLUE], "rejected": [ASKED, GREEN]},
        talks(ASKED),
    ),
    "a prompt beside a question": (
        {"prompt": "The sky is", "question": "Colour?", "chosen": " blue.", "rejected": " green."},
        TEXTS,
    ),
    "a text in the column that OpenAI has for messages, as in distilabel's pairs": (
        {"system": "Be short.", "input": ASKED["content"], "chosen": "Blue.", "rejected": "Green."},
        talks(SYSTEM, ASKED),
    ),
    "a text in the column that ShareGPT has for messages": (
        {"conversations": ASKED["content"], "chosen": "Blue.", "rejected": "Green."},
        talks(ASKED),
    ),
    "a text in the column of messages": (
        {"messages": ASKED["content"], "chosen": "Blue.", "rejected": "Green."},
        talks(ASKED),
    ),
    "an input beside dialogues": (
        {
            "input": "Colour?",
            "chosen": "\n\nHuman: Colour?\n\nAssistant: Blue.",
            "rejected": "\n\nHuman: Colour?\n\nAssistant: Green.",
        },
        DIALOGUES,
    ),
    "an input beside conversations with a system message": (
        {"input": ASKED["content"], "chosen": [SYSTEM, ASKED, BLUE], "rejected": [SYSTEM, ASKED, GREEN]},
        talks(SYSTEM, ASKED),
    ),
    "OpenAI": (
        {
            "input": {"messages": [ASKED], "tools": [], "parallel_tool_calls": True},
            "preferred_output": [BLUE],
            "non_preferred_output": [GREEN],
        },
        talks(ASKED),
    ),
    "OpenAI with tools": (
        {
            "input": {"messages": [ASKED], "tools": [WEATHER]},
            "preferred_output": [BLUE],
            "non_preferred_output": [GREEN],
        },
        talks(ASKED, tools=(WEATHER,)),
    ),
    "LLaMA-Factory, Alpaca": (
        {"instruction": "What colour is", "input": "the sky?", "chosen": "Blue.", "rejected": "Green."},
        talks(user("What colour is\nthe sky?")),
    ),
    "LLaMA-Factory, Alpaca with all that it has": (
        {
            "instruction": ASKED["content"],
            "input": "",
            "chosen": "Blue.",
            "rejected": "Green.",
            "system": "Be short.",
            "history": [["Hi", "Hello."]],
        },
        talks(SYSTEM, *EARLIER, ASKED),
    ),
    "LLaMA-Factory, ShareGPT": (
        {
            "conversations": [{"from": "human", "value": ASKED["content"]}],
            "chosen": {"from": "gpt", "value": "Blue."},
            "rejected": {"from": "gpt", "value": "Green."},
        },
        talks(ASKED),
    ),
    "LLaMA-Factory, OpenAI's messages with a system message of their own": (
        {"conversations": [ASKED], "chosen": BLUE, "rejected": GREEN, "system": "Be short."},
        talks(SYSTEM, ASKED),
    ),
    "messages that are JSON in a text": (
        {"prompt": json.dumps([ASKED]), "chosen": json.dumps([BLUE]), "rejected": json.dumps(GREEN)},
        talks(ASKED),
    ),
    "answers that are JSON": (
        {"prompt": "As JSON:", "chosen": '{"colour": "blue"}', "rejected": "[1]"},
        (Plain("As JSON:", '{"colour": "blue"}'), Plain("As JSON:", "[1]")),
    ),
}


@pytest.mark.parametrize("line", GOOD)
def test_a_row_as_it_is_documented_is_read(line: str, tmp_path: Path) -> None:
    given, wanted = GOOD[line]
    assert read(load(tmp_path, given)) == [wanted]


def test_only_what_is_answered_differently_is_learnt(tmp_path: Path) -> None:
    [(chosen, _)] = read(load(tmp_path, {"chosen": [*EARLIER, ASKED, BLUE], "rejected": [*EARLIER, ASKED, GREEN]}))
    assert isinstance(chosen, Conversation) and chosen.learnt == (False, False, False, True)


def test_a_system_prompt_stands_before_both(tmp_path: Path) -> None:
    data = load(tmp_path, {"chosen": [ASKED, BLUE], "rejected": [ASKED, GREEN]})
    assert read(data, "Be short.") == [talks(SYSTEM, ASKED)]


def test_parquet_has_objects_of_which_each_has_all_fields(tmp_path: Path) -> None:
    lines = [GOOD["OpenAI with tools"][0], GOOD["OpenAI"][0]]
    for name in ("train", "dev"):
        pq.write_table(pa.Table.from_pylist(lines), tmp_path / f"{name}.parquet")
    data = load_forms(tmp_path, *FORMS, splits={"validation": "dev.parquet"})
    assert read(data) == [GOOD["OpenAI with tools"][1], GOOD["OpenAI"][1]]


def test_rows_with_the_same_prompt_stay_together_where_validation_is_drawn(tmp_path: Path) -> None:
    lines = [{"prompt": f"Colour {number % 20}:", "chosen": f" {number}", "rejected": " none"} for number in range(100)]
    content = "".join(f"{json.dumps(line)}\n" for line in lines)
    data = load_forms(written(tmp_path, {"train.jsonl": content}), *FORMS)
    asked = [{one[0]["content"] for one in split.values("prompt")} for split in (data.train, data.validation)]
    assert asked[1] and not asked[0] & asked[1]


def test_answers_that_begin_with_the_same_answers_are_learnt_whole(tmp_path: Path) -> None:
    """They have no question of their own, so that of another column is theirs."""
    one, other = ([EARLIER[1], said] for said in (BLUE, GREEN))
    [(chosen, rejected)] = read(load(tmp_path, {"messages": [ASKED], "chosen": one, "rejected": other}))
    assert isinstance(chosen, Conversation) and isinstance(rejected, Conversation)
    assert chosen.messages == (ASKED, EARLIER[1], BLUE) and chosen.learnt == (False, True, True)


@pytest.mark.parametrize("nothing", ["", 17, None])
def test_rows_without_a_question_do_not_stay_together_where_validation_is_drawn(nothing: Any, tmp_path: Path) -> None:
    lines = [
        {"question": nothing, "chosen": f"Number {number} is {number}.", "rejected": f"Number {number} is none."}
        for number in range(40)
    ]
    content = "".join(f"{json.dumps(line)}\n" for line in lines)
    data = load_forms(written(tmp_path, {"train.jsonl": content}), *FORMS)
    assert (len(data.train), len(data.validation)) == (36, 4)


TOLD = {"question": "Colour?", "chosen": "Colour? It is blue.", "rejected": "Colour? It is green."}
UNTOLD = {"question": "Colour?", "chosen": "Blue.", "rejected": "Green."}
LEFT_OUT: dict[str, tuple[list[dict[str, Any]], bool, str]] = {
    "texts that begin with the question": ([TOLD, TOLD], True, '"question" is not read in 2 of 2 training rows'),
    "of two conversations one": (
        [
            {"messages": [ASKED], "chosen": [BLUE], "rejected": [GREEN]},
            {"messages": [ASKED], "chosen": [ASKED, BLUE], "rejected": [ASKED, GREEN]},
        ],
        False,
        '"messages" is not read in 1 of 2 training rows',
    ),
    "conversations": (
        [{"messages": [ASKED], "chosen": [ASKED, BLUE], "rejected": [ASKED, GREEN]}],
        True,
        '"messages" is not read in 1 of 1 training rows',
    ),
    "messages that are wrong": (
        [{"messages": [{"role": "robot", "content": "a"}], "chosen": [ASKED, BLUE], "rejected": [ASKED, GREEN]}],
        True,
        '"messages" is not read in 1 of 1 training rows',
    ),
    "a question that is empty": ([{**TOLD, "question": ""}], True, ""),
    "no row": ([UNTOLD, UNTOLD], False, ""),
    "a column that is a prompt and nothing else": (
        [{"prompt": "The sky is", "chosen": " blue.", "rejected": " green."}],
        False,
        "",
    ),
    "no column": ([{"chosen": "The sky is blue.", "rejected": "The sky is green."}], False, ""),
}


@pytest.mark.parametrize("case", LEFT_OUT)
def test_a_column_that_is_left_out_of_what_is_asked_is_said(case: str, tmp_path: Path) -> None:
    lines, in_all, says = LEFT_OUT[case]
    data = load(tmp_path, *lines)
    assert data.left_out == ({"prompt"} if in_all else set())
    said = [warning for warning in data.warnings if "not read" in warning]
    assert [says in warning for warning in said] == [True] * bool(says)


@pytest.mark.parametrize("columns", [("input", "question"), ("conversations", "messages"), ("messages", "question")])
def test_of_columns_that_may_be_what_is_asked_the_others_are_said(columns: tuple[str, str], tmp_path: Path) -> None:
    read_one, other = columns
    line = {"chosen": "Blue.", "rejected": "Green."}
    data = load(tmp_path, {**line, read_one: ASKED["content"], other: [user("Else?")]})
    assert read(data) == [talks(ASKED)]
    [warning] = [warning for warning in data.warnings if "not read" in warning]
    assert warning.startswith(f'The column "{other}" has something in 1 of 1 training rows')
    data = load(tmp_path / "own", {**line, "prompt": [ASKED], other: [user("Else?")]})
    assert read(data) == [talks(ASKED)]
    assert not [warning for warning in data.warnings if "not read" in warning], "a prompt is no guess"


@pytest.mark.parametrize(("column", "asked"), [("question", ASKED["content"]), ("messages", [ASKED])])
def test_what_is_said_of_a_column_that_is_left_out_has_it_read(column: str, asked: Any, tmp_path: Path) -> None:
    text = f"Well. {ASKED['content']} It is"
    line = {column: asked, "chosen": f"{text} blue.", "rejected": f"{text} green."}
    [warning] = [warning for warning in load(tmp_path, line).warnings if "not read" in warning]
    [role] = re.findall(r"name it in spec.dataset.columns.(\w+)", warning)
    content = json.dumps(line) + "\n"
    folder = written(tmp_path, {"train.jsonl": content, "dev.jsonl": content})
    forms = [form for form in FORMS if form.has(role)]
    data = load_forms(folder, *forms, columns={role: column}, splits={"validation": "dev.jsonl"})
    assert read(data) == [talks(ASKED, chosen=line["chosen"], rejected=line["rejected"])]
    assert not [warning for warning in data.warnings if "not read" in warning]


BAD: dict[str, tuple[dict[str, Any], str, str]] = {
    "no prompt": ({"chosen": [BLUE], "rejected": [GREEN]}, "the chosen answers have no message in common", "prompt"),
    "an answer that is a number": (
        {"prompt": "a", "chosen": 3, "rejected": "b"},
        'the answers are neither a text .* column "chosen"',
        "text",
    ),
    "an empty answer": (
        {"prompt": "a", "chosen": "b", "rejected": " "},
        'says nothing .* column "rejected"',
        "remove",
    ),
    "a text beside messages": (
        {"prompt": [ASKED], "chosen": "Blue.", "rejected": [GREEN]},
        "the rejected answers are texts where the rest of the row has messages",
        "all as",
    ),
    "texts with nothing in common": (
        {"chosen": "Blue.", "rejected": "Green."},
        "the chosen answers have no words in common .* in 1 of 2 training rows",
        "as instruction where",
    ),
    "a text that goes on with the other": (
        {"chosen": "Blue.", "rejected": "Blue. Or not."},
        "the chosen answers have no words in common",
        "as prompt where",
    ),
    "a question that is blank": (
        {"question": " ", "chosen": "Blue.", "rejected": "Green.", "system": ""},
        "the chosen answers have no words in common that they begin with, and no column says",
        "as instruction where",
    ),
    "a question that is an id": (
        {"question": 17, "chosen": "Blue.", "rejected": "Green.", "system": ""},
        "the chosen answers have no words in common that they begin with, and no column says",
        "as instruction where",
    ),
    "a question that both texts begin with beside one that a user says": (
        {**TOLD, "system": ""},
        'both answers hold what the column "question" says in 1 of 2 training rows',
        "name it in spec.dataset.columns.instruction. Else",
    ),
    "messages that are wrong and are needed": (
        {"messages": [user(" ")], "chosen": "It is blue.", "rejected": "It is green."},
        "the chosen answers are to what is neither a text nor messages as they should be",
        "spec.dataset.columns.prompt",
    ),
    "a prompt that the conversations have not": (
        {"prompt": "What colour is grass?", "chosen": [ASKED, BLUE], "rejected": [ASKED, GREEN]},
        "the chosen answers are texts where",
        "all as",
    ),
    "messages that begin with another prompt": (
        {"prompt": [user("Colour?")], "chosen": [ASKED, BLUE], "rejected": [GREEN]},
        "the chosen answers begin with other messages",
        "very messages",
    ),
    "an answer of the user": (
        {"chosen": [ASKED, BLUE], "rejected": [ASKED, user("Green?")]},
        "the rejected answers have no answer",
        "assistant",
    ),
    "tools that are none": (
        {"input": {"messages": [ASKED], "tools": "rain"}, "preferred_output": [BLUE], "non_preferred_output": [GREEN]},
        "have tools that are no list of functions",
        "name",
    ),
}


@pytest.mark.parametrize("line", BAD)
def test_a_bad_row_is_named_with_what_is_allowed(line: str, tmp_path: Path) -> None:
    given, says, remedy = BAD[line]
    columns = set(given)
    like = next(good for good, _ in GOOD.values() if set(good) == columns)
    with pytest.raises(JobError, match=says) as caught:
        load(tmp_path, like, given)
    assert caught.value.reason == FailureReason.DATA_INVALID
    assert "train.jsonl, line 2" in str(caught.value)
    assert (caught.value.field or "").startswith("spec.dataset.columns.")
    assert remedy in (caught.value.remedy or "")


ENDED: dict[str, tuple[dict[str, Any], bool]] = {
    "completions": ({"prompt": [ASKED, BLUE], "completion": [GREEN]}, True),
    "completions as JSON": ({"prompt": json.dumps([ASKED, BLUE]), "completion": json.dumps([GREEN])}, True),
    "completions of a question": ({"prompt": [BLUE, ASKED], "completion": [GREEN]}, False),
    "completions that begin with a user": ({"prompt": [ASKED, BLUE], "completion": [ASKED, GREEN]}, False),
    "completions of texts": ({"prompt": "a", "completion": " b"}, False),
    "pairs": ({"prompt": [ASKED, assistant("Grey.")], "chosen": [BLUE], "rejected": [GREEN]}, True),
    "pairs of ShareGPT": ({"conversations": [ASKED, assistant("Grey.")], "chosen": BLUE, "rejected": GREEN}, True),
    "pairs with the answer that is chosen": ({"prompt": [ASKED, BLUE], "chosen": [BLUE], "rejected": [GREEN]}, False),
    "pairs of whole conversations": (
        {"messages": [ASKED, BLUE], "chosen": [ASKED, BLUE], "rejected": [ASKED, GREEN]},
        False,
    ),
    "pairs of texts": ({"prompt": "a", "chosen": " b", "rejected": " c"}, False),
}


@pytest.mark.parametrize("way", ENDED)
def test_a_prompt_that_ends_with_an_answer_of_its_own_is_said(way: str, tmp_path: Path) -> None:
    line, said = ENDED[way]
    forms = [
        form
        for form in TASKS["text-generation"].forms
        if form.has("chosen") is ("chosen" in line) and not form.has("label")
    ]
    warnings = [
        one for one in load_lines(tmp_path, forms, line, line).warnings if "the assistant has the last word" in one
    ]
    assert [one.partition(",")[0] for one in warnings] == [
        "In 2 of 2 training rows the assistant has the last word of the prompt"
    ] * said


OPPOSED: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "texts": tuple(  # type: ignore[dict-item]
        {"prompt": "The sky is", "chosen": one, "rejected": other}
        for one, other in ((" blue.", " green."), (" green.", " blue."))
    ),
    "conversations": tuple(  # type: ignore[dict-item]
        {"chosen": [ASKED, one], "rejected": [ASKED, other]} for one, other in ((BLUE, GREEN), (GREEN, BLUE))
    ),
    "instructions": tuple(  # type: ignore[dict-item]
        {"instruction": "Colour?", "chosen": one, "rejected": other}
        for one, other in (("Blue.", "Green."), ("Green.", "Blue."))
    ),
}


@pytest.mark.parametrize("way", OPPOSED)
def test_pairs_that_are_preferred_both_ways_are_said(way: str, tmp_path: Path) -> None:
    one, other = OPPOSED[way]
    apart = {role: said for role, said in one.items() if role != "rejected"} | {"rejected": other["rejected"]}
    for number, (lines, said) in enumerate(
        (
            ((one, one), None),
            ((one, apart, {**one, "rejected": one["chosen"]}), None),
            ((one, one, other), "3 training rows have the answers of another row the other way round"),
        )
    ):
        warnings = [text for text in load(tmp_path / str(number), *lines).warnings if "other way round" in text]
        assert [text.partition(", preferring")[0] for text in warnings] == [said] * bool(said)


@pytest.mark.parametrize("objective", ["dpo", "kto", "sft"])
def test_texts_that_begin_with_their_prompt_are_said(objective: str, tmp_path: Path) -> None:
    roles = ("chosen", "rejected") if objective == "dpo" else ("completion",)
    more = {"label": True} if objective == "kto" else {}
    wanted = {*roles, *more}
    forms = [
        form
        for form in TASKS["text-generation"].forms
        if form.has("prompt") and set(form.required) - {"prompt"} == wanted
    ]

    def warned(name: str, *before: str) -> list[str]:
        lines = [
            {"prompt": f"{number} is ", **{role: f"{text}{number}{role}" for role in roles}, **more}
            for number, text in enumerate(before)
        ]
        warnings = load_lines(tmp_path / name, forms, *lines).warnings
        return [warning for warning in warnings if "with the prompt" in warning]

    [warning] = warned("again", "0 is ", "1 is", " ")
    begin = (
        "chosen and rejected begin with the prompt, which stands before them"
        if objective == "dpo"
        else "completion begins with the prompt"
    )
    assert warning.startswith(f"In 2 of 3 training rows {begin}")
    assert warning.endswith(": train.jsonl, line 1; train.jsonl, line 2.")
    assert not warned("some", "0 is ", " ", " "), "a few may begin with the same words"


@needs("preference")
def test_pairs_as_llama_factory_ships_them_are_read(tmp_path: Path) -> None:
    rows = json.loads((DATA / "preference/dpo_en_demo.json").read_text("utf-8"))
    found = read(load(tmp_path, *rows))
    assert len(found) == len(rows) == 300
    assert all(chosen != rejected for chosen, rejected in found)
    assert all(
        isinstance(row, Conversation) and row.learnt[-1] and not any(row.learnt[:-1]) for both in found for row in both
    )
