"""Why a file could not be read as the spec describes it: it is something else, or it is written in another way.

Only asked once reading failed, so that no row of good data is ever taken for a sign of something else.
"""

from __future__ import annotations

import csv as csvlib
import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import islice, product
from pathlib import Path
from typing import Any

from finetune_api.dataset import Csv
from finetune_api.failures import FailureReason, JobError
from finetune_trainer.data.delimited import Dialect, begun
from finetune_trainer.data.encoding import (
    decoded_lines,
    decodes,
    first_beyond_ascii,
    fitting_encoding,
    has_several_encodings,
)
from finetune_trainer.data.foreign import (
    FORMAT_NAMES,
    PARQUET,
    Format,
    conflict_of,
    hole_of,
    is_json_list,
    kind_of,
    text_kind_of,
)
from finetune_trainer.data.problems import data_invalid, listed, nearest, shortened

DELIMITERS = (",", ";", "\t", "|")
RARE_DELIMITERS = (":", " ", "^", "~", "\x01")
"""Believed only where the header then names all wanted columns, and rows are as wide: prose has some of them too."""
QUOTES = ('"', "'", "")
ROWS = 20
"""Rows looked at besides the header."""
LINES = 1000
"""Lines in which they must end."""
ENCODINGS = (
    "windows-1251 (Cyrillic), windows-1250 (Polish, Czech, Hungarian), windows-1254 (Turkish), gb18030 (Chinese), big5 (Chinese, "
    "traditional), shift_jis (Japanese), cp949 (Korean), and others"
)
MOST_NAMES = 12
"""Names of columns shown in an example."""


def refuse_foreign(path: Path, name: str, format: Format) -> None:
    """Raises JobError (DataInvalid) for a file that is certainly of another kind than `format`."""
    kind = kind_of(path)
    if kind is not None and not (kind is PARQUET and format == "parquet"):
        field = "spec.dataset.format" if kind is PARQUET else None
        raise data_invalid(f"{name} is {kind.what}, not {FORMAT_NAMES[format]}", kind.remedy, field)


def diagnosed(error: JobError, path: Path, name: str, format: Format, roles: Mapping[str, str], csv: Csv) -> JobError:
    """A truer error than `error`, with which reading the file as `format` ended, if there is one; else `error` itself."""
    if (kind := text_kind_of(path)) is not None and not _begins_with_a_row(path, format, roles, csv):
        return data_invalid(f"{name} is {kind.what}, not {FORMAT_NAMES[format]}", kind.remedy)
    if format != "parquet" and (line := conflict_of(path)) is not None:
        return conflict(f"{name}, line {line}")
    if format != "parquet" and (line := hole_of(path)) is not None and fitting_encoding(path) != "utf-16":
        return data_invalid(
            f"{name}, line {line}: a stretch of zero bytes, so the file was not written to its end or is damaged",
            "Copy or download it again.",
        )
    if format != "jsonl" and _is_json_lines(path, roles):
        return data_invalid(
            f"{name} holds JSON lines, not {FORMAT_NAMES[format]}",
            "Set spec.dataset.format to jsonl.",
            "spec.dataset.format",
        )
    if format != "jsonl" and is_json_list(path):
        return data_invalid(
            f"{name} holds one JSON list, not {FORMAT_NAMES[format]}",
            "Set spec.dataset.format to jsonl.",
            "spec.dataset.format",
        )
    if format in ("csv", "tsv"):
        return _of_dialect(error, path, roles, csv, tabs=format == "tsv") or _of_header(
            error, path, name, roles, csv, tabs=format == "tsv"
        )
    found = _fitting(path, Dialect.of(Csv(), tabs=False), roles, None)
    if found is None or found.misses:
        if format == "jsonl" and fitting_encoding(path) == "utf-16":
            return data_invalid(f"{name} is UTF-16, not utf-8", "Save the file as UTF-8.")
        return error
    described = _yaml(found.dialect, _default(path, found.dialect.encoding, tabs=False), None)
    return data_invalid(
        f"{name} holds CSV with the columns {listed(found.header)}, not {FORMAT_NAMES[format]}",
        f"Under spec.dataset put: format: csv{f' and {described}' if described else ''}",
        "spec.dataset.format",
    )


def _begins_with_a_row(path: Path, format: Format, roles: Mapping[str, str], csv: Csv) -> bool:
    """Whether the first line has as many values as the spec names columns: a text of markup in a file without a header."""
    if csv.column_names is None:
        return False
    reading = _read(path, _now(path, csv, tabs=format == "tsv"), roles, csv.column_names)
    return reading is not None and bool(reading.rows) and len(reading.rows[0]) == len(csv.column_names)


