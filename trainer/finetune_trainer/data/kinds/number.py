"""Numbers to be learnt, such as how alike two texts are: finite ones, whichever way a file writes them."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from decimal import Decimal
from numbers import Real
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from finetune_trainer.data.alike import is_blank
from finetune_trainer.data.examples import Origins, Split
from finetune_trainer.data.kinds.values import Bad, Values
from finetune_trainer.data.problems import data_invalid, empty_to_the_hub

NUMBER = re.compile(r"[-+]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?")
_NOT_FINITE = re.compile(r"[-+]?(?:nan|inf|infinity)", re.IGNORECASE)
_WITH_A_COMMA = re.compile(r"[-+]?[0-9.]*,[0-9]+")


class Number(Values):
    type: ClassVar[pa.DataType] = pa.float64()
    is_input: ClassVar[bool] = False
    noun: ClassVar[str] = "score"
    another: ClassVar[str] = "another score"

    def __init__(self, role: str, column: str, split: Split) -> None:
        super().__init__(role, column, split)
        self._empty, self._no_numbers, self._not_finite = Bad(), Bad(), Bad()

    def read(self, values: Sequence[Any] | pa.Array) -> pa.Array:
        if isinstance(values, pa.Array) and (pa.types.is_integer(values.type) or pa.types.is_floating(values.type)):
            numbers = pc.cast(values, self.type, safe=False).fill_null(math.nan).to_numpy(zero_copy_only=False)
        else:
            values = values.to_pylist() if isinstance(values, pa.Array) else values
            numbers = np.array(list(map(_number, values)), np.float64)
        for row in np.flatnonzero(~np.isfinite(numbers)).tolist():
            value = values[row].as_py() if isinstance(values, pa.Array) else values[row]
            self._kind_of(value).add(self.rows + row, value)
        self.rows += len(numbers)
        return pa.array(numbers)

    def _kind_of(self, value: Any) -> Bad:
        if value is None or (isinstance(value, str) and is_blank(value)):
            return self._empty
        if isinstance(value, str):
            text = value.strip()
            return self._not_finite if NUMBER.fullmatch(text) or _NOT_FINITE.fullmatch(text) else self._no_numbers
        return self._not_finite if _is_number(value) else self._no_numbers

    def check(self, table: pa.Table, origins: Origins) -> None:
        if self._no_numbers.count:
            example = self._no_numbers.example
            remedy = "Name a column of numbers, or write these values as numbers."
            if isinstance(example, str) and _WITH_A_COMMA.fullmatch(example.strip()):
                remedy = f"Write numbers with a point, such as {_with_a_point(example.strip())} for {example.strip()}."
            raise self.invalid("is no number", self._no_numbers, origins, remedy)
        if self._not_finite.count:
            raise self.invalid(
                "is not a finite number", self._not_finite, origins, "Remove these rows, or correct them."
            )
        if self._empty.count:
            remedy = f"Remove these rows, or give them a {self.noun}.{empty_to_the_hub(origins)}"
            raise self.invalid("is empty", self._empty, origins, remedy)
        if self.split == "train":
            least, most = pc.min_max(table.column(self.role)).as_py().values()
            if least == most:
                raise data_invalid(
                    f"all {self.rows:,} training examples have the {self.noun} {least:g}, so there is nothing to learn",
                    f"Name the column that holds the {self.noun}s, or add examples with others.",
                    self.field,
                )

    @staticmethod
    def keys(values: Iterable[Any]) -> NDArray[np.uint64]:
        numbers = np.fromiter(values, np.float64) + 0.0  # -0.0 is 0.0
        return numbers.view(np.uint64)


def _is_number(value: Any) -> bool:
    return isinstance(value, (Real, Decimal)) and not isinstance(value, bool)


def _number(value: Any) -> float:
    """NaN for what is none."""
    if isinstance(value, str):
        text = value.strip()
        return float(text) if NUMBER.fullmatch(text) else math.nan
    if not _is_number(value):
        return math.nan
    try:
        return float(value)
    except OverflowError:  # a whole number of hundreds of digits
        return math.inf


def _with_a_point(text: str) -> str:
    """`1.234,5` as `1234.5`."""
    return text.replace(".", "").replace(",", ".")
