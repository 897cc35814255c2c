"""Objects for another process of this machine, in a file: what they have mapped from files, it maps from the same files.

So rows lie in memory once, however many processes read them, and nothing large is copied. Reading such a file can run any code: it is for a
folder that nobody but this user may write to.
"""

from __future__ import annotations

import os
import pickle
from collections.abc import Iterator
from dataclasses import dataclass
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from finetune_trainer.cgroups import text_of
from finetune_trainer.data.examples import Examples

SMALL = 4096
"""Bytes that are rather copied."""
_LENGTH = 8
"""Bytes at the end of the file that say where its first part ends."""


def dump(value: object, file: Path) -> None:
    """Write it. What is mapped must stay as it is while others read it."""
    with file.open("wb") as opened:
        pickler = _Pickler(opened)
        pickler.dump(value)
        end = opened.tell()
        pickle.dump(pickler.mapped, opened)
        opened.write(end.to_bytes(_LENGTH, "little"))


def load(file: Path) -> Any:
    """What `dump` wrote there."""
    with file.open("rb") as opened:
        opened.seek(-_LENGTH, os.SEEK_END)
        opened.seek(int.from_bytes(opened.read(_LENGTH), "little"))
        mapped: list[_Part] = pickle.load(opened)  # noqa: S301, our own user wrote it
        opened.seek(0)
        return _Unpickler(opened, mapped).load()


@dataclass(frozen=True)
class _Part:
    """A part of a file."""

    path: str
    begin: int
    size: int


@dataclass(frozen=True)
class _Map:
    """Stands for a file that is mapped as a whole."""

    path: str


class _Pickler(pickle.Pickler):
    def __init__(self, file: BinaryIO) -> None:
        super().__init__(file, protocol=5, buffer_callback=self._copies)
        self._regions = list(_regions())
        self.mapped: list[_Part] = []
        """The buffers that are left out, in their order."""

    def _copies(self, buffer: pickle.PickleBuffer) -> bool:
        """Whether the content of a buffer goes into the file."""
        try:
            content = np.frombuffer(buffer.raw(), np.uint8)
        except BufferError:  # with gaps, which no mapped column has
            return True
        part = self._part(content) if content.size >= SMALL else None
        if part is not None:
            self.mapped.append(part)
        return part is None

    def _part(self, content: np.ndarray[Any, np.dtype[np.uint8]]) -> _Part | None:
        """Of which file this is mapped; None where it lies in memory alone."""
        begin = content.ctypes.data
        for region in self._regions:
            if region.begin <= begin and begin + content.size <= region.end:
                return _Part(region.path, region.offset + begin - region.begin, content.size)
        return None

    def reducer_override(self, value: object) -> Any:
        if not isinstance(value, Examples):
            return NotImplemented
        parts = [self._part(np.frombuffer(mapped, np.uint8)) for mapped in value.maps]
        return Examples, (value.table, value.origins, tuple(_Map(part.path) for part in parts if part is not None))

    def persistent_id(self, value: object) -> str | None:
        return value.path if isinstance(value, _Map) else None


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: BinaryIO, mapped: list[_Part]) -> None:
        super().__init__(file, buffers=(self._buffer(part) for part in mapped))
        self._maps: dict[str, mmap] = {}

    def _buffer(self, part: _Part) -> memoryview:
        return memoryview(self.persistent_load(part.path))[part.begin : part.begin + part.size]

    def persistent_load(self, path: str) -> mmap:
        if path not in self._maps:
            with Path(path).open("rb") as file:
                self._maps[path] = mmap(file.fileno(), 0, access=ACCESS_READ)
        return self._maps[path]


@dataclass(frozen=True)
class _Region:
    """Addresses of this process at which a file is mapped from `offset` on."""

    begin: int
    end: int
    offset: int
    path: str


def _regions() -> Iterator[_Region]:
    """Those of files that are still there, and that this process cannot have changed for itself alone. None where the system does not tell."""
    for line in text_of(Path("/proc/self/maps")).splitlines():
        addresses, may, offset, _, _, *path = line.split(maxsplit=5)
        if path and path[0].startswith("/") and not path[0].endswith(" (deleted)") and "w" not in may:
            begin, end = (int(address, 16) for address in addresses.split("-"))
            yield _Region(begin, end, int(offset, 16), path[0])
