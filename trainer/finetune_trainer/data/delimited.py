"""CSV and TSV, strictly: a row that does not parse, or a quote that swallows rows, is an error with its line.

The classic trap: read with quoting on, a value that merely begins with a quote takes in everything up to the next quote,
lines and all, and the reader calls that one row. TSV is therefore read without quoting unless the spec says otherwise.
"""

from __future__ import annotations

import csv as csvlib
import re
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from operator import itemgetter
from pathlib import Path
from typing import Any

from finetune_api.dataset import Csv
from finetune_api.failures import JobError
from finetune_trainer.data.encoding import decoded_lines
from finetune_trainer.data.examples import Stop
from finetune_trainer.data.problems import SHOWN, column_missing, data_invalid, nearest, shortened

csvlib.field_size_limit(2**31 - 1)  # the default refuses texts of more than 128 KiB

STOP_EVERY = 1 << 16


@dataclass(frozen=True)
class DelimitedRows:
    columns: dict[str, list[Any]]
    """By role, all strings."""
    lines: Sequence[int]
    """The line each row begins on."""
    warnings: tuple[str, ...]


def read_delimited(
    path: Path, name: str, roles: Mapping[str, str], *, csv: Csv, tabs: bool, stop: Stop
) -> DelimitedRows:
    """The columns `roles` of a delimited file. Blank lines are skipped. Raises JobError: ColumnMissing, DataInvalid."""
    delimiter = csv.delimiter or ("\t" if tabs else ",")
    quote = csv.quote_char if csv.quote_char is not None else ("" if tabs else '"')
    reader = csvlib.reader(
        decoded_lines(path, name, csv.encoding),
        delimiter=delimiter,
        quotechar=quote or None,
        quoting=csvlib.QUOTE_MINIMAL if quote else csvlib.QUOTE_NONE,
        strict=True,
    )
    rows: list[tuple[str, ...]] = []
    lines = array("q")
    broken: list[tuple[int, int]] = []
    line = 0  # the last one read
    try:
        header = csv.column_names or next(filter(None, reader), None)
        if header is None:
            raise data_invalid(f"{name} is empty", "Give it rows, or name other files in spec.dataset.splits.")
        line = reader.line_num
        pick = itemgetter(*_positions(name, roles, header, csv, delimiter))
        width = len(header)
        for row in reader:
            start, line = line + 1, reader.line_num
            if len(row) != width:
                if row:
                    broken.append((start, len(row)))
                continue
            if line > start and _swallowed(row, delimiter):
                raise _stray_quote(name, start, line, header, row)
            rows.append(pick(row))
            lines.append(start)
            if len(lines) % STOP_EVERY == 0:
                stop()
    except csvlib.Error as error:
        raise _malformed(path, name, csv.encoding, delimiter, quote, line + 1, reader.line_num, str(error)) from error
    if broken:
        raise _wrong_width(path, name, broken, width, len(lines) + len(broken), csv, delimiter, quote)
    columns = [list(values) for values in zip(*rows, strict=True)] or [[] for _ in roles]
    by_role = dict(zip(roles, columns, strict=True))
    return DelimitedRows(by_role, lines, () if quote else _unused_quotes(name, roles, by_role))


def _positions(name: str, roles: Mapping[str, str], header: list[str], csv: Csv, delimiter: str) -> list[int]:
    positions = []
    for role, column in roles.items():
        if header.count(column) > 1:
            raise data_invalid(
                f'{name} has {header.count(column)} columns called "{column}"',
                "Give each column a name of its own.",
                f"spec.dataset.columns.{role}",
            )
        if column not in header:
            hint = ""
            if csv.column_names is None and not nearest(column, header):
                hint = " If the first line is no header, list the names in spec.dataset.csv.columnNames."
            if len(header) == 1 and csv.delimiter is None:
                hint = f" If {delimiter!r} is not what separates the values, set spec.dataset.csv.delimiter."
            raise column_missing(name, role, column, header, hint=hint)
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


def _stray_quote(name: str, start: int, end: int, header: list[str], row: list[str]) -> JobError:
    column = max(zip(header, row, strict=True), key=lambda pair: pair[1].count("\n"))[0]
    return data_invalid(
        f'{name}, line {start}, column "{column}": a quote opens a value that ends only on line {end}, and the lines between '
        "look like rows of their own",
        "If quotes are ordinary characters in this file, set spec.dataset.csv.quoteChar to an empty string; else write the "
        "quote twice inside a quoted value.",
        "spec.dataset.csv.quoteChar",
    )


def _malformed(
    path: Path, name: str, encoding: str, delimiter: str, quote: str, start: int, end: int, problem: str
) -> JobError:
    text = "".join(islice(decoded_lines(path, name, encoding), start - 1, end))
    d, q = re.escape(delimiter), re.escape(quote)
    value = rf"(?:{q}(?:[^{q}]|{q}{q})*{q}|[^{q}{d}\r\n][^{d}\r\n]*|)"
    well_formed = re.match(rf"(?:{value}{d})*", text)
    before = (well_formed[0] if well_formed else "").splitlines(keepends=True)
    column = len(next(csvlib.reader(before, delimiter=delimiter, quotechar=quote), [])) or 1
    if "end of data" in problem:
        said = f"a quote opens value {column} and is closed nowhere in the rest of the file"
    else:
        said = f"value {column} goes on after its closing quote"
    return data_invalid(
        f"{name}, line {start}: {said}",
        "If quotes are ordinary characters in this file, set spec.dataset.csv.quoteChar to an empty string; else write the "
        "quote twice inside a quoted value.",
        "spec.dataset.csv.quoteChar",
    )


def _wrong_width(
    path: Path,
    name: str,
    broken: list[tuple[int, int]],
    width: int,
    rows: int,
    csv: Csv,
    delimiter: str,
    quote: str,
) -> JobError:
    places = "; ".join(f"line {line} has {values}" for line, values in broken[:SHOWN])
    more = f" and {len(broken) - SHOWN:,} more" if len(broken) > SHOWN else ""
    source = "spec.dataset.csv.columnNames has" if csv.column_names else "the header has"
    line = broken[0][0]
    sample = next(islice(decoded_lines(path, name, csv.encoding), line - 1, None), "").rstrip("\r\n")
    remedy = f"Correct these rows: {source} {width} columns."
    if broken[0][1] > width:
        remedy += (
            f" A value that holds {delimiter!r} must stand in quotes."
            if quote
            else f" A value may not hold {delimiter!r}."
        )
    return data_invalid(
        f"{name}: {len(broken):,} of {rows:,} rows do not have {width} values: {places}{more}. Line {line} is {shortened(sample)}",
        remedy,
    )


def _unused_quotes(name: str, roles: Mapping[str, str], columns: Mapping[str, list[str]]) -> tuple[str, ...]:
    for role, column in roles.items():
        values = columns[role]
        quoted = sum(len(value) > 1 and value[0] == value[-1] == '"' for value in values)
        if quoted and quoted >= len(values) / 2:
            return (
                f'{name}, column "{column}": {quoted:,} of {len(values):,} values stand in quotes, which are read as part of '
                "the value. If they are not, set spec.dataset.csv.quoteChar to '\"'.",
            )
    return ()