def conflict(where: str) -> JobError:
    """Git's marks of a conflict at `where`."""
    return data_invalid(
        f"{where}: Git has marked a conflict here that nobody has resolved",
        "Resolve it, or take the file of one side, and put it there.",
    )


def description_that_fits(path: Path, roles: Mapping[str, str]) -> str:
    """`csv: {…}` by which the file would have all wanted columns; empty where there is none, or the default is it."""
    found = _fitting(path, Dialect.of(Csv(), tabs=False), roles, None)
    if found is None or found.misses:
        return ""
    return _yaml(found.dialect, _default(path, found.dialect.encoding, tabs=False), None)


@dataclass(frozen=True)
class Reading:
    """A file as one dialect splits it."""

    dialect: Dialect
    header: list[str]
    rows: list[list[str]]
    misses: int
    """Wanted columns that the header does not name exactly."""

    @property
    def even(self) -> bool:
        """Whether all rows have as many values as the header, and that is more than one."""
        return len(self.header) > 1 and all(len(row) == len(self.header) for row in self.rows)


def _of_dialect(error: JobError, path: Path, roles: Mapping[str, str], csv: Csv, *, tabs: bool) -> JobError | None:
    """Another delimiter, quote or encoding that the file is written with."""
    now = _now(path, csv, tabs=tabs)
    found = _fitting(path, now, roles, csv.column_names)
    if found is None and not decodes(path, now.encoding) and not has_several_encodings(path):
        return JobError(
            error.reason,
            error.message,
            field="spec.dataset.csv.encoding",
            remedy=f"Save the file as UTF-8, or name the encoding that it was written in as spec.dataset.csv.encoding: {ENCODINGS}.",
        )
    if found is None or found.dialect == now:
        return None
    if found.dialect == replace(now, quote=found.dialect.quote) and (
        error.field == "spec.dataset.csv.quoteChar"  # that error says the same, and the line
        or (error.reason is FailureReason.DATA_INVALID and not _is_used(found.dialect, path, roles, csv.column_names))
    ):
        return None
    described = _yaml(found.dialect, _default(path, found.dialect.encoding, tabs=tabs), csv.column_names)
    message = f"{error.message.rstrip('.')}. With {described or 'the defaults'}"
    remedy = f"Under spec.dataset put: {described}" if described else "Leave out spec.dataset.csv"
    if found.misses:
        remedy += " and name its columns in spec.dataset.columns"
    if found.dialect.encoding != now.encoding and (line := first_beyond_ascii(path, found.dialect.encoding)):
        # Whether that is right only people can see.
        message += f" line {line[0]} reads {shortened(line[1])}, and"
        if found.dialect.encoding in ("cp1252", "latin-1"):
            remedy += ", if that line reads right; else name the encoding that the file was written in"
    if found.misses:
        meant = "".join(nearest(column, found.header) for column in roles.values())
        message += f" its columns are {_few(found.header)}.{meant}"
        remedy += ". If the first line is no header, add columnNames to csv"
    else:
        message += f" its columns are {listed(found.header)}"
    return JobError(error.reason, message, field="spec.dataset.csv", remedy=remedy)


def _is_used(dialect: Dialect, path: Path, roles: Mapping[str, str], names: list[str] | None) -> bool:
    """Whether some value stands in the dialect's quotes. Any file can be read with quotes that it does not have."""
    bare = _read(path, replace(dialect, quote=""), roles, names)
    values = [value for row in (bare.header, *bare.rows) for value in row] if bare else []
    return bool(dialect.quote) and any(value.startswith(dialect.quote) for value in values)


def _of_header(error: JobError, path: Path, name: str, roles: Mapping[str, str], csv: Csv, *, tabs: bool) -> JobError:
    """That the first line is no header, where it names no wanted column; else `error`."""
    if error.reason is not FailureReason.COLUMN_MISSING or csv.column_names is not None:
        return error
    reading = _read(path, _now(path, csv, tabs=tabs), roles, None)
    if (
        reading is None
        or reading.misses < len(roles)
        or any(nearest(column, reading.header) for column in roles.values())
    ):
        return error
    number = len(reading.header)
    values = f"its {number} values are {_few(reading.header)}" if number > 1 else f"it is {_few(reading.header)}"
    said = f"{name}: the first line, which is read as the header, names none of the columns {listed(roles.values())}; {values}"
    for line, row in _numbered(path, reading.dialect):
        if all(row.count(column) == 1 for column in roles.values()):
            return JobError(
                error.reason,
                f"{said}; line {line} names them all",
                field=error.field,
                remedy=f"Remove the lines above line {line}, which are no part of the table.",
            )
    example = list(roles.values()) if number == len(roles) else [f"column{place}" for place in range(1, number + 1)]
    described = _yaml(reading.dialect, _default(path, reading.dialect.encoding, tabs=tabs), example[:MOST_NAMES])
    return JobError(
        error.reason,
        said,
        field=error.field,
        remedy=f"If it is the header, name its columns in spec.dataset.columns. If it is no header, name all {number} columns in "
        f"their order; under spec.dataset put: {described}",
    )


