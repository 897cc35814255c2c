"""Images: the content of a file, or the path of one.

All of them are decoded once before any training, so that one that is broken is told with its row. They are decoded again whenever they
are looked at: their pixels would take ten times the room.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from xxhash import xxh3_64_intdigest

from finetune_trainer.data.examples import Origin, Origins, Split
from finetune_trainer.data.kinds.values import Values
from finetune_trainer.data.pixels import EXTENSIONS, BadImage, Look, Source, prove
from finetune_trainer.data.problems import SHOWN, at, data_invalid, rows_of, shortened
from finetune_trainer.threads import available_threads

TOGETHER = 256
"""Images that are decoded between two looks at the stop signal."""

_NOTES = (
    ("is_moving", "move: only the first frame of each is looked at"),
    (
        "is_transparent",
        "have transparent parts: as transformers' pipelines do, a model sees the colours that are stored beneath, often black",
    ),
    (
        "is_deep",
        "are greys of 16 bits: the upper 8 of them are looked at, but transformers' pipelines make them white, so save those that a "
        "finished model is asked about with 8 bits",
    ),
)
"""Attributes of `Look`, and what to know of images that have them."""


class Images(Values):
    type: ClassVar[pa.DataType] = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    """As `datasets` keeps images: a file's content, or where it lies. Beside a content the path is but a name."""
    noun: ClassVar[str] = "image"
    files: ClassVar[frozenset[str]] = EXTENSIONS

    def __init__(self, role: str, column: str, split: Split) -> None:
        super().__init__(role, column, split)
        self._bad = 0
        self._shown: list[tuple[int, str, str]] = []
        """Of the first few bad ones row, what is wrong, and the remedy."""
        self._noted = dict.fromkeys((name for name, _ in _NOTES), 0)

    def read(self, values: Sequence[Any] | pa.Array) -> pa.Array:
        values = values.to_pylist() if isinstance(values, pa.Array) else values
        sources = self._located([_named(value) for value in values])
        for begin in range(0, len(sources), TOGETHER):
            self.beside.stop()
            with ThreadPoolExecutor(available_threads()) as threads:
                looks = list(threads.map(_prove, sources[begin : begin + TOGETHER]))
            for row, look in enumerate(looks, start=self.rows + begin):
                if isinstance(look, BadImage):
                    self._add_bad(row, look)
                else:
                    for name in self._noted:
                        self._noted[name] += getattr(look, name)
        self.rows += len(values)
        return pa.array([_as_struct(source) for source in sources], self.type)

    def _located(self, named: list[bytes | str | BadImage]) -> list[Source | BadImage]:
        """With the local path of each file in the place of the path that a row has."""
        paths = [path for path in named if isinstance(path, str)]
        found = iter(self.beside.find(paths) if paths else ())

        def locate(path: str) -> Source | BadImage:
            local = next(found)
            if isinstance(local, Path):
                return local
            return BadImage(
                f"is {shortened(path)}, which {local}", "Put the image there, correct the path, or remove the row."
            )

        return [locate(one) if isinstance(one, str) else one for one in named]

    def _add_bad(self, row: int, error: BadImage) -> None:
        self._bad += 1
        if len(self._shown) < SHOWN:
            self._shown.append((row, str(error), error.remedy))

    def check(self, table: pa.Table, origins: Origins) -> None:
        if not self._bad:
            return
        shown = "; ".join(f"{self._place(origins[row])}: it {says}" for row, says, _ in self._shown)
        more = f" and {self._bad - SHOWN:,} more" if self._bad > SHOWN else ""
        raise data_invalid(
            f"the image cannot be used in {self._bad:,} of {self.rows:,} {rows_of(self.split)}: {shown}{more}",
            self._shown[0][2],
            self.field,
        )

    def _place(self, origin: Origin) -> str:
        return str(origin) if origin.unit == "file" else at([origin], self.column)

    def warnings(self) -> list[str]:
        return [
            f"{count:,} of {self.rows:,} images of the {self.split} split {says}."
            for count, says in ((self._noted[name], says) for name, says in _NOTES)
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
    """Where the pixels of an image come from, of a value of the column of examples."""
    return Path(value["path"]) if value["bytes"] is None else bytes(value["bytes"])


def content_of(value: Mapping[str, Any]) -> bytes:
    source = source_of(value)
    return source if isinstance(source, bytes) else source.read_bytes()


def _named(value: Any) -> bytes | str | BadImage:
    """Content or path of an image, as a file has it."""
    if isinstance(value, Mapping) and value.keys() & {"bytes", "path"}:
        content = value.get("bytes")
        value = value.get("path") if content is None else content
    if isinstance(value, bytes):
        return value
    if isinstance(value, str) and value.strip():
        return value
    if value is None or isinstance(value, str):
        return BadImage("is missing", "Give these rows an image, or remove them.")
    return BadImage(
        f"is neither the content of a file nor the path of one, such as {shortened(value)}",
        "Name a column of paths, or in Parquet of files' contents.",
    )


def _prove(source: Source | BadImage) -> Look | BadImage:
    if isinstance(source, BadImage):
        return source
    try:
        return prove(source)
    except BadImage as error:
        return error


def _as_struct(source: Source | BadImage) -> dict[str, Any] | None:
    if isinstance(source, BadImage):
        return None
    return {"bytes": source, "path": None} if isinstance(source, bytes) else {"bytes": None, "path": str(source)}
