"""Features of unequal length, all values end to end in files that are mapped: of any size, at 4 bytes a value."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

AT_ONCE = 2**20
"""Values that are looked at together."""


@dataclass(frozen=True)
class Ragged:
    """Features of tokens, as `tasks.base.Features` asks for them."""

    along: Mapping[str, NDArray[np.int32]]
    """What has a value a token, such as `input_ids`, by name; shape (all tokens,), mapped."""
    starts: NDArray[np.int64]
    """Where each feature begins, and the end of the last; shape (features + 1,)."""
    fixed: Mapping[str, NDArray[Any]]
    """What has a value a feature, such as `labels`, by name; the first axis is that of the features."""
    weights: NDArray[np.float64]
    rows: NDArray[np.int64]
    notes: tuple[str, ...] = ()
    decodes: ClassVar[bool] = False

    @property
    def costs(self) -> NDArray[np.int64]:
        """Tokens of each feature."""
        return np.diff(self.starts)

    def distinct(self, name: str) -> NDArray[np.int64]:
        """The different values of what has one a token and is never negative, ascending."""
        values = self.along[name]
        seen = np.zeros(int(values.max()) + 1, dtype=np.bool_)
        for begin in range(0, len(values), AT_ONCE):  # as indices they take twice the memory
            seen[values[begin : begin + AT_ONCE]] = True
        return np.flatnonzero(seen)

    def get(self, index: int, draw: np.random.Generator) -> dict[str, Any]:
        part = slice(self.starts[index], self.starts[index + 1])
        return {
            **{name: values[part] for name, values in self.along.items()},
            **{name: values[index] for name, values in self.fixed.items()},
        }


class OnDisk:
    """One long array, written in parts and mapped at the end. Its file has no name: it is gone with the process."""

    def __init__(self, folder: Path) -> None:
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115  # the map outlives it
        self._values = 0

    def add(self, rows: Iterable[Iterable[int]]) -> None:
        """Append these, one after the other."""
        part = np.concatenate([np.asarray(row, dtype=np.int32) for row in rows])
        self._values += len(part)
        self._file.write(part.tobytes())

    def mapped(self) -> NDArray[np.int32]:
        """All values, shape (values,), read-only. Nothing can be added any more."""
        with self._file:
            self._file.flush()
            if not self._values:
                return np.empty(0, dtype=np.int32)  # nothing cannot be mapped
            return np.asarray(np.memmap(self._file, dtype=np.int32, mode="r", shape=(self._values,)))


def cut_at(number: int, what: str, length: str) -> str:
    """How many are cut, as a note of features: `12 examples are cut at 512 tokens`."""
    if not number:
        return f"no {what} is cut at {length}"
    return f"{number:,} {what}s are cut at {length}" if number > 1 else f"1 {what} is cut at {length}"
