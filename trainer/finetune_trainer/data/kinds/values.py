"""What every kind of column says: how its values are read, when they are wrong, when two are the same."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from finetune_api.failures import JobError
from finetune_trainer.data.beside import Beside
from finetune_trainer.data.examples import Origins, Split
from finetune_trainer.data.problems import SHOWN, at, data_invalid, rows_of, shortened


@dataclass
class Bad:
    """Rows with the same problem: how many they are, and the first few."""

    count: int = 0
    rows: list[int] = field(default_factory=list)
    """Positions in the split, at most `SHOWN` of them."""
    example: Any = None
    """The value in the first of them."""

    def add(self, row: int, value: Any) -> None:
        if not self.count:
            self.example = value
        if self.count < SHOWN:
            self.rows.append(row)
        self.count += 1


@dataclass(frozen=True)
class Named:
    """Columns of positions in a list of names."""

    names: tuple[str, ...]
    columns: Sequence[pa.Array]
    """One a split."""
    warnings: Sequence[str]


class Values(ABC):
    """The values of one role in one split: read in batches, checked once all of them are there.

    What is wrong with a value is noted while it is read and raised by `check`, so that whatever is wrong with a file as such is
    said first.
    """

    type: ClassVar[pa.DataType]
    """What the column of the examples is made of."""
    is_input: ClassVar[bool] = True
    """Whether it is part of what a model is given, rather than of what it is to answer."""
    noun: ClassVar[str]
    """What a value is called in a sentence."""
    is_list: ClassVar[bool] = False
    """Whether a value is a list."""
    another: ClassVar[str] = ""
    """What a value is called that is not the same, of a kind that is no input."""
    files: ClassVar[frozenset[str]] = frozenset()
    """The extensions of files that are values themselves, such as `.png`: a folder of them is data, and rows may name them by path."""
    beside: Beside
    """Where files are that rows name; set before anything is read."""
    others: Mapping[str, Values]
    """The values of the row's other roles, and of this one; set before anything is read."""
    separator: str | None = None
    """What stands between the values of a string that holds several; set before anything is read."""

    def __init__(self, role: str, column: str, split: Split) -> None:
        self.role, self.column, self.split = role, column, split
        self.rows = 0
        """Rows read so far."""

    def invalid(self, said: str, bad: Bad, origins: Origins, remedy: str) -> JobError:
        """The failure for rows whose value `said` what is wrong with it, such as `is empty`."""
        example = "" if said == "is empty" else f", such as {shortened(bad.example)}"
        return data_invalid(
            f"the {self.noun} {said} in {bad.count:,} of {self.rows:,} {rows_of(self.split)}{example}: "
            f"{at([origins[row] for row in bad.rows], self.column, count=bad.count)}",
            remedy,
            self.field,
        )

    @property
    def is_left_out(self) -> bool:
        """Whether nothing is made of any of them, as other roles say the same: known once all is checked."""
        return False

    @property
    def field(self) -> str:
        return f"spec.dataset.columns.{self.role}"

    def takes(self, type: pa.DataType) -> bool:
        """Whether a column of this type can stay where it is, as one of the examples."""
        return bool(type == self.type)

    @abstractmethod
    def read(self, values: Sequence[Any] | pa.Array) -> pa.Array | None:
        """The next rows' values, as a file of delimited text, JSON or Parquet holds them, as Arrow has them; null for one that is none.

        None where the kind keeps them itself until all of them are there; see `named`.
        """

    @classmethod
    def named(cls, splits: Sequence[Read], listed_labels: Sequence[str] | None) -> Named | None:
        """The columns of a kind whose values have names; None of others. `splits` are in order, training first; `listed_labels` those
        of the spec. Raises JobError."""
        return None

    @abstractmethod
    def check(self, table: pa.Table, origins: Origins) -> None:
        """Raises JobError for the first problem of the rows that were read; `table` has what `read` made of them."""

    def warnings(self) -> list[str]:
        """What is odd about the values that were read and no error, one sentence each."""
        return []

    @staticmethod
    @abstractmethod
    def keys(values: Iterable[Any]) -> NDArray[np.uint64]:
        """8 bytes a value, equal where two values are the same to whoever looks at them, and hardly ever otherwise."""

    @staticmethod
    def spelt(values: Sequence[Any]) -> Iterable[str]:
        """A text for each value, by which it can be told from any other."""
        return map(str, values)


Read = tuple[Values, Origins, Sequence[Sequence[str] | None]]
"""Of one split the values of a role, their origins, and for each file the names that it tells of its whole numbers."""

Kinds = Mapping[str, type[Values]]
"""By role, in the order of the form."""
