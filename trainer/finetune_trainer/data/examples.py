"""What the rest of the trainer sees of the data: checked examples, each of which knows where it came from."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from mmap import MADV_DONTNEED, mmap
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

Stop = Callable[[], None]
"""Called between files and between blocks of rows; raises whatever its owner wants to end the work with."""

Split = Literal["train", "validation", "test", "retention"]

Unit = Literal["line", "row", "file"]
"""What the rows of a file are numbered by; `file` where a file, such as an image, is a row itself."""

HUB_SPLIT = "split "
"""How the name of a hub dataset's split begins where files have theirs."""

Indices = Sequence[int] | NDArray[np.int64]

BLOCK = 1000
"""Rows that are Python's objects at once."""
LARGE = 64 << 20
"""Bytes of such rows at most, where more than one are so large: images have megabytes each."""


@dataclass(frozen=True)
class Origin:
    """Where one row came from. Lines and rows count from 1; a header is line 1, and is no row."""

    file: str
    """Relative to the dataset's URI, or `split NAME` of a hub dataset."""
    unit: Unit
    number: int

    def __str__(self) -> str:
        if self.unit == "file":
            return self.file
        return f"{self.file}, {self.unit} {self.number}"


@dataclass(frozen=True)
class Origins:
    """The origins of many rows, 12 bytes each."""

    files: tuple[str, ...]
    units: tuple[Unit, ...]
    """For each of `files`."""
    file: NDArray[np.int32]
    """For each row, the index of its file."""
    number: NDArray[np.int64]
    """For each row, its line or row number in that file."""

    def __len__(self) -> int:
        return len(self.number)

    def __getitem__(self, row: int) -> Origin:
        index = int(self.file[row])
        return Origin(self.files[index], self.units[index], int(self.number[row]))

    def take(self, rows: Indices) -> Origins:
        return Origins(self.files, self.units, self.file[rows], self.number[rows])


@dataclass(frozen=True)
class Examples:
    """Checked examples of one split, in the order of the data."""

    table: pa.Table
    """One column a role, of the type of its kind: a text is a string that is not empty, a label its position in `Data.names`."""
    origins: Origins
    """As many as the table has rows."""
    maps: tuple[mmap, ...] = ()
    """What of the table is mapped from files. Pages that were read are let go of, and are read again when they are wanted again, so that
    a pass over all rows takes the memory of some of them."""

    def __len__(self) -> int:
        return int(self.table.num_rows)

    @property
    def roles(self) -> tuple[str, ...]:
        """Such as `text`, `textPair` and `label`; a role that the data leaves out is not among them."""
        return tuple(self.table.column_names)

    def column(self, role: str) -> pa.ChunkedArray:
        """All values of a role, where they lie: as Python's objects they may not fit the memory; see `blocks`."""
        return self.table.column(role)

    def numbers(self, role: str) -> NDArray[Any]:
        """The values of a role that are numbers or positions, shape (rows,)."""
        return np.asarray(self.column(role).to_numpy())

    def blocks(self, *roles: str, size: int = BLOCK) -> Iterator[dict[str, list[Any]]]:
        """The values of these roles as Python's objects, by role, at most `size` rows at a time, fewer if they are large."""
        return (batch.to_pydict() for batch in self.batches(*roles, size=size))

    def batches(self, *roles: str, size: int = BLOCK) -> Iterator[pa.RecordBatch]:
        """The same as Arrow has them, where they lie."""
        table = self.table.select(list(roles))
        most = max(1, min(size, LARGE * len(self) // max(1, table.nbytes)))
        read = 0
        for batch in table.to_batches(max_chunksize=most):
            yield batch
            read += batch.nbytes
            if read > LARGE:
                self._let_go()
                read = 0
        self._let_go()

    def _let_go(self) -> None:
        for mapped in self.maps:
            mapped.madvise(MADV_DONTNEED)

    def values(self, role: str) -> Iterator[Any]:
        """The values of one role as Python's objects, one after the other."""
        for block in self.blocks(role):
            yield from block[role]

    def take(self, rows: Indices) -> Examples:
        """The examples at these positions, in this order."""
        return Examples(self.table.take(pa.array(rows, pa.int64())), self.origins.take(rows))
