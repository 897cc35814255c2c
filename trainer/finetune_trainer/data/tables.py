"""Files as columns of values: delimited text, JSON lines, Parquet.

Delimited text and JSON lines are read in one pass by Python's own C parsers. Arrow's reader takes two thirds of the time for
the same columns as Python strings, but knows no line numbers and takes stray quotes for granted.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from finetune_api.dataset import Csv
from finetune_api.failures import JobError
from finetune_trainer.data.delimited import read_delimited
from finetune_trainer.data.diagnosis import diagnosed, refuse_foreign
from finetune_trainer.data.encoding import decoded_lines, is_garbled
from finetune_trainer.data.examples import Stop
from finetune_trainer.data.foreign import Format
from finetune_trainer.data.problems import SHOWN, column_missing, columns_repeat, data_invalid, said_of_json

EXTENSIONS: dict[str, Format] = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
}

STOP_EVERY = 1 << 16
"""Rows between two looks at `stop`."""


@dataclass(frozen=True)
class Table:
    """The wanted columns of one file, in the order of its rows."""

    columns: dict[str, list[Any]]
    """By role (`text`, `textPair`, `label`). Delimited text gives strings; JSON and Parquet what they hold, None for null."""
    numbers: Sequence[int]
    """The line or row number of each row."""
    unit: Literal["line", "row"]
    label_names: list[str] | None = None
    """Names of whole-number labels, where the file itself tells them."""
    warnings: tuple[str, ...] = ()


def read_table(
    path: Path, name: str, format: Format, roles: Mapping[str, str], *, csv: Csv | None, stop: Stop
) -> Table:
    """The columns `roles` (role → column name) of the file at `path`, called `name` in messages.

    Raises JobError: ColumnMissing, DataInvalid. Of a file that is something else the error says what it is, and of one that is
    written otherwise than the spec says, how to describe it.
    """
    refuse_foreign(path, name, format)
    try:
        if format == "parquet":
            return _read_parquet(path, name, roles, stop)
        if format == "jsonl":
            return _read_json_lines(path, name, roles, stop)
        rows = read_delimited(path, name, roles, csv=csv or Csv(), tabs=format == "tsv", stop=stop)
    except JobError as error:
        raise diagnosed(error, path, name, format, roles, csv or Csv()) from error
    warnings = rows.warnings
    if csv and is_garbled(path, csv.encoding):
        warnings += (
            f"{name} is valid UTF-8 and is read as {csv.encoding}, which garbles every letter beyond ASCII, such as é as Ã©. "
            "If that is not meant, leave out spec.dataset.csv.encoding.",
        )
    return Table(rows.columns, rows.lines, "line", warnings=warnings)


def _read_json_lines(path: Path, name: str, roles: Mapping[str, str], stop: Stop) -> Table:
    columns: dict[str, list[Any]] = {role: [] for role in roles}
    numbers: list[int] = []
    seen: dict[str, None] = {}
    broken: list[str] = []
    wanted = list(roles.items())
    keys = {role: json.dumps(column, ensure_ascii=False) for role, column in wanted}
    for number, line in enumerate(decoded_lines(path, name, "utf-8"), start=1):
        if number % STOP_EVERY == 0:
            stop()
        line = line.lstrip("\ufeff")  # of a file that was put together from several
        if not line or line.isspace():
            continue
        try:
            row = json.loads(line)
            if not isinstance(row, dict):
                raise ValueError(f"{_json_kind(row)}, not an object")
            escaped = "\\u" in line or "\\/" in line  # keys may be, too
            if escaped:
                _check_escapes(row)
            for role, key in keys.items():
                if escaped or line.count(key) > 1:
                    _check_once(line, role, roles[role], f"{name}, line {number}")
        except (ValueError, RecursionError) as error:
            broken.append(f"line {number}: {said_of_json(error)}")
            continue
        if len(numbers) < 1000:
            seen.update(dict.fromkeys(row))
        for role, column in wanted:
            columns[role].append(row.get(column))
        numbers.append(number)
    if broken:
        more = f" and {len(broken) - SHOWN:,} more lines" if len(broken) > SHOWN else ""
        raise data_invalid(
            f"{name} is not JSON lines: {'; '.join(broken[:SHOWN])}{more}",
            'Write one object a line, such as {"text": "…", "label": "…"}, without a list around them.',
        )
    if len(numbers) == 1 and all(isinstance(values[0], (list, dict)) for values in columns.values()):
        raise data_invalid(
            f"{name}, line {numbers[0]}: the one object holds whole columns, not one example",
            'Write one object a line, such as {"text": "…", "label": "…"}; with pandas, to_json(orient="records", lines=True).',
        )
    for role, column in wanted:
        if numbers and column not in seen and all(value is None for value in columns[role]):
            raise column_missing(name, role, column, list(seen))
    return Table(columns, numbers, "line")


def _check_escapes(row: object) -> None:
    """Raises ValueError for strings with lone surrogates, which JSON can write and no tokenizer or file can take."""
    try:
        json.dumps(row, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise ValueError("an escape that is half a character, such as \\ud83d alone") from None


def _check_once(line: str, role: str, column: str, where: str) -> None:
    """The outermost object has this key once. JSON allows more, and then each reader takes another one."""
    # Objects are finished from the inside out: the last one is the outermost.
    keys: list[str] = []

    def note(pairs: list[tuple[str, Any]]) -> None:
        keys[:] = [key for key, _ in pairs]

    json.loads(line, object_pairs_hook=note)
    if keys.count(column) > 1:
        raise columns_repeat(where, role, column, keys.count(column))


def _json_kind(value: object) -> str:
    kinds = {list: "a list", str: "a string", int: "a number", float: "a number", bool: "a boolean", type(None): "null"}
    return kinds[type(value)]


def _read_parquet(path: Path, name: str, roles: Mapping[str, str], stop: Stop) -> Table:
    try:
        with pq.ParquetFile(path) as file:
            schema = file.schema_arrow
            for role, column in roles.items():
                if column not in schema.names:
                    raise column_missing(name, role, column, schema.names)
                if schema.names.count(column) > 1:
                    raise columns_repeat(name, role, column, schema.names.count(column))
            columns: dict[str, list[Any]] = {role: [] for role in roles}
            for batch in file.iter_batches(batch_size=STOP_EVERY, columns=list(roles.values())):
                stop()
                for role, column in roles.items():
                    columns[role].extend(batch.column(column).to_pylist())
    except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
        # Of pages that do not decompress Arrow makes an OSError as well; only the disk's own errors have a number.
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise data_invalid(
            f"{name} is not a readable Parquet file: {' '.join(str(error).split())}",
            "Write the file again, or say spec.dataset.format if it is no Parquet.",
        ) from error
    rows = len(next(iter(columns.values())))
    return Table(columns, range(1, rows + 1), "row", label_names=_class_names(schema, roles["label"]))


def _class_names(schema: pa.Schema, column: str) -> list[str] | None:
    """The label names that `datasets` writes into the schema of its Parquet files."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        names = features[column].get("names")
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError):
        return None
    return [str(label) for label in names] if isinstance(names, list) else None
