"""Questions, contexts and answers: nested SQuAD, flat rows, unanswerable ones, and offsets that are wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from finetune_api.failures import FailureReason, JobError
from finetune_api.tasks import Kind, Role
from finetune_trainer.data import Data
from tests.public_data import DATA, needs
from tests.unit.trainer.data.folders import form, load_forms, written

ASKED = form(Role("question", Kind.TEXT), Role("context", Kind.TEXT), Role("answers", Kind.ANSWERS))
CONTEXT = "Zoë 🎉 lives in Kraków, and Ada in London."
ANSWERS = [
    [{"text": "Kraków", "start": 15}],
    [{"text": "Ada", "start": 27}, {"text": "Ada in London", "start": 27}],
    [],
    [{"text": "Zoë", "start": 0}],
]
DEV = {"splits": {"validation": "dev.jsonl"}}


def flat(answers: list[dict[str, Any]]) -> dict[str, list[Any]]:
    return {
        "text": [answer["text"] for answer in answers],
        "answer_start": [answer["start"] for answer in answers],
    }


def own(answers: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{"text": answer["text"], "answer_start": answer["start"]} for answer in answers]


def lines(answers: list[Any], context: str = CONTEXT) -> str:
    rows = ({"question": f"Who {n}?", "context": context, "answers": value} for n, value in enumerate(answers))
    return "".join(json.dumps(row) + "\n" for row in rows)


def nested(answers: list[Any], **more: Any) -> dict[str, Any]:
    questions = [
        {"id": f"q{n}", "question": f"Who {n}?", "answers": own(value), **more} for n, value in enumerate(answers)
    ]
    return {"version": "2.0", "data": [{"title": "Towns", "paragraphs": [{"context": CONTEXT, "qas": questions}]}]}


def read(data: Data) -> list[list[dict[str, Any]]]:
    return list(data.train.values("answers"))


def with_fractions(answers: list[dict[str, Any]]) -> dict[str, list[Any]]:
    return flat([{**answer, "start": float(answer["start"])} for answer in answers])


@pytest.mark.parametrize(
    "write",
    [flat, own, lambda value: json.dumps(flat(value)), with_fractions],
    ids=["flat", "own", "string", "fractions"],
)
def test_rows_hold_answers_as_the_hub_or_as_squad_writes_them(write: Any, tmp_path: Path) -> None:
    written(
        tmp_path, {"train.jsonl": lines([write(value) for value in ANSWERS]), "dev.jsonl": lines([flat(ANSWERS[0])])}
    )
    data = load_forms(tmp_path, ASKED, **DEV)
    assert read(data) == ANSWERS
    assert data.names == {}


def test_parquet_holds_them_as_the_hub_does(tmp_path: Path) -> None:
    rows = {"question": [f"Who {n}?" for n in range(4)], "context": [CONTEXT] * 4, "answers": list(map(flat, ANSWERS))}
    for name in "train", "dev":
        pq.write_table(pa.table(rows), tmp_path / f"{name}.parquet")
    assert read(load_forms(tmp_path, ASKED, splits={"validation": "dev.parquet"})) == ANSWERS


def test_nested_squad_is_read_question_by_question(tmp_path: Path) -> None:
    document = nested(ANSWERS)
    document["data"][0]["paragraphs"][0]["qas"][2] |= {"is_impossible": True, "plausible_answers": own(ANSWERS[0])}
    written(tmp_path, {"train.json": json.dumps(document), "dev.jsonl": lines([flat(ANSWERS[0])])})
    data = load_forms(tmp_path, ASKED, **DEV)
    assert read(data) == ANSWERS
    assert list(data.train.values("question")) == [f"Who {n}?" for n in range(4)]
    assert set(data.train.values("context")) == {CONTEXT}
    assert str(data.train.origins[2]) == "train.json, row 3"


@pytest.mark.parametrize(
    ("answers", "says", "remedy"),
    [
        ({"text": ["Ada"], "answer_start": [28]}, 'is not what the context has there in 1 of 2 training rows, such as "Ada" at 28', "seem to count from 1"),
        ({"text": ["Ada"], "answer_start": [32]}, 'which has "n L"', "seem to count bytes of UTF-8"),
        ({"text": ["Kraków"], "answer_start": [16]}, "is not what the context has there", "count"),
        ({"text": ["Rome"], "answer_start": [0]}, 'such as "Rome" at 0, which has "Zoë "', "Correct answer_start"),
        ({"text": ["London."], "answer_start": [99]}, "lies outside the context in 1 of 2", "Correct answer_start"),
        ({"text": ["Zoë"], "answer_start": [-1]}, "lies outside the context in 1 of 2", "Correct answer_start"),
        ({"text": ["Ada", "x"], "answer_start": [27]}, "are not written as answers in 1 of 2", "two empty lists"),
        ({"text": ["Ada"], "answer_start": ["27"]}, "are not written as answers in 1 of 2", "two empty lists"),
        ({"text": [""], "answer_start": [0]}, "are not written as answers in 1 of 2", "two empty lists"),
        ({"text": [" "], "answer_start": [3]}, "are not written as answers in 1 of 2", "two empty lists"),
        ({"text": ["Ada"], "answer_start": [27.5]}, "are not written as answers in 1 of 2", "two empty lists"),
        ({"text": ["Ada"]}, "are not written as answers in 1 of 2", "two empty lists"),
        (["Ada"], "are not written as answers in 1 of 2", "two empty lists"),
        ("Ada", 'are not written as answers in 1 of 2 training rows, such as "Ada"', "two empty lists"),
        (r'{"text": ["\ud83d"], "answer_start": [0]}', "are not written as answers in 1 of 2", "two empty lists"),
        (None, "are not written as answers in 1 of 2 training rows, such as None", "two empty lists"),
    ],
)  # fmt: skip
def test_answers_that_are_none_are_named_with_their_row(answers: Any, says: str, remedy: str, tmp_path: Path) -> None:
    written(tmp_path, {"train.jsonl": lines([flat(ANSWERS[0]), answers]), "dev.jsonl": lines([flat(ANSWERS[0])])})
    with pytest.raises(JobError) as caught:
        load_forms(tmp_path, ASKED, **DEV)
    assert says in caught.value.message
    assert 'train.jsonl, line 2, column "answers"' in caught.value.message
    assert remedy in caught.value.remedy
    assert (caught.value.reason, caught.value.field) == (FailureReason.DATA_INVALID, "spec.dataset.columns.answers")


def test_offsets_in_units_of_utf_16_are_recognised(tmp_path: Path) -> None:
    right, wrong = ({"text": ["lives"], "answer_start": [start]} for start in (7, 9))  # each 🎉 is two units
    written(
        tmp_path, {"train.jsonl": lines([right], "🎉🎉 Ada lives"), "dev.jsonl": lines([wrong], "🎉🎉 Ada lives on")}
    )
    with pytest.raises(JobError) as caught:
        load_forms(tmp_path, ASKED, **DEV)
    assert "these seem to count units of UTF-16" in caught.value.remedy


def test_without_any_answer_there_is_nothing_to_learn(tmp_path: Path) -> None:
    written(tmp_path, {"train.jsonl": lines([flat([]), flat([])]), "dev.jsonl": lines([flat(ANSWERS[0])])})
    with pytest.raises(JobError, match="none of the 2 training examples has an answer"):
        load_forms(tmp_path, ASKED, **DEV)


@pytest.mark.parametrize(
    ("document", "says"),
    [
        ("{", "train.json is not one document of JSON: "),
        (r'{"data": [{"title": "\ud83d"}]}', "train.json holds an escape that is half a character"),
        ("{}", 'train.json is not written as SQuAD is: it has no list "data" of objects'),
        ('{"data": [{"title": "T"}]}', 'the article "T" has no list "paragraphs" of objects'),
        ('{"data": [{"paragraphs": [{"context": "C", "qas": 3}]}]}', 'the paragraph "C" has no list "qas" of objects'),
        ('{"data": [{"paragraphs": [{"context": "C", "qas": [{"id": "q7", "answers": []}]}]}]}', 'train.json, question 1 with the id "q7", has no column "question"'),
        (json.dumps(nested(ANSWERS[:1], is_impossible=True)), 'the question with the id "q0" is_impossible and has answers'),
        (lines([flat(ANSWERS[0])] * 2), "train.json holds JSON lines, not SQuAD"),
    ],
)  # fmt: skip
def test_json_that_is_no_squad_says_what_is_missing(document: str, says: str, tmp_path: Path) -> None:
    written(tmp_path, {"train.json": document, "dev.jsonl": lines([flat(ANSWERS[0])])})
    with pytest.raises(JobError) as caught:
        load_forms(tmp_path, ASKED, **DEV)
    assert says in caught.value.message


def test_json_is_squad_only_where_there_are_answers(tmp_path: Path) -> None:
    written(tmp_path, {"train.json": json.dumps(nested(ANSWERS))})
    with pytest.raises(JobError, match=r'train\.json has no column "text"'):
        load_forms(tmp_path, form(Role("text", Kind.TEXT)))


@needs("xquad")
def test_xquad_is_read_as_it_is_distributed() -> None:
    data = load_forms(DATA / "xquad", ASKED, splits={"train": "xquad.en.json"})
    assert len(data.train) + len(data.validation) == 1190
    assert len({*data.train.values("context"), *data.validation.values("context")}) == 240


def test_squad_that_is_read_as_json_lines_is_told_as_that(tmp_path: Path) -> None:
    nested = json.dumps({"version": "1.1", "data": [{"paragraphs": []}]})
    with pytest.raises(JobError, match='no column "question"') as caught:
        load_forms(written(tmp_path, {"train.json": nested}), ASKED, format="jsonl")
    assert "If it is the nested JSON of SQuAD, set spec.dataset.format to squad." in caught.value.remedy
