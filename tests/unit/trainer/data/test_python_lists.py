"""Lists and objects as Python prints them, which is what pandas writes into CSV, are refused with what they have to be instead."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from finetune_api.failures import JobError
from tests.unit.trainer.data.folders import load_from, written

JSON = "In a text it is JSON, which has double quotes."
ANSWERS = {"text": ["Oslo"], "answer_start": [13]}
CASES = [
    ("text-classification", {"text": "Anna went", "labels": ["a", "b"]}, "labels"),
    ("token-classification", {"tokens": ["Anna", "went"], "tags": ["B-PER", "O"]}, "tokens"),
    ("token-classification", {"tokens": ["Anna", "went"], "tags": ["B-PER", "O"]}, "tags"),
    ("question-answering", {"question": "Where?", "context": "Anna went to Oslo.", "answers": ANSWERS}, "answers"),
]


@pytest.mark.parametrize(("task", "row", "role"), CASES, ids=[role for _, _, role in CASES])
def test_what_python_prints_is_told_to_be_no_json(task: str, row: dict[str, object], role: str, tmp_path: Path) -> None:
    printed = {name: value if isinstance(value, str) else json.dumps(value) for name, value in row.items()}
    written(tmp_path, {"train.jsonl": json.dumps(printed | {role: str(row[role])})})
    with pytest.raises(JobError) as caught:
        load_from(tmp_path, task=task, columns={name: name for name in row})
    assert caught.value.remedy.endswith(JSON)
    assert caught.value.field == f"spec.dataset.columns.{role}"


@pytest.mark.parametrize(("task", "row", "role"), CASES, ids=[role for _, _, role in CASES])
def test_other_texts_are_not_told_so(task: str, row: dict[str, object], role: str, tmp_path: Path) -> None:
    written(tmp_path, {"train.jsonl": json.dumps(row | {role: 7})})
    with pytest.raises(JobError) as caught:
        load_from(tmp_path, task=task, columns={name: name for name in row})
    assert JSON not in caught.value.remedy
