"""Rows on their way from files to examples: batch by batch into a file of the workspace, which is then mapped into memory.

So what a split takes of memory is a batch, and a few bytes for each row; what it takes of the disk is about what its values take.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from mmap import ACCESS_READ, mmap
from pathlib import Path
from posixpath import dirname
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from finetune_trainer.data.beside import Beside
from finetune_trainer.data.examples import Examples, Origins, Split, Unit
from finetune_trainer.data.kinds import Kinds, Values
from finetune_trainer.data.loaded import Source
from finetune_trainer.data.problems import data_invalid

MOST = 1 << 16
"""Rows of one batch."""
FIRST = 1 << 10
"""Rows of a file's first batch, by which the others are measured."""
LARGE = 32 << 20
"""Bytes of a batch that is no larger than it need be."""

OwnNames = Mapping[str, Sequence[str]]
"""By role, the names that a file tells of its whole numbers."""


class Sink(Protocol):
    """Where a reader puts rows."""

    def __call__(self, columns: Mapping[str, Sequence[Any] | pa.Array], numbers: Sequence[int]) -> int:
        """Take these values by role, and the line or row number of each; returns how many rows to bring next."""
        ...


@dataclass(frozen=True)
class Rows:
    """All rows of one split as they were read, not yet checked."""

    split: Split
    values: Mapping[str, Values]
    """By role."""
    table: pa.Table
    """The columns of the kinds that keep none themselves."""
    maps: tuple[mmap, ...]
    """What the table is mapped from, where it is a file of the workspace."""
    origins: Origins
    own_names: Sequence[OwnNames]
    """For each of `origins.files`."""

    def check(self) -> None:
        """There is a row, and each has values that its kinds take. Raises JobError (DataInvalid)."""
        if not len(self.origins):
            where = f": {', '.join(self.origins.files)}" if self.origins.files else ""
            raise data_invalid(
                f"the {self.split} split has no rows{where}",
                "Give it rows, or name other files or another split.",
                f"spec.dataset.splits.{self.split}",
            )
        for values in self.values.values():
            values.check(self.table, self.origins)

    def warnings(self) -> list[str]:
        """What is odd about values and no error."""
        return [warning for values in self.values.values() for warning in values.warnings()]

    def names_of(self, role: str) -> list[Sequence[str] | None]:
        """For each file, the names that it tells of the whole numbers of this role."""
        return [names.get(role) for names in self.own_names]

    def examples(self, named: Mapping[str, pa.Array]) -> Examples:
        """With these columns of the kinds that keep them until they know their names."""
        kept = [role for role in self.values if role in named or role in self.table.column_names]
        columns = {role: named[role] if role in named else self.table.column(role) for role in kept}
        return Examples(pa.table(columns), self.origins, self.maps)

    def sources(self) -> list[Source]:
        """Files; of files that are rows themselves their folders."""
        if "file" in self.origins.units:
            folders = Counter(f"{dirname(name)}/" for name in self.origins.files)
            return [Source(self.split, folder, count) for folder, count in folders.items()]
        counts = np.bincount(self.origins.file, minlength=len(self.origins.files))
        return [Source(self.split, name, int(count)) for name, count in zip(self.origins.files, counts, strict=True)]


