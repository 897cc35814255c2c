"""Any number of labels in a row: a list, or a string with a separator, of names or of positions in a list of names."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from xxhash import xxh3_64_intdigest

from finetune_api.failures import FailureReason, JobError
from finetune_trainer.data.examples import Origins, Split
from finetune_trainer.data.kinds.label import Column, Distinct, encode_labels
from finetune_trainer.data.kinds.lists import Flat, flattened, starts_of, written_as_json
from finetune_trainer.data.kinds.values import Bad, Named, Read, Values
from finetune_trainer.data.problems import at, rows_of, shortened

SEPARATORS = ",;|"
"""Of which one in a value says that it may hold several."""


class Labels(Values):
    type: ClassVar[pa.DataType] = pa.list_(pa.int64())
    is_input: ClassVar[bool] = False
    noun: ClassVar[str] = "labels"
    is_list: ClassVar[bool] = True
    another: ClassVar[str] = "other labels"

    def __init__(self, role: str, column: str, split: Split) -> None:
        super().__init__(role, column, split)
        self._distinct = Distinct()
        self._codes: list[NDArray[np.int32]] = []
        self._lengths: list[NDArray[np.int64]] = []
        self._no_lists, self._unseparated = Bad(), Bad()

    def takes(self, type: pa.DataType) -> bool:
        return True

    def read(self, values: Sequence[Any] | pa.Array) -> None:
        flat, lengths = self._flattened(values)
        for row in np.flatnonzero(lengths < 0).tolist():
            value = values[row]
            self._no_lists.add(self.rows + row, value.as_py() if isinstance(value, pa.Scalar) else value)
        self._codes.append(self._distinct.codes_of(flat))
        self._lengths.append(np.maximum(lengths, 0))
        self.rows += len(lengths)

    def _flattened(self, values: Sequence[Any] | pa.Array) -> Flat:
        if isinstance(values, pa.Array) and (pa.types.is_string(values.type) or pa.types.is_large_string(values.type)):
            values = values.to_pylist()
        if self.separator is None and not isinstance(values, pa.Array):
            for row, value in enumerate(values, start=self.rows):
                if isinstance(value, str) and value.lstrip()[:1] != "[" and any(one in value for one in SEPARATORS):
                    self._unseparated.add(row, value)
        return flattened(values, self.separator)

    def check(self, table: pa.Table, origins: Origins) -> None:
        if bad := self._no_lists.count:
            what = "are null" if self._no_lists.example is None else "are no list"
            example = "" if self._no_lists.example is None else f", such as {shortened(self._no_lists.example)}"
            raise self._invalid(
                f"the {self.noun} {what} in {bad:,} of {self.rows:,} {rows_of(self.split)}{example}: "
                f"{at([origins[row] for row in self._no_lists.rows], self.column, count=bad)}",
                'Write them as a list, such as ["a", "b"], an empty one where a row has none of the labels.'
                + written_as_json(self._no_lists.example),
                self.field,
            )
        if bad := self._unseparated.count:
            raise self._invalid(
                f"in {bad:,} of {self.rows:,} {rows_of(self.split)} the labels are a string that may hold several, such as "
                f"{shortened(self._unseparated.example)}, and the spec does not say what stands between them: "
                f"{at([origins[row] for row in self._unseparated.rows], self.column, count=bad)}",
                'Say it in spec.classification.separator, or write the labels as a list, such as ["a", "b"].',
                "spec.classification.separator",
            )

    def _coded(self, origins: Origins, own_names: Sequence[Sequence[str] | None]) -> tuple[Column, NDArray[np.int64]]:
        """All that was read, and how many labels each row has."""
        lengths = np.concatenate([np.empty(0, np.int64), *self._lengths])
        codes = np.concatenate([np.empty(0, np.int32), *self._codes])
        row = np.repeat(np.arange(len(lengths)), lengths)
        return Column(self, self._distinct.values, codes, origins, own_names, row), lengths

    @classmethod
    def named(cls, splits: Sequence[Read], listed_labels: Sequence[str] | None) -> Named:
        read = [values._coded(origins, own) for values, origins, own in splits if isinstance(values, cls)]
        if not len(read[0][0].codes):
            raise cls._invalid(
                f"none of the {len(read[0][0]):,} training examples has a label",
                "Name the column that holds the labels.",
                read[0][0].field,
            )
        names, positions, warnings = encode_labels([column for column, _ in read], listed_labels)
        columns = [cls._columns(of_split, lengths) for of_split, (_, lengths) in zip(positions, read, strict=True)]
        cls._check_train(columns[0], read[0][0].field)
        return Named(names, columns, warnings)

    @classmethod
    def _columns(cls, positions: NDArray[np.int64], lengths: NDArray[np.int64]) -> pa.Array:
        """Of each row its positions, in order and each once; rows have so many of them."""
        return _sets(positions, lengths)

    @classmethod
    def _check_train(cls, train: pa.Array, field: str) -> None:
        if _all_the_same(train):
            raise cls._invalid(
                f"all {len(train):,} training examples have the same labels, so there is nothing to tell apart",
                "Name the column that holds the labels, or add examples with others.",
                field,
            )

    @staticmethod
    def _invalid(message: str, remedy: str, field: str) -> JobError:
        return JobError(FailureReason.LABEL_INVALID, message, field=field, remedy=remedy)

    @staticmethod
    def keys(values: Iterable[Any]) -> NDArray[np.uint64]:
        return np.fromiter((xxh3_64_intdigest(np.array(row, np.int64).tobytes()) for row in values), np.uint64)


def _all_the_same(column: pa.Array) -> bool:
    lengths = np.diff(column.offsets.to_numpy())
    if (lengths != lengths[0]).any():
        return False
    rows = column.values.to_numpy().reshape(len(column), lengths[0])
    return bool((rows == rows[0]).all())


def _sets(positions: NDArray[np.int64], lengths: NDArray[np.int64]) -> pa.Array:
    """Of each row its positions in order, each once."""
    row = np.repeat(np.arange(len(lengths)), lengths)
    order = np.lexsort((positions, row))
    row, positions = row[order], positions[order]
    first = np.ones(len(row), np.bool_)
    first[1:] = (row[1:] != row[:-1]) | (positions[1:] != positions[:-1])
    starts = starts_of(np.bincount(row[first], minlength=len(lengths)))
    return pa.ListArray.from_arrays(pa.array(starts.astype(np.int32)), pa.array(positions[first]))
