"""Files as columns of values: delimited text, JSON, Parquet.

Delimited text and JSON are read in one pass by Python's own C parsers. Arrow's reader takes two thirds of the time for
the same columns as Python strings, but knows no line numbers and takes stray quotes for granted.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from finetune_api.dataset import Csv
from finetune_api.failures import FailureReason, JobError
from finetune_trainer.data.conll import read_conll
from finetune_trainer.data.delimited import read_delimited
from finetune_trainer.data.diagnosis import diagnosed, refuse_foreign
from finetune_trainer.data.encoding import is_encodable, is_garbled
from finetune_trainer.data.examples import Stop, Unit
from finetune_trainer.data.foreign import Format
from finetune_trainer.data.json_rows import JsonRows
from finetune_trainer.data.problems import SHOWN, column_missing, columns_repeat, data_invalid, said_of_json
from finetune_trainer.data.rows import FIRST, MOST, OwnNames, Sink, next_batch
from finetune_trainer.data.squad import read_squad

EXTENSIONS: dict[str, Format] = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
}

_NEVER_ESCAPED = re.compile(r"[\w .-]+", re.ASCII)
"""Characters that every writer of JSON leaves as they are."""

BUFFER = 1 << 20
"""Bytes that are read of a column of a Parquet file at once."""


@dataclass(frozen=True)
class Told:
    """What a file tells besides its rows."""

    unit: Unit
    """What its rows are numbered by."""
    own_names: OwnNames
    warnings: tuple[str, ...] = ()


def read_table(
    path: Path,
    name: str,
    format: Format,
    roles: Mapping[str, str],
    into: Sink,
    *,
    csv: Csv | None,
    stop: Stop,
    lists: Collection[str] = (),
) -> Told:
    """Put the columns `roles` (role → column name) of the file at `path`, called `name` in messages, `into` where they go.

    Delimited text gives strings; JSON and Parquet what they hold, None for null. `lists` are the roles whose values are lists.

    Raises JobError: ColumnMissing, DataInvalid. Of a file that is something else the error says what it is, and of one that is
    written otherwise than the spec says, how to describe it.
    """
    refuse_foreign(path, name, format)
    try:
        if format == "parquet":
            return _read_parquet(path, name, roles, into, stop)
        if format == "jsonl":
            return _read_json(JsonRows(path, name), name, roles, lists, into, stop)
        if format == "conll":
            read_conll(path, name, roles, into, stop)
            return Told("line", {})
        if format == "squad":
            read_squad(path, name, roles, into, stop)
            return Told("row", {})
        warnings = read_delimited(path, name, roles, into, csv=csv or Csv(), tabs=format == "tsv", stop=stop)
    except JobError as error:
        raise diagnosed(error, path, name, format, roles, csv or Csv()) from error
    if csv and is_garbled(path, csv.encoding):
        warnings += (
            f"{name} is valid UTF-8 and is read as {csv.encoding}, which garbles every letter beyond ASCII, such as é as Ã©. "
            "If that is not meant, leave out spec.dataset.csv.encoding.",
        )
    return Told("line", {}, warnings)


class _Enough(Exception):
    """The first rows are seen."""


def columns_there(
    path: Path, name: str, format: Format, columns: Collection[str], *, csv: Csv | None, stop: Stop
) -> frozenset[str]:
    """Which of these columns a file with rows has, of JSON those with a value in some of them. What else is wrong with it is not
    asked: then it has them all."""
    if format == "jsonl":
        try:
            refuse_foreign(path, name, format)
            return _json_has(JsonRows(path, name), columns, stop)
        except JobError:
            return frozenset(columns)

    def look(columns: Mapping[str, Sequence[Any] | pa.Array], numbers: Sequence[int]) -> int:
        raise _Enough

    found = set()
    for column in columns:
        try:
            read_table(path, name, format, {"text": column}, look, csv=csv, stop=stop)
        except _Enough:
            found.add(column)
        except JobError as error:
            if error.reason is not FailureReason.COLUMN_MISSING:
                found.add(column)
    return frozenset(found)


def _json_has(rows: JsonRows, columns: Collection[str], stop: Stop) -> frozenset[str]:
    """A row may leave out what another one has, so all of them are looked at; only those are parsed that may have a column that was not
    seen yet."""
    missing = {column: _written(column) for column in columns}
    for number, line in rows:
        if number % MOST == 0:
            stop()
        if not any(key in line for key in missing.values()):
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            return frozenset(columns)  # it will be said
        found = row if isinstance(row, dict) else {}
        missing = {column: key for column, key in missing.items() if found.get(column) is None}
        if not missing:
            break
    return frozenset(columns) - missing.keys()


def _written(column: str) -> str:
    """What stands in a line of JSON that has this key: nothing certain of one that may be written with escapes."""
    return f'"{column}"' if _NEVER_ESCAPED.fullmatch(column) else ""


def _read_json(
    rows: JsonRows, name: str, roles: Mapping[str, str], lists: Collection[str], into: Sink, stop: Stop
) -> Told:
    columns: dict[str, list[Any]] = {role: [] for role in roles}
    numbers: list[int] = []
    limit, count = FIRST, 0
    seen: dict[str, None] = {}
    null = set(roles)  # the roles that were nothing but null so far
    broken: list[str] = []
    wanted = list(roles.items())
    keys = {role: json.dumps(column, ensure_ascii=False) for role, column in wanted}
    for number, line in rows:
        if len(numbers) == limit:
            stop()
            null -= {role for role in null if any(value is not None for value in columns[role])}
            limit = into(columns, numbers)
            columns, numbers = {role: [] for role in roles}, []
        if not line or line.isspace():
            continue
        try:
            row = json.loads(line)
            if not isinstance(row, dict):
                raise ValueError(f"{_json_kind(row)}, not an object")
            escaped = "\\u" in line or "\\/" in line  # keys may be, too
            if escaped and not is_encodable(row):
                raise ValueError("an escape that is half a character, such as \\ud83d alone")
            for role, key in keys.items():
                if escaped or line.count(key) > 1:
                    _check_once(line, role, roles[role], f"{name}, {rows.unit} {number}")
        except (ValueError, RecursionError) as error:
            broken.append(f"{rows.unit} {number}: {said_of_json(error)}")
            continue
        count += 1
        if count <= 1000:
            seen.update(dict.fromkeys(row))
        for role, column in wanted:
            columns[role].append(row.get(column))
        numbers.append(number)
    if broken:
        more = f" and {len(broken) - SHOWN:,} more {rows.unit}s" if len(broken) > SHOWN else ""
        raise data_invalid(
            f"{name} is not {'JSON lines' if rows.unit == 'line' else 'one list of objects'}: {'; '.join(broken[:SHOWN])}{more}",
            'Write one object a line, such as {"text": "…", "label": "…"}, or all of them in one list.',
        )
    single = [values[0] for role, values in columns.items() if role not in lists] if count == 1 else []
    if single and all(isinstance(value, (list, dict)) for value in single):
        raise data_invalid(
            f"{name}, {rows.unit} {numbers[0]}: the one object holds whole columns, not one example",
            'Write one object a line, such as {"text": "…", "label": "…"}; with pandas, to_json(orient="records", lines=True).',
        )
    for role, column in wanted:
        if count and column not in seen and role in null and all(value is None for value in columns[role]):
            is_squad = {"data"} <= seen.keys() <= {"data", "version"}
            hint = " If it is the nested JSON of SQuAD, set spec.dataset.format to squad." if is_squad else ""
            raise column_missing(name, role, column, list(seen), hint=hint)
    if numbers:
        into(columns, numbers)
    return Told(rows.unit, {})


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


def _read_parquet(path: Path, name: str, roles: Mapping[str, str], into: Sink, stop: Stop) -> Told:
    try:
        with pq.ParquetFile(path, buffer_size=BUFFER) as file:
            schema = file.schema_arrow
            for role, column in roles.items():
                if column not in schema.names:
                    raise column_missing(name, role, column, schema.names)
                if schema.names.count(column) > 1:
                    raise columns_repeat(name, role, column, schema.names.count(column))
            rows = 0
            for batch in file.iter_batches(batch_size=_rows_at_once(file), columns=list(roles.values())):
                stop()
                into(
                    {role: batch.column(column) for role, column in roles.items()},
                    range(rows + 1, rows + len(batch) + 1),
                )
                rows += len(batch)
    except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
        # Of pages that do not decompress Arrow makes an OSError as well; only the disk's own errors have a number.
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise data_invalid(
            f"{name} is not a readable Parquet file: {' '.join(str(error).split())}",
            "Write the file again, or say spec.dataset.format if it is no Parquet.",
        ) from error
    return Told("row", _class_names(schema, roles))


def _rows_at_once(file: pq.ParquetFile) -> int:
    """So many that a batch is not much larger than it need be."""
    groups = [file.metadata.row_group(group) for group in range(file.metadata.num_row_groups)]
    return min((next_batch(group.num_rows, group.total_byte_size) for group in groups if group.num_rows), default=FIRST)


def _class_names(schema: pa.Schema, roles: Mapping[str, str]) -> OwnNames:
    """The label names that `datasets` writes into the schema of its Parquet files."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
    except (KeyError, TypeError, ValueError, RecursionError):
        return {}
    found = (
        {role: class_names(features.get(column)) for role, column in roles.items()}
        if isinstance(features, dict)
        else {}
    )
    return {role: names for role, names in found.items() if names is not None}


def class_names(feature: object) -> list[str] | None:
    """The names of a feature as `datasets` writes it: those of a class label, or of a list of them."""
    while isinstance(feature, list) or (isinstance(feature, dict) and isinstance(feature.get("feature"), (dict, list))):
        feature = (feature[0] if len(feature) == 1 else None) if isinstance(feature, list) else feature["feature"]
    names = feature.get("names") if isinstance(feature, dict) else None
    return [str(label) for label in names] if isinstance(names, list) else None
