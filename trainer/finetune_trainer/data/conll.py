"""Tagged words as in the CoNLL shared tasks: a word a line with its tags behind it, and a blank line after each sentence.

Values stand between tabs, or between blanks in a file whose first line has no tab. Of several columns the word is the first and the tag
the last one, unless the spec names columns by their number; of CoNLL-U, whose first column counts words, it has to. `-DOCSTART-` begins a
document and is no sentence; nor are comments, which begin with `# ` and are not written as words are, and the words of CoNLL-U that the
ones after them are parts of, or that are not there.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from finetune_api.failures import FailureReason, JobError
from finetune_trainer.data.encoding import decoded_lines
from finetune_trainer.data.examples import Stop
from finetune_trainer.data.problems import SHOWN, data_invalid
from finetune_trainer.data.rows import FIRST, Sink

DOCUMENT = "-DOCSTART-"
COMMENT = "# "
UNIVERSAL = 10
"""Columns of CoNLL-U."""
_COUNT = re.compile(r"[0-9]+(?:[-.][0-9]+)?")
_NO_WORD = re.compile(r"[0-9]+[-.][0-9]+")


@dataclass(frozen=True)
class Layout:
    """How the lines of a file are written."""

    tabs: bool
    width: int
    """Values of a line."""
    is_universal: bool
    """Whether it is CoNLL-U."""

    @classmethod
    def of(cls, line: str) -> Layout:
        """That of a file in which a word is written so."""
        tabs = "\t" in line
        values = line.split("\t") if tabs else line.split()
        return cls(tabs, len(values), tabs and len(values) == UNIVERSAL and _COUNT.fullmatch(values[0]) is not None)

    def values(self, line: str) -> list[str]:
        return line.split("\t") if self.tabs else line.split()

    def is_word(self, line: str, values: list[str]) -> bool:
        if line.startswith(COMMENT):
            # The word may be a hash itself: `# O`. No tag is an equals sign, as in `# sent_id = 3`.
            if self.tabs:
                return "\t" in line
            return "\t" not in line and len(values) == self.width and values[2:3] != ["="]
        return not (self.is_universal and _NO_WORD.fullmatch(values[0]))


def read_conll(path: Path, name: str, roles: Mapping[str, str], into: Sink, stop: Stop) -> None:
    """Put the sentences of a file `into` where they go: for each role (role → column) a list of strings, numbered by the line of its
    first word. Raises JobError: ColumnMissing, DataInvalid."""
    found = _layout(path, name)
    if found is None:
        return
    first, layout = found
    places = _places(name, first, roles, layout)
    sentences: list[list[list[str]]] = []
    numbers: list[int] = []
    words: list[list[str]] = []
    broken: list[str] = []
    limit = FIRST

    def flush() -> int:
        stop()
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
        values = layout.values(line)
        if _is_document(line) or not layout.is_word(line, values):
            continue
        if len(values) != layout.width:
            broken.append(f"line {number} has {len(values)}")
            continue
        if not words:
            numbers.append(number)
        words.append(values)
    if broken:
        more = f" and {len(broken) - SHOWN:,} more" if len(broken) > SHOWN else ""
        between = "tabs, as in the first line" if layout.tabs else "blanks"
        raise data_invalid(
            f"{name}: {len(broken):,} of {number:,} lines do not have {layout.width} values: {'; '.join(broken[:SHOWN])}{more}",
            f"Write a word and its tags in each line, between {between}, and a blank line after each sentence.",
        )
    if words:
        sentences.append(words)
    if sentences:
        flush()


def _layout(path: Path, name: str) -> tuple[int, Layout] | None:
    """Of the first line that is surely a word, with its number; of the first one that may be a comment where there is no other."""
    found = None
    for number, line in enumerate(decoded_lines(path, name, "utf-8"), start=1):
        line = line.rstrip("\r\n")
        if not line.strip() or _is_document(line):
            continue
        if not line.startswith(COMMENT):
            return number, Layout.of(line)
        found = found or (number, Layout.of(line))
    return found


def _is_document(line: str) -> bool:
    return line.startswith(DOCUMENT) and line.split()[0] == DOCUMENT


def _places(name: str, number: int, roles: Mapping[str, str], layout: Layout) -> dict[str, int]:
    """For each role the place of its values in a line."""
    width = layout.width
    if layout.is_universal and not all(map(_is_number, roles.values())):
        raise JobError(
            FailureReason.COLUMN_MISSING,
            f"{name}, line {number}, has the {UNIVERSAL} values of CoNLL-U, of which the first one is a number and the last one no tag",
            field="spec.dataset.columns",
            remedy='Name columns by their numbers: tokens "2", and tags "4" for parts of speech (UPOS), or another one.',
        )
    if width < len(roles):
        raise data_invalid(
            f"{name}, line {number}, has {width} value, not a word and its tag",
            "Write a word and its tags in each line, between tabs, or say spec.dataset.format if the file is no CoNLL.",
            "spec.dataset.format",
        )
    usual = dict(zip(roles, (*range(len(roles) - 1), width - 1), strict=True))
    return {role: _place(name, role, column, width, usual[role]) for role, column in roles.items()}


def _place(name: str, role: str, column: str, width: int, usual: int) -> int:
    if not _is_number(column):
        return usual
    if not 0 < int(column) <= width:
        raise JobError(
            FailureReason.COLUMN_MISSING,
            f"{name} has no column {column}: its lines have {width} values, and columns count from 1",
            field=f"spec.dataset.columns.{role}",
            remedy=f"Name one of the columns 1 to {width} in spec.dataset.columns.{role}, or leave it out for the {'first' if usual == 0 else 'last'}.",
        )
    return int(column) - 1


def _is_number(column: str) -> bool:
    return column.isascii() and column.isdigit()
