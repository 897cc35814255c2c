"""CSV and TSV, strictly: a row that does not parse is an error with its line, and one that parses oddly a warning.

The classic trap: read with quoting on, a value that merely begins with a quote takes in everything up to the next quote,
lines and all, and the reader calls that one row. TSV is therefore read without quoting unless the spec says otherwise.
"""

from __future__ import annotations

import csv as csvlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, islice
from operator import itemgetter
from pathlib import Path
from typing import Protocol

from finetune_api.dataset import Csv
from finetune_api.failures import FailureReason, JobError
from finetune_trainer.data.encoding import decoded_lines
from finetune_trainer.data.examples import Stop
from finetune_trainer.data.problems import (
    SHOWN,
    at,
    column_missing,
    columns_repeat,
    data_invalid,
    listed,
    nearest,
    shortened,
)
from finetune_trainer.data.rows import FIRST, Sink

csvlib.field_size_limit(2**31 - 1)  # the default refuses texts of more than 128 KiB

MOST_LINES = 1000
"""Lines of one broken row that are looked at again."""

_TOLD_DELIMITER = re.compile(r'\ufeff?"?sep=([^\r\n])"?[\r\n]*', re.IGNORECASE)


class Reader(Protocol):
    """What `csv.reader` returns; its class has no public name."""

    line_num: int

    def __iter__(self) -> Iterator[list[str]]: ...

    def __next__(self) -> list[str]: ...


@dataclass(frozen=True)
class Dialect:
    """How a file is split into values."""

    delimiter: str
    quote: str
    """Empty where quotes are ordinary characters."""
    encoding: str

    @classmethod
    def of(cls, csv: Csv, *, tabs: bool) -> Dialect:
        """What the spec says, and the default of CSV or TSV (`tabs`) for what it leaves out."""
        quote = csv.quote_char if csv.quote_char is not None else ("" if tabs else '"')
        return cls(csv.delimiter or ("\t" if tabs else ","), quote, csv.encoding)

    def rows(self, lines: Iterable[str]) -> Reader:
        """A strict reader of these lines."""
        return csvlib.reader(
            lines,
            delimiter=self.delimiter,
            quotechar=self.quote or None,
            quoting=csvlib.QUOTE_MINIMAL if self.quote else csvlib.QUOTE_NONE,
            strict=True,
        )


def read_delimited(
    path: Path, name: str, roles: Mapping[str, str], into: Sink, *, csv: Csv, tabs: bool, stop: Stop
) -> tuple[str, ...]:
    """Put the columns `roles` of a delimited file, all strings, `into` where they go; returns warnings.

    A row's number is the line that it begins on. Blank lines are skipped. Raises JobError: ColumnMissing, DataInvalid.

    A first line `sep=;`, by which Excel says the delimiter, is obeyed where the spec names none, and is no row.
    """
    dialect, lines, skipped = begun(decoded_lines(path, name, csv.encoding), csv, tabs=tabs)
    reader = dialect.rows(lines)
    rows: list[Sequence[str]] = []
    numbers: list[int] = []
    limit, count = FIRST, 0
    broken: list[tuple[int, int]] = []
    odd = Oddities(name)
    quoted = dict.fromkeys(roles, 0)

    def flush() -> int:
        nonlocal count
        stop()
        columns = dict(zip(roles, zip(*rows, strict=True), strict=True))
        if not dialect.quote:
            for role, values in columns.items():
                quoted[role] += sum(len(value) > 1 and value[0] == value[-1] == '"' for value in values)
        more = into(columns, numbers)
        count += len(rows)
        rows.clear()
        numbers.clear()
        return more

    line = skipped  # the last one read
    try:
        header = csv.column_names or next(filter(None, reader), None)
        if header is None:
            return ()
        line = skipped + reader.line_num
        positions = _positions(name, roles, header, csv)
        # Of one position it gives no tuple.
        pick: Callable[[list[str]], Sequence[str]] = (
            itemgetter(*positions) if len(positions) > 1 else itemgetter(slice(positions[0], positions[0] + 1))
        )
        width = len(header)
        for row in reader:
            start, line = line + 1, skipped + reader.line_num
            if len(row) != width:
                if not row:
                    continue
                if len(row) < width or any(row[width:]):
                    broken.append((start, len(row)))
                    continue
                del row[width:]  # delimiters at the end with nothing behind them
            if line > start and _swallowed(row, dialect.delimiter):
                odd.swallowed.append((start, line))
            if row[-1] == header[-1] and row[1:] == header[1:] and row[0].lstrip("\ufeff") == header[0]:
                odd.headers.append(start)
            rows.append(pick(row))
            numbers.append(start)
            if len(rows) == limit:
                limit = flush()
    except csvlib.Error as error:
        raise _malformed(path, name, dialect, line + 1, skipped + reader.line_num, str(error)) from error
    if broken:
        raise _wrong_width(path, name, broken, width, count + len(numbers) + len(broken), csv, dialect)
    if rows:
        flush()
    return odd.warnings() if dialect.quote else (*odd.warnings(), *_unused_quotes(name, roles, quoted, count))


def begun(lines: Iterator[str], csv: Csv, *, tabs: bool) -> tuple[Dialect, Iterator[str], int]:
    """How a file is split, the lines to split, and how many before them are none of the table."""
    dialect = Dialect.of(csv, tabs=tabs)
    first = next(lines, "")
    if told := _TOLD_DELIMITER.fullmatch(first):
        return replace(dialect, delimiter=csv.delimiter or told[1]), lines, 1
    return dialect, chain([first], lines), 0