def _numbered(path: Path, dialect: Dialect) -> Iterator[tuple[int, list[str]]]:
    """The first rows, each with the line that it ends on."""
    with suppress(JobError, csvlib.Error):
        rows = dialect.rows(islice(decoded_lines(path, path.name, dialect.encoding), ROWS))
        for row in rows:
            yield rows.line_num, row


def _default(path: Path, encoding: str, *, tabs: bool) -> Dialect:
    """How the file would be split if the spec said nothing: the file itself may say its delimiter."""
    return replace(_now(path, Csv.model_validate({"encoding": encoding}), tabs=tabs), encoding=Csv().encoding)


def _now(path: Path, csv: Csv, *, tabs: bool) -> Dialect:
    """How the file is split today."""
    try:
        return begun(decoded_lines(path, path.name, csv.encoding), csv, tabs=tabs)[0]
    except JobError:
        return Dialect.of(csv, tabs=tabs)


def _few(values: list[str]) -> str:
    """The beginnings of a few: a line that is no header holds texts."""
    shown = ", ".join(shortened(value, 30) for value in values[:4])
    return shown if len(values) <= 4 else f"{shown} and {len(values) - 4:,} more"


def _fitting(path: Path, now: Dialect, roles: Mapping[str, str], names: list[str] | None) -> Reading | None:
    """The reading whose header names most of the wanted columns, that of `now` before any other."""
    # What the spec says may be right although another encoding fits as well: any byte is a letter to many.
    encodings = [now.encoding] if decodes(path, now.encoding) else []
    if (fitting := fitting_encoding(path)) is not None and fitting not in encodings:
        encodings.append(fitting)
    best: Reading | None = None
    for encoding, delimiter, quote in product(
        encodings, dict.fromkeys((now.delimiter, *DELIMITERS, *RARE_DELIMITERS)), dict.fromkeys((now.quote, *QUOTES))
    ):
        if quote == delimiter:
            continue
        reading = _read(path, Dialect(delimiter, quote, encoding), roles, names)
        if reading is None or (delimiter in RARE_DELIMITERS and (reading.misses or names or not reading.even)):
            continue
        if best is None or _rank(reading) > _rank(best):
            best = reading
    return best


def _rank(reading: Reading) -> tuple[int, bool]:
    return -reading.misses, reading.even


def _read(path: Path, dialect: Dialect, roles: Mapping[str, str], names: list[str] | None) -> Reading | None:
    """The first rows; None where they cannot be read so."""
    try:
        lines = begun(islice(decoded_lines(path, path.name, dialect.encoding), LINES), Csv(), tabs=False)[1]
        rows = list(islice(filter(None, dialect.rows(lines)), ROWS + 1))
    except (JobError, csvlib.Error):
        return None
    header = names or (rows.pop(0) if rows else [])
    return Reading(dialect, header, rows, sum(header.count(column) != 1 for column in roles.values()))


def _yaml(found: Dialect, default: Dialect, names: list[str] | None) -> str:
    """`csv: {delimiter: ";"}`: what the spec has to say for this dialect and these column names; nothing for the default."""
    said = {"delimiter": found.delimiter, "quoteChar": found.quote, "encoding": found.encoding}
    usual = {"delimiter": default.delimiter, "quoteChar": default.quote, "encoding": default.encoding}
    fields: dict[str, Any] = {key: value for key, value in said.items() if value != usual[key]}
    if names:
        fields["columnNames"] = names
    # Strings and lists of JSON are YAML as well.
    inside = ", ".join(f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in fields.items())
    return f"csv: {{{inside}}}" if fields else ""


def _is_json_lines(path: Path, roles: Mapping[str, str]) -> bool:
    try:
        for line in islice(decoded_lines(path, path.name, "utf-8"), ROWS):
            if line.strip():
                row = json.loads(line)
                return isinstance(row, dict) and all(column in row for column in roles.values())
    except (JobError, ValueError, RecursionError):
        pass
    return False
