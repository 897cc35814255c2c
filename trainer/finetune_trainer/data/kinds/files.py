"""Values that are files, such as images and sounds: the content of one, or its path.

All of them are decoded once before any training, so that one that is broken is told with its row. They are decoded again whenever they
are looked at: what is in them would take ten times the room.
"""

from __future__ import annotations

import hashlib
import re
from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from xxhash import xxh3_64_intdigest

from finetune_trainer.data.bad_file import BadFile
from finetune_trainer.data.examples import Origin, Origins, Split
from finetune_trainer.data.kinds.values import Values
from finetune_trainer.data.problems import SHOWN, at, data_invalid, rows_of, shortened
from finetune_trainer.threads import available_threads

Source = bytes | Path
"""The content of a file, or where it lies."""

TOGETHER = 256
"""Files that are decoded between two looks at the stop signal."""

_BASE64 = re.compile(r"(?:data:[^,]*;base64,)?[A-Za-z0-9+/\s]{64,}={0,2}\s*")
"""Too long for a path without a point in it."""

TYPE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
"""As `datasets` keeps images and sounds: a file's content, or where it lies. Beside a content the path is but a name."""


@dataclass(frozen=True)
class Unusable:
    """Why a value cannot be used."""

    says: str
    """Half a sentence about it, such as `is a web page (HTML)`."""
    remedy: str


class Files(Values):
    """A kind of file."""

    type: ClassVar[pa.DataType] = TYPE
    notes: ClassVar[tuple[tuple[str, str], ...]] = ()
    """Attributes of what `look` gives, and what to know of files that have them."""

    def __init__(self, role: str, column: str, split: Split) -> None:
        super().__init__(role, column, split)
        self._bad = 0
        self._shown: list[tuple[int, Unusable]] = []
        """The rows of the first few bad ones."""
        self._noted = dict.fromkeys((name for name, _ in self.notes), 0)

    @staticmethod
    @abstractmethod
    def look(source: Source) -> Any:
        """What there is to know of a file, all of which is decoded for it. Raises BadFile. Called from other threads, too."""

    def read(self, values: Sequence[Any] | pa.Array) -> pa.Array:
        values = values.to_pylist() if isinstance(values, pa.Array) else values
        sources = self._located([self._named(value) for value in values])
        for begin in range(0, len(sources), TOGETHER):
            self.beside.stop()
            with ThreadPoolExecutor(available_threads()) as threads:
                looks = list(threads.map(self._look, sources[begin : begin + TOGETHER]))
            for row, look in enumerate(looks, start=self.rows + begin):
                if isinstance(look, Unusable):
                    self._add_bad(row, look)
                else:
                    for name in self._noted:
                        self._noted[name] += getattr(look, name)
        self.rows += len(values)
        return pa.array([_as_struct(source) for source in sources], self.type)

    def _look(self, source: Source | Unusable) -> Any:
        if isinstance(source, Unusable):
            return source
        try:
            return self.look(source)
        except BadFile as error:
            return Unusable(str(error), error.remedy)

    def _named(self, value: Any) -> bytes | str | Unusable:
        """Content or path of a file, as a table has it."""
        if isinstance(value, Mapping) and value.keys() & {"bytes", "path"}:
            content = value.get("bytes")
            value = value.get("path") if content is None else content
        if isinstance(value, bytes):
            return value
        if isinstance(value, str) and value.strip():
            return value
        if value is None or isinstance(value, str):
            article = "an" if self.noun[0] in "aeiou" else "a"
            return Unusable("is missing", f"Give these rows {article} {self.noun}, or remove them.")
        return Unusable(
            f"is neither the content of a file nor the path of one, such as {shortened(value)}",
            "Name a column of paths, or in Parquet of files' contents.",
        )

    def _located(self, named: list[bytes | str | Unusable]) -> list[Source | Unusable]:
        """With the local path of each file in the place of the path that a row has."""
        paths = [path for path in named if isinstance(path, str)]
        found = iter(self.beside.find(paths) if paths else ())

        def locate(path: str) -> Source | Unusable:
            local = next(found)
            if isinstance(local, Path):
                return local
            if _BASE64.fullmatch(path):
                return Unusable(
                    f"is the content of a file, written as text (base64): {shortened(path, 30)}",
                    "Write the files themselves and their paths into the table, or in Parquet their bytes.",
                )
            return Unusable(
                f"is {shortened(path)}, which {local}",
                f"Paths are relative to the file that names them: put the {self.noun} there, correct the path, or remove the row.",
            )

        return [locate(one) if isinstance(one, str) else one for one in named]

    def _add_bad(self, row: int, bad: Unusable) -> None:
        self._bad += 1
        if len(self._shown) < SHOWN:
            self._shown.append((row, bad))

    def check(self, table: pa.Table, origins: Origins) -> None:
        if not self._bad:
            return
        shown = "; ".join(f"{self._place(origins[row])}: it {bad.says}" for row, bad in self._shown)
        more = f" and {self._bad - SHOWN:,} more" if self._bad > SHOWN else ""
        raise data_invalid(
            f"the {self.noun} cannot be used in {self._bad:,} of {self.rows:,} {rows_of(self.split)}: {shown}{more}",
            self._shown[0][1].remedy,
            self.field,
        )

    def _place(self, origin: Origin) -> str:
        return str(origin) if origin.unit == "file" else at([origin], self.column)

    def warnings(self) -> list[str]:
        return [
            f"{count:,} of {self.rows:,} {self.noun}s of the {self.split} split {says}."
            for count, says in ((self._noted[name], says) for name, says in self.notes)
            if count
        ]

    @staticmethod
    def keys(values: Iterable[Any]) -> NDArray[np.uint64]:
        """Equal for files of equal content."""
        return np.fromiter((xxh3_64_intdigest(content_of(value)) for value in values), np.uint64)

    @staticmethod
    def spelt(values: Sequence[Any]) -> Iterable[str]:
        return (hashlib.blake2b(content_of(value), digest_size=16).hexdigest() for value in values)


def source_of(value: Mapping[str, Any]) -> Source:
    """Where what is in a file comes from, of a value of the column of examples."""
    return Path(value["path"]) if value["bytes"] is None else bytes(value["bytes"])


def content_of(value: Mapping[str, Any]) -> bytes:
    source = source_of(value)
    return source if isinstance(source, bytes) else source.read_bytes()


def _as_struct(source: Source | Unusable) -> dict[str, Any] | None:
    if isinstance(source, Unusable):
        return None
    return {"bytes": source, "path": None} if isinstance(source, bytes) else {"bytes": None, "path": str(source)}
