"""Columns beside those of a form that say something of its rows: refused where something else would be learnt than the data means, else said."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from finetune_api.failures import FailureReason, JobError
from finetune_api.tasks import TASKS, Form
from finetune_trainer.data import Data
from finetune_trainer.data.kinds.unread import unread
from tests.unit.trainer.data.folders import load_forms, written
from tests.unit.trainer.data.readers import READERS, Reader
from tests.unit.trainer.data.talk import WEATHER, assistant, load_lines, user

FORMS = TASKS["text-generation"].forms
ROWS: dict[str, dict[str, Any]] = {
    "messages": {"messages": [user("a"), assistant("b")]},
    "instruction": {"instruction": "a", "output": "b"},
    "prompt": {"prompt": "a", "completion": "b"},
    "text": {"text": "a"},
    "dpo of instructions": {"instruction": "a", "chosen": "b", "rejected": "c"},
    "dpo": {"prompt": "a", "chosen": "b", "rejected": "c"},
    "kto of messages": {"messages": [user("a"), assistant("b")], "label": True},
    "kto": {"prompt": "a", "completion": "b", "label": True},
}
CHATS = frozenset(ROWS) - {"text"}
SFT = frozenset({"messages", "instruction", "prompt"})
REFUSED: dict[str, tuple[str, Any, frozenset[str], str, str]] = {
    "a label that is false": ("label", False, SFT, "answers are marked as not liked", "objective to kto"),
    "LLaMA-Factory's label that is false": (
        "kto_tag",
        False,
        SFT,
        "answers are marked as not liked",
        "objective to kto",
    ),
    "LLaMA-Factory's label that is 0": ("kto_tag", 0, SFT, "answers are marked as not liked", "objective to kto"),
    "a false that CSV has": ("label", "False", SFT, "answers are marked as not liked", "objective to kto"),
    "an image": (
        "image",
        "a.png",
        CHATS,
        "images and sounds are not read",
        "name their columns in spec.dataset.columns",
    ),
    "images": (
        "images",
        ["a.png"],
        CHATS,
        "images and sounds are not read",
        "name their columns in spec.dataset.columns",
    ),
    "videos": (
        "videos",
        '["a.mp4"]',
        CHATS,
        "images and sounds are not read",
        "name their columns in spec.dataset.columns",
    ),
    "sounds": (
        "audios",
        ["a.wav"],
        CHATS,
        "images and sounds are not read",
        "name their columns in spec.dataset.columns",
    ),
    "what a template is told": (
        "chat_template_kwargs",
        {"enable_thinking": False},
        CHATS,
        "the chat template would be told",
        "chat_template.jinja",
    ),
}
SAID: dict[str, tuple[str, Any, frozenset[str]]] = {
    "tools": ("tools", [WEATHER], frozenset({"instruction", "dpo of instructions"})),
    "earlier turns": ("history", [["a", "b"]], CHATS - {"instruction", "dpo of instructions"}),
    "an input": ("input", "a", CHATS - {"instruction", "dpo of instructions"}),
    "a weight": ("weight", 0, frozenset(ROWS)),
    "a context, as Dolly has it": ("context", "a", CHATS),
    "a system message, as OpenOrca has it": ("system_prompt", "a", CHATS),
    "an answer to a text": ("output", "a", frozenset({"text"})),
    "a completion of a text": ("completion", "a", frozenset({"text"})),
    "a prompt before a text": ("prompt", "a", frozenset({"text"})),
    "an instruction beside a text": ("instruction", "a", frozenset({"text"})),
    "a label of some class": ("label", 0, SFT | {"dpo", "dpo of instructions"}),
}
NOTHING: tuple[Any, ...] = (float("nan"), "nan", "None", None, "", " ", [], {}, "[]", [None], [["", None]], {"a": None})


def form_of(line: str) -> Form:
    objective = line.partition(" ")[0]
    return next(
        form
        for form in FORMS
        if set(form.required) | {"prompt"} == set(ROWS[line]) | {"prompt"}
        and (objective in form.needs if objective in ("dpo", "kto") else not form.needs)
    )


def own_names(form: Form) -> set[str]:
    """What its columns may be called."""
    return {name for role in form.roles for name in (role.name, *role.also)}


def load(folder: Path, line: str, *more: dict[str, Any]) -> Data:
    return load_lines(folder, [form_of(line)], *({**ROWS[line], **one} for one in more))


@pytest.mark.parametrize("line", ROWS)
@pytest.mark.parametrize("case", REFUSED)
def test_what_would_have_something_else_learnt_is_refused(case: str, line: str, tmp_path: Path) -> None:
    column, value, where, says, remedy = REFUSED[case]
    if line not in where:
        load(tmp_path, line, {}, {column: value} if column not in own_names(form_of(line)) else {})
        return
    with pytest.raises(JobError, match=f"{says}.* in 1 of 2 training rows") as caught:
        load(tmp_path, line, {}, {column: value})
    assert caught.value.reason == FailureReason.DATA_INVALID
    assert f'train.jsonl, line 2, column "{column}"' in str(caught.value)
    assert remedy in (caught.value.remedy or "")


@pytest.mark.parametrize("line", ROWS)
@pytest.mark.parametrize("case", SAID)
def test_a_column_that_says_something_of_rows_and_is_not_read_is_named(case: str, line: str, tmp_path: Path) -> None:
    column, value, where = SAID[case]
    if line not in where:
        return
    [warning] = [one for one in load(tmp_path, line, {}, {column: value}).warnings if "is not read" in one]
    assert warning.startswith(f'The column "{column}" has something in 1 of 2 training rows, such as ')


@pytest.mark.parametrize("line", ROWS)
def test_where_it_says_nothing_nothing_is_said(line: str, tmp_path: Path) -> None:
    form = form_of(line)
    names = [name for name in unread(form, {}, chosen=False) if name not in own_names(form)]
    data = load(tmp_path, line, *(dict.fromkeys(names, nothing) for nothing in NOTHING))
    assert not [one for one in data.warnings if "is not read" in one]


@pytest.mark.parametrize(("column", "value"), [("images", 0), ("image", False), ("audio", 1.5), ("weight", 1)])
def test_a_number_is_no_picture_and_a_weight_of_one_is_that_of_all(column: str, value: Any, tmp_path: Path) -> None:
    assert not [one for one in load(tmp_path, "messages", {column: value}).warnings if "is not read" in one]


@pytest.mark.parametrize("case", REFUSED)
def test_whoever_names_the_columns_has_chosen_what_is_learnt(case: str, tmp_path: Path) -> None:
    column, value, *_ = REFUSED[case]
    content = json.dumps({**ROWS["prompt"], column: value}) + "\n"
    folder = written(tmp_path, {"train.jsonl": content, "dev.jsonl": content})
    chosen = {"prompt": "prompt", "completion": "completion"}
    said = load_forms(folder, form_of("prompt"), columns=chosen, splits={"validation": "dev.jsonl"}).warnings
    about = [one for one in said if "is not read" in one]
    assert bool(about) is (column in ("label", "kto_tag"))


def test_answers_that_are_all_liked_may_be_learnt(tmp_path: Path) -> None:
    for label in (True, "true", "True"):
        assert not [one for one in load(tmp_path, "messages", {"label": label}).warnings if "is not read" in one]


def test_a_column_that_is_named_is_read_and_one_of_its_own_name_is_left(tmp_path: Path) -> None:
    content = json.dumps({"images": "a", "output": "b", "system": "c", "rule": "d"}) + "\n"
    columns = {"instruction": "images", "system": "rule"}
    data = load_forms(
        written(tmp_path, {"train.jsonl": content, "dev.jsonl": content}),
        form_of("instruction"),
        columns=columns,
        splits={"validation": "dev.jsonl"},
    )
    assert not [one for one in data.warnings if "is not read" in one]
    assert list(data.train.values("system")) == ["d"]


INPUT = {"sft": ["output"], "dpo": ["chosen", "rejected"], "kto": ["output", "label"]}
"""By what is learnt, the roles of a row with an instruction."""


@pytest.mark.parametrize(
    ("columns", "is_read"),
    [
        ({}, True),
        ({"instruction": "instruction"}, True),
        ({"output": "answer"}, True),
        ({"instruction": "question"}, False),
        ({"instruction": "question", "input": "input"}, True),
        ({"instruction": "question", "input": "more"}, True),
    ],
    ids=str,
)
@pytest.mark.parametrize("learnt", INPUT)
def test_an_input_beside_an_instruction_of_another_name_is_read_where_it_is_named(
    learnt: str, columns: dict[str, str], is_read: bool, tmp_path: Path
) -> None:
    roles = ["instruction", *INPUT[learnt]]
    columns = {role: column for role, column in columns.items() if role in ("input", *roles)}
    [form] = (form for form in FORMS if set(form.required) == set(roles))
    row = {columns.get(role, role): "false" if role == "label" else f"this is {role}" for role in roles}
    content = json.dumps({**row, "input": "a", "more": "b"}) + "\n"
    folder = written(tmp_path, {"train.jsonl": content, "dev.jsonl": content})
    data = load_forms(folder, form, columns=columns, splits={"validation": "dev.jsonl"})
    said = [one for one in data.warnings if "not read" in one]
    if is_read:
        assert list(data.train.values("input")) == ["b" if "more" in columns.values() else "a"]
        assert not said
    else:
        assert "input" not in data.train.roles
        assert said == [
            'The column "input" has something in 1 of 1 training rows, such as "a", and is not read: no part of an example is made of it, unless '
            "spec.dataset.columns.input names it."
        ]


@pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader.extension)
def test_every_reader_finds_them(reader: Reader, tmp_path: Path) -> None:
    rows = [[f"a {row}", "b", "c", row != 3] for row in range(20)]
    written(tmp_path, {reader.file: reader.write(["prompt", "completion", "input", "label"], rows)})
    with pytest.raises(JobError, match="answers are marked as not liked") as caught:
        load_forms(tmp_path, *FORMS[:4])
    assert f"{reader.file}, {reader.unit} {reader.first + 3}" in str(caught.value)
    rows = [[*row[:3], True] for row in rows]
    written(tmp_path, {reader.file: reader.write(["prompt", "completion", "input", "label"], rows)})
    [warning] = [one for one in load_forms(tmp_path, *FORMS[:4]).warnings if "is not read" in one]
    assert warning.startswith('The column "input" has something in 20 of 20 training rows, such as "c"')


def test_other_tasks_know_of_no_more_columns_than_they_read() -> None:
    assert {name for name, task in TASKS.items() for form in task.forms if form.known} == {"text-generation"}
    assert all(form.known for form in FORMS)
