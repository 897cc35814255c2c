"""Texts: strings with something in them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import isnan
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from xxhash import xxh3_64_intdigest

from finetune_trainer.data.alike import is_blank, look
from finetune_trainer.data.examples import Origins, Split
from finetune_trainer.data.kinds.values import Bad, Values
from finetune_trainer.data.problems import at, data_invalid, empty_to_the_hub, rows_of, shortened

_FILLERS = pa.array(["\u115f", "\u1160", "\u3164", "\uffa0"], pa.large_string())
"""Letters that nobody sees."""


class Texts(Values):
    type: ClassVar[pa.DataType] = pa.large_string()
    noun: ClassVar[str] = "text"

    def __init__(self, role: str, column: str, split: Split) -> None:
        super().__init__(role, column, split)
        self._no_strings, self._empty = Bad(), Bad()

    def takes(self, type: pa.DataType) -> bool:
        return _is_string(type)

    def read(self, values: Sequence[Any] | pa.Array) -> pa.Array:
        strings = _strings(values)
        if strings is None:
            return self._read_one_by_one(values.to_pylist() if isinstance(values, pa.Array) else values)
        # Most texts begin with a letter or a digit; only of the others is it asked whether anybody sees them.
        first = pc.utf8_slice_codeunits(strings, 0, 1)
        seen = pc.and_not(pc.utf8_is_alnum(first), pc.is_in(first, _FILLERS))
        for row in np.flatnonzero(~pc.fill_null(seen, False).to_numpy(zero_copy_only=False)).tolist():
            value = strings[row].as_py()
            if value is None or is_blank(value):
                self._empty.add(self.rows + row, value)
        self.rows += len(strings)
        return strings

    def _read_one_by_one(self, values: Sequence[Any]) -> pa.Array:
        values = [None if isinstance(value, float) and isnan(value) else value for value in values]
        for row, value in enumerate(values, start=self.rows):
            if value is not None and not isinstance(value, str):
                self._no_strings.add(row, value)
            elif value is None or is_blank(value):
                self._empty.add(row, value)
        self.rows += len(values)
        return pa.array([value if isinstance(value, str) else None for value in values], self.type)

    def check(self, table: pa.Table, origins: Origins) -> None:
        if bad := self._no_strings.count:
            raise data_invalid(
                f"the text is not a string in {bad:,} of {self.rows:,} {rows_of(self.split)}, such as "
                f"{shortened(self._no_strings.example)}: {self._at(self._no_strings, origins)}",
                "Name a column of strings, or write these values as strings.",
                self.field,
            )
        if bad := self._empty.count:
            raise data_invalid(
                f"the text is empty in {bad:,} of {self.rows:,} {rows_of(self.split)}: {self._at(self._empty, origins)}",
                f"Remove these rows, or give them a text.{empty_to_the_hub(origins)}",
                self.field,
            )

    def _at(self, bad: Bad, origins: Origins) -> str:
        return at([origins[row] for row in bad.rows], self.column, count=bad.count)

    @staticmethod
    def spelt(values: Sequence[Any]) -> Iterable[str]:
        return values

    @staticmethod
    def keys(values: Iterable[Any]) -> NDArray[np.uint64]:
        """Equal for texts that look the same to a reader."""
        return np.fromiter((xxh3_64_intdigest(look(text).encode()) for text in values), np.uint64)


class Targets(Texts):
    """Texts that a model is to write. Different ones for the same input are no contradiction: any of them is right."""

    is_input: ClassVar[bool] = False


class OptionalTexts(Texts):
    """Texts that rows may leave empty; null or blank where they do."""

    def check(self, table: pa.Table, origins: Origins) -> None:
        self._empty = Bad()
        super().check(table, origins)

    @staticmethod
    def spelt(values: Sequence[Any]) -> Iterable[str]:
        return (text or "" for text in values)

    @staticmethod
    def keys(values: Iterable[Any]) -> NDArray[np.uint64]:
        return Texts.keys(text or "" for text in values)


def _is_string(type: pa.DataType) -> bool:
    return bool(pa.types.is_string(type) or pa.types.is_large_string(type))


def _strings(values: Sequence[Any] | pa.Array) -> pa.Array | None:
    """As Arrow's strings; None where some are none."""
    if not isinstance(values, pa.Array):
        try:
            return pa.array(values, Texts.type) if bytes not in set(map(type, values)) else None
        except (pa.ArrowInvalid, pa.ArrowTypeError):
            return None
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    if not _is_string(values.type) and not pa.types.is_string_view(values.type):
        return None
    try:
        values.validate(full=True)
    except pa.ArrowInvalid:
        values.to_pylist()  # its error says what is no UTF-8
        raise
    return values.cast(Texts.type)