class RowsWriter:
    """Takes the rows of one split, file after file."""

    def __init__(
        self, split: Split, kinds: Kinds, columns: Mapping[str, str], path: Path, beside: Beside, separator: str | None
    ) -> None:
        self.split = split
        self._values = {role: kind(role, columns[role], split) for role, kind in kinds.items()}
        for values in self._values.values():
            values.beside, values.others, values.separator = beside, self._values, separator
        self._table = TableWriter(path)
        self._mapped: pa.Table | None = None
        self._numbers: list[NDArray[np.int64]] = []
        self._files: list[tuple[str, Unit, int, OwnNames]] = []
        self._rows = 0

    def __call__(self, columns: Mapping[str, Sequence[Any] | pa.Array], numbers: Sequence[int]) -> int:
        none = [None] * len(numbers)  # of a role that this file has no column of
        read = {role: values.read(columns.get(role, none)) for role, values in self._values.items()}
        written = {role: array for role, array in read.items() if array is not None}
        self._count(numbers)
        return next_batch(len(numbers), self._table.write(pa.record_batch(written)))

    def map(self, table: pa.Table) -> None:
        """Take the rows of a table that is mapped already, columns called by role: they stay there where all kinds take them so."""
        there = {role: values for role, values in self._values.items() if role in table.column_names}
        stays = all(values.takes(table.schema.field(role).type) for role, values in there.items())
        begin = 1
        for batch in table.to_batches(max_chunksize=MOST):
            numbers = range(begin, begin + len(batch))
            columns = {role: batch.column(role) for role in there}
            if stays:
                kept = [role for role, values in there.items() if values.read(columns[role]) is not None]
                self._mapped = table.select(kept)
                self._count(numbers)
            else:
                self(columns, numbers)
            begin += len(batch)

    def _count(self, numbers: Sequence[int]) -> None:
        self._numbers.append(np.array(numbers, np.int64))
        self._rows += len(numbers)

    def file(self, name: str, unit: Unit, own_names: OwnNames) -> int:
        """All since the last file was of this one. Returns how many rows they are."""
        rows = self._rows - sum(count for *_, count, _ in self._files)
        self._files.append((name, unit, rows, own_names))
        return rows

    def files(self, names: Sequence[str]) -> None:
        """All since the last file are these files themselves, a row each."""
        self._files += [(name, "file", 1, {}) for name in names]

    def finish(self) -> Rows:
        origins = Origins(
            files=tuple(name for name, *_ in self._files),
            units=tuple(unit for _, unit, *_ in self._files),
            file=np.repeat(np.arange(len(self._files), dtype=np.int32), [rows for _, _, rows, _ in self._files]),
            number=np.concatenate([np.empty(0, np.int64), *self._numbers]),
        )
        table, maps = self._table.finish() if self._mapped is None else (self._mapped, ())
        return Rows(self.split, self._values, table, maps, origins, [names for *_, names in self._files])


class TableWriter:
    """Record batches into a file, which is then mapped."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._writer: pa.RecordBatchFileWriter | None = None

    def write(self, batch: pa.RecordBatch) -> int:
        """Returns its bytes."""
        if self._writer is None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._path.unlink(missing_ok=True)  # examples of an earlier reading may still be mapped from it
            self._file = self._path.open("wb")  # Python's, whose errors have the system's number
            self._writer = pa.ipc.new_file(self._file, batch.schema)
        self._writer.write_batch(batch)
        return int(batch.nbytes)

    def finish(self) -> tuple[pa.Table, tuple[mmap, ...]]:
        """All that was written, and what it is mapped from; without columns if nothing was."""
        if self._writer is None:
            return pa.table({}), ()
        self._writer.close()
        self._file.close()
        with self._path.open("rb") as file:
            mapped = mmap(file.fileno(), 0, access=ACCESS_READ)
        return pa.ipc.open_file(pa.py_buffer(mapped)).read_all(), (mapped,)


def next_batch(rows: int, size: int) -> int:
    """How many rows the next batch may have if they are like these, which took `size` bytes."""
    return max(1, min(MOST, LARGE * rows // max(1, size)))


def some_of(examples: Examples, chosen: NDArray[np.bool_], path: Path) -> Examples:
    """The chosen ones of them in their order, written to a file and mapped."""
    writer, begin = TableWriter(path), 0
    for batch in examples.batches(*examples.roles, size=MOST):
        writer.write(batch.filter(pa.array(chosen[begin : begin + len(batch)])))
        begin += len(batch)
    table, maps = writer.finish()
    return Examples(table, examples.origins.take(np.flatnonzero(chosen)), maps)