@dataclass
class Oddities:
    """Rows that parse and are perhaps not what was meant. That is a guess, so nothing is refused for it."""

    name: str
    swallowed: list[tuple[int, int]] = field(default_factory=list)
    """First and last lines of rows with a value that has rows inside."""
    headers: list[int] = field(default_factory=list)
    """Lines that are the header once more: of files put together, or below `columnNames` of the spec."""

    def warnings(self) -> tuple[str, ...]:
        found = []
        if self.swallowed:
            places = [f"lines {first} to {last}" for first, last in self.swallowed]
            found.append(
                f"{self.name}: {len(self.swallowed):,} quoted values hold several lines that look like rows of their own: "
                f"{at(places)}. If quotes are ordinary characters in this file, set spec.dataset.csv.quoteChar to an empty string."
            )
        if self.headers:
            found.append(
                f"{self.name}: {len(self.headers):,} rows are the names of the columns and are taken for examples: "
                f"{at([f'line {number}' for number in self.headers])}. Remove these lines, or columnNames if they are the header."
            )
        return tuple(found)


def _positions(name: str, roles: Mapping[str, str], header: list[str], csv: Csv) -> list[int]:
    positions = []
    for role, column in roles.items():
        if header.count(column) > 1:
            where = "spec.dataset.csv.columnNames" if csv.column_names else name
            raise columns_repeat(where, role, column, header.count(column))
        if column not in header:
            if csv.column_names:
                raise JobError(
                    FailureReason.COLUMN_MISSING,
                    f'spec.dataset.csv.columnNames, {listed(header)}, has no "{column}".{nearest(column, header)}',
                    field=f"spec.dataset.columns.{role}",
                    remedy=f"Name one of them in spec.dataset.columns.{role}, or correct spec.dataset.csv.columnNames.",
                )
            raise column_missing(name, role, column, header)
        positions.append(header.index(column))
    return positions


def _swallowed(row: list[str], delimiter: str) -> bool:
    """Whether a value of several lines has rows of the file inside it, rather than a text of several lines."""
    for value in row:
        inner = value.splitlines()[1:-1]
        whole = [line for line in inner if line.count(delimiter) == len(row) - 1]
        # One or two such lines in prose with commas are chance; tabs in prose are not.
        if inner and len(whole) == len(inner) and len(row) > 1 and (delimiter == "\t" or len(inner) >= 3):
            return True
    return False


def _malformed(path: Path, name: str, dialect: Dialect, start: int, end: int, problem: str) -> JobError:
    if not dialect.quote:
        return data_invalid(f"{name}, line {start}: {problem}", "Correct this row.")
    text = "".join(islice(decoded_lines(path, name, dialect.encoding), start - 1, min(end, start + MOST_LINES)))
    d, q = re.escape(dialect.delimiter), re.escape(dialect.quote)
    # Possessive: a value that has begun well is never tried again as a shorter one.
    value = rf"(?:{q}(?:[^{q}]|{q}{q})*+{q}|[^{q}{d}\r\n][^{d}\r\n]*+|)"
    well_formed = re.match(rf"(?:{value}{d})*+", text)
    before = (well_formed[0] if well_formed else "").splitlines(keepends=True)
    column = len(next(csvlib.reader(before, delimiter=dialect.delimiter, quotechar=dialect.quote), [])) or 1
    if "end of data" in problem:
        said = f"a quote opens value {column} and is closed nowhere in the rest of the file"
    else:
        said = f"value {column} goes on after its closing quote"
    if f"\\{dialect.quote}" in text:
        return data_invalid(
            f"{name}, line {start}: {said}; quotes are written with a backslash before them, which is no CSV",
            "Write the quote twice inside a quoted value, or write the file again as JSON lines or Parquet.",
        )
    return data_invalid(
        f"{name}, line {start}: {said}",
        "If quotes are ordinary characters in this file, set spec.dataset.csv.quoteChar to an empty string; else write the "
        "quote twice inside a quoted value.",
        "spec.dataset.csv.quoteChar",
    )


def _wrong_width(
    path: Path, name: str, broken: list[tuple[int, int]], width: int, rows: int, csv: Csv, dialect: Dialect
) -> JobError:
    places = "; ".join(f"line {line} has {values}" for line, values in broken[:SHOWN])
    more = f" and {len(broken) - SHOWN:,} more" if len(broken) > SHOWN else ""
    source = "spec.dataset.csv.columnNames has" if csv.column_names else "the header has"
    line = broken[0][0]
    sample = next(islice(decoded_lines(path, name, dialect.encoding), line - 1, None), "").rstrip("\r\n")
    remedy = f"Correct these rows: {source} {width} columns."
    if broken[0][1] > width:
        remedy += (
            f" A value that holds {dialect.delimiter!r} must stand in quotes."
            if dialect.quote
            else f" A value may not hold {dialect.delimiter!r}."
        )
    return data_invalid(
        f"{name}: {len(broken):,} of {rows:,} rows do not have {width} values: {places}{more}. Line {line} is {shortened(sample)}",
        remedy,
    )


def _unused_quotes(name: str, roles: Mapping[str, str], quoted: Mapping[str, int], rows: int) -> tuple[str, ...]:
    for role, column in roles.items():
        if quoted[role] and quoted[role] >= rows / 2:
            return (
                f'{name}, column "{column}": {quoted[role]:,} of {rows:,} values stand in quotes, which are read as part of '
                "the value. If they are not, set spec.dataset.csv.quoteChar to '\"'.",
            )
    return ()
