"""Questions in the nested JSON of SQuAD 1.1 and 2.0: articles of paragraphs, each a context with its questions and their answers."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from finetune_api.failures import JobError
from finetune_trainer.data.encoding import is_encodable
from finetune_trainer.data.examples import Stop
from finetune_trainer.data.problems import column_missing, data_invalid, said_of_json, shortened
from finetune_trainer.data.rows import FIRST, Sink

REMEDY = (
    'Write it as {"data": [{"paragraphs": [{"context": "…", "qas": [{"question": "…", "answers": [{"text": "…", "answer_start": 0}]}]}]}]}, '
    "or as JSON lines, or one list, with a question each and spec.dataset.format jsonl."
)


def read_squad(path: Path, name: str, roles: Mapping[str, str], into: Sink, stop: Stop) -> None:
    """Put the questions of a file `into` where they go, by role (role → name of the value), numbered in their order from 1.

    A value is one of a question, of its paragraph or of its article. Raises JobError: ColumnMissing, DataInvalid.
    """
    try:
        document = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise data_invalid(f"{name} is not one document of JSON: {said_of_json(error)}", REMEDY) from error
    if not is_encodable(document):
        raise data_invalid(
            f"{name} holds an escape that is half a character, such as \\ud83d alone",
            "Write whole characters, as UTF-8.",
        )
    stop()
    columns: dict[str, list[Any]] = {role: [] for role in roles}
    limit, begin = FIRST, 1
    for number, question in enumerate(_questions(document, name), start=1):
        for role, column in roles.items():
            if column not in question:
                raise column_missing(f"{name}, question {number}{_id(question)},", role, column, list(question))
            columns[role].append(question[column])
        if number - begin + 1 == limit:
            limit, begin = _put(columns, begin, number, into, stop), number + 1
            columns = {role: [] for role in roles}
    rows = len(next(iter(columns.values())))
    if rows:
        _put(columns, begin, begin + rows - 1, into, stop)


def _put(columns: Mapping[str, list[Any]], first: int, last: int, into: Sink, stop: Stop) -> int:
    stop()
    return into(columns, range(first, last + 1))


def _questions(document: Any, name: str) -> Iterator[dict[str, Any]]:
    for article in _objects(document, "data", name, "it"):
        for paragraph in _objects(article, "paragraphs", name, _called("the article", article.get("title"))):
            where = _called("the paragraph", paragraph.get("context"))
            for question in _objects(paragraph, "qas", name, where):
                row = {
                    key: value
                    for key, value in {**article, **paragraph, **question}.items()
                    if key not in ("paragraphs", "qas")
                }
                if row.get("is_impossible") and row.get("answers"):
                    raise data_invalid(
                        f"{name}: the question{_id(row)} is_impossible and has answers, such as {shortened(str(row['answers']))}",
                        "Give it no answers, or is_impossible false.",
                    )
                yield row


def _objects(of: Any, key: str, name: str, what: str) -> list[dict[str, Any]]:
    found = of.get(key) if isinstance(of, dict) else None
    if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
        raise _no_squad(name, f'{what} has no list "{key}" of objects')
    return found


def _no_squad(name: str, said: str) -> JobError:
    return data_invalid(f"{name} is not written as SQuAD is: {said}", REMEDY)


def _called(what: str, text: Any) -> str:
    return f"{what} {shortened(text)}" if isinstance(text, str) else what


def _id(question: Mapping[str, Any]) -> str:
    return f" with the id {shortened(question['id'])}" if "id" in question else ""
