"""Whether an answer is liked: true or false, whichever way a file writes them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from finetune_trainer.data.alike import is_blank, said
from finetune_trainer.data.examples import Origins
from finetune_trainer.data.kinds.unread import Unread
from finetune_trainer.data.kinds.values import Bad, Values
from finetune_trainer.data.problems import empty_to_the_hub


class Liked(Values):
    type: ClassVar[pa.DataType] = pa.bool_()
    is_input: ClassVar[bool] = False
    noun: ClassVar[str] = "label"
    another: ClassVar[str] = "the other label"

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self._empty, self._others = Bad(), Bad()

    def read(self, values: Sequence[Any] | pa.Array) -> pa.Array:
        found = [said(value) for value in (values.to_pylist() if isinstance(values, pa.Array) else values)]
        for row, (one, value) in enumerate(zip(found, values, strict=True), start=self.rows):
            if one is None:
                value = value.as_py() if isinstance(value, pa.Scalar) else value
                nothing = value is None or (isinstance(value, str) and is_blank(value))
                (self._empty if nothing else self._others).add(row, value)
        self.rows += len(found)
        return pa.array(found, self.type)

    def check(self, table: pa.Table, origins: Origins) -> None:
        if self._others.count:
            remedy = "Write true where an answer is liked, and false where it is not."
            raise self.invalid("is neither true nor false", self._others, origins, remedy)
        if self._empty.count:
            remedy = f"Remove these rows, or say of their answers.{empty_to_the_hub(origins)}"
            others = [other for other in self.others.values() if isinstance(other, Unread) and other.held]
            if self.role in [other.column for other in others]:
                remedy += f' Or, where the column "{self.role}" says it of all rows, name that in {self.field}.'
            raise self.invalid("is empty", self._empty, origins, remedy)

    @staticmethod
    def keys(values: Iterable[Any]) -> NDArray[np.uint64]:
        return np.fromiter(values, np.uint64)
