"""The readers there are, each with a writer of the same rows, so that one table of faults is tried on all of them."""

from __future__ import annotations

import csv as csvlib
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq


@dataclass(frozen=True)
class Reader:
    extension: str
    write: Callable[[Sequence[str], Sequence[Sequence[Any]]], bytes]
    """Columns and rows as a file. Raises where the format cannot say so."""
    first: int
    """The number that the first row has in messages."""
    unit: str

    @property
    def file(self) -> str:
        return f"train.{self.extension}"


def _delimited(delimiter: str) -> Callable[[Sequence[str], Sequence[Sequence[Any]]], bytes]:
    def write(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> bytes:
        text = io.StringIO()
        quoting = csvlib.QUOTE_MINIMAL if delimiter == "," else csvlib.QUOTE_NONE
        writer = csvlib.writer(text, delimiter=delimiter, quoting=quoting, lineterminator="\n")
        writer.writerow(columns)
        for row in rows:
            if any(isinstance(value, (list, dict)) for value in row):
                raise TypeError("no lists in delimited text")
            writer.writerow(row)
        return text.getvalue().encode()

    return write


def _json_lines(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> bytes:
    lines = []
    for row in rows:
        pairs = zip(columns, row, strict=True)
        inside = ", ".join(f"{json.dumps(name)}: {json.dumps(value)}" for name, value in pairs)
        lines.append(f"{{{inside}}}")
    return "".join(f"{line}\n" for line in lines).encode()


def _parquet(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> bytes:
    arrays = [pa.array([row[place] for row in rows]) for place in range(len(columns))]
    file = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_arrays(arrays, names=list(columns)), file)
    return file.getvalue().to_pybytes()


READERS = (
    Reader("csv", _delimited(","), first=2, unit="line"),
    Reader("tsv", _delimited("\t"), first=2, unit="line"),
    Reader("jsonl", _json_lines, first=1, unit="line"),
    Reader("ndjson", _json_lines, first=1, unit="line"),
    Reader("parquet", _parquet, first=1, unit="row"),
)
