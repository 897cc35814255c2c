"""The words of a text, one by one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from xxhash import xxh3_64_intdigest

from finetune_trainer.data.alike import look
from finetune_trainer.data.examples import Origins, Split
from finetune_trainer.data.kinds.lists import flattened, starts_of, written_as_json
from finetune_trainer.data.kinds.values import Bad, Values
from finetune_trainer.data.problems import at, data_invalid, rows_of, shortened

BETWEEN = "\x1f"
"""Stands between words, and in none."""


class Tokens(Values):
    type: ClassVar[pa.DataType] = pa.list_(pa.large_string())
    noun: ClassVar[str] = "text"
    is_list: ClassVar[bool] = True

    def __init__(self, role: str, column: str, split: Split) -> None:
        super().__init__(role, column, split)
        self._no_lists, self._no_words, self._no_strings = Bad(), Bad(), Bad()

    def read(self, values: Sequence[Any] | pa.Array) -> pa.Array:
        flat, lengths = flattened(values, alone=False)
        for row in np.flatnonzero(lengths <= 0).tolist():
            value = values[row].as_py() if isinstance(values, pa.Array) else values[row]
            (self._no_lists if lengths[row] < 0 else self._no_words).add(self.rows + row, value)
        lengths = np.maximum(lengths, 0)
        starts = starts_of(lengths)
        words = self._words(flat, starts)
        self.rows += len(lengths)
        return pa.ListArray.from_arrays(pa.array(starts.astype(np.int32)), words)

    def _words(self, flat: Sequence[Any] | pa.Array, starts: NDArray[np.int64]) -> pa.Array:
        if isinstance(flat, pa.Array) and (pa.types.is_string(flat.type) or pa.types.is_large_string(flat.type)):
            words = flat.cast(pa.large_string())
            words.validate(full=True)
        else:
            flat = flat.to_pylist() if isinstance(flat, pa.Array) else flat
            words = pa.array([word if isinstance(word, str) else None for word in flat], pa.large_string())
        for place in np.flatnonzero(words.is_null().to_numpy(zero_copy_only=False)).tolist():
            word = flat[place]
            row = int(np.searchsorted(starts, place, side="right")) - 1
            self._no_strings.add(self.rows + row, word.as_py() if isinstance(word, pa.Scalar) else word)
        return words

    def check(self, table: pa.Table, origins: Origins) -> None:
        for bad, said, remedy in (
            (
                self._no_lists,
                "are no list",
                'Write them as a list of strings, such as ["A", "word", "."].'
                + written_as_json(self._no_lists.example),
            ),
            (self._no_strings, "are no strings", "Write every word as a string."),
            (self._no_words, "are none", "Remove these rows, or give them words."),
        ):
            if bad.count:
                example = "" if said == "are none" else f", such as {shortened(bad.example)}"
                raise data_invalid(
                    f"the words {said} in {bad.count:,} of {self.rows:,} {rows_of(self.split)}{example}: "
                    f"{at([origins[row] for row in bad.rows], self.column, count=bad.count)}",
                    remedy,
                    self.field,
                )

    @staticmethod
    def keys(values: Iterable[Any]) -> NDArray[np.uint64]:
        """Equal for texts whose words look the same to a reader."""
        texts = (BETWEEN.join(map(look, words)) for words in values)
        return np.fromiter((xxh3_64_intdigest(text.encode()) for text in texts), np.uint64)

    @staticmethod
    def spelt(values: Sequence[Any]) -> Iterable[str]:
        return map(BETWEEN.join, values)


def lengths_of(column: pa.ChunkedArray) -> NDArray[np.int64]:
    """How many values each row of a column of lists has, shape (rows,)."""
    return np.asarray(pc.list_value_length(column).to_numpy()).astype(np.int64)
