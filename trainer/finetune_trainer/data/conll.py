"""Tagged words as in the CoNLL shared tasks: a word a line with its tags behind it, and a blank line after each sentence.

Values stand between tabs, or between blanks where a line has no tab. Of several columns the word is the first and the tag the last
one, unless the spec names columns by their number. `-DOCSTART-` begins a document and is no sentence; nor are lines that begin with
`# ` in a file of tabs and have none.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from finetune_api.failures import FailureReason, JobError
from finetune_trainer.data.encoding import decoded_lines
from finetune_trainer.data.examples import Stop
from finetune_trainer.data.problems import SHOWN, data_invalid
from finetune_trainer.data.rows import FIRST, Sink

DOCUMENT = "-DOCSTART-"


def read_conll(path: Path, name: str, roles: Mapping[str, str], into: Sink, stop: Stop) -> None:
    """Put the sentences of a file `into` where they go: for each role (role → column) a list of strings, numbered by the line of its
    first word. Raises JobError: ColumnMissing, DataInvalid."""
    sentences: list[list[list[str]]] = []
    numbers: list[int] = []
    words: list[list[str]] = []
    broken: list[str] = []
    width = places = None
    limit = FIRST

    def flush() -> int:
        stop()
        assert places is not None
        columns = {
            role: [[word[place] for word in sentence] for sentence in sentences] for role, place in places.items()
        }
        more = into(columns, numbers)
        sentences.clear()
        numbers.clear()
        return more

    number = 0
    for number, line in enumerate(decoded_lines(path, name, "utf-8"), start=1):
        line = line.rstrip("\r\n")
        if not line.strip():
            if words:
                sentences.append(words)
                words = []
                if len(sentences) == limit:
                    limit = flush()
            continue
        values = line.split("\t") if "\t" in line else line.split()
        if values[0] == DOCUMENT or (line.startswith("# ") and "\t" not in line and width not in (None, len(values))):
            continue
        if width is None:
            width, places = len(values), _places(name, number, roles, len(values))
        if len(values) != width:
            broken.append(f"line {number} has {len(values)}")
            continue
        if not words:
            numbers.append(number)
        words.append(values)
    if broken:
        more = f" and {len(broken) - SHOWN:,} more" if len(broken) > SHOWN else ""
        raise data_invalid(
            f"{name}: {len(broken):,} of {number:,} lines do not have {width} values: {'; '.join(broken[:SHOWN])}{more}",
            "Write a word and its tags in each line, between tabs, and a blank line after each sentence.",
        )
    if words:
        sentences.append(words)
    if sentences:
        flush()


def _places(name: str, number: int, roles: Mapping[str, str], width: int) -> dict[str, int]:
    """For each role the place of its values in a line."""
    if width < len(roles):
        raise data_invalid(
            f"{name}, line {number}, has {width} value, not a word and its tag",
            "Write a word and its tags in each line, between tabs, or say spec.dataset.format if the file is no CoNLL.",
            "spec.dataset.format",
        )
    usual = dict(zip(roles, (*range(len(roles) - 1), width - 1), strict=True))
    return {role: _place(name, role, column, width, usual[role]) for role, column in roles.items()}


def _place(name: str, role: str, column: str, width: int, usual: int) -> int:
    if not column.isascii() or not column.isdigit():
        return usual
    if not 0 < int(column) <= width:
        raise JobError(
            FailureReason.COLUMN_MISSING,
            f"{name} has no column {column}: its lines have {width} values, and columns count from 1",
            field=f"spec.dataset.columns.{role}",
            remedy=f"Name one of the columns 1 to {width} in spec.dataset.columns.{role}, or leave it out for the {'first' if usual == 0 else 'last'}.",
        )
    return int(column) - 1
