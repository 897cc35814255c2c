"""What kinds with several values in a row have in common: lists, or strings that hold one."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from finetune_trainer.data.encoding import is_encodable

Flat = tuple[Sequence[Any] | pa.Array, NDArray[np.int64]]
"""Values end to end, and how many of them each row has, -1 where a row has no list; shapes (values,) and (rows,)."""


def flattened(values: Sequence[Any] | pa.Array, separator: str | None = None, *, alone: bool = True) -> Flat:
    """The values of all rows: of lists, of strings that are written as a list of JSON, and of others between separators.

    Around a separator blanks do not count, and a blank string holds nothing. Without a separator a string is one value, or none
    where values do not stand `alone`.
    """
    if isinstance(values, pa.Array):
        if pa.types.is_list(values.type) or pa.types.is_large_list(values.type):
            return values.flatten(), values.value_lengths().cast(pa.int64()).fill_null(-1).to_numpy(
                zero_copy_only=False
            )
        values = values.to_pylist()
    rows = [_listed(value, separator, alone) for value in values]
    flat = [one for row in rows if row is not None for one in row]
    return flat, np.array([-1 if row is None else len(row) for row in rows], np.int64)


def _listed(value: Any, separator: str | None, alone: bool) -> list[Any] | None:
    if isinstance(value, list):
        return value
    if not isinstance(value, str):
        return None
    text = value.strip()
    if text.startswith("["):
        try:
            found = json.loads(text)
        except (ValueError, RecursionError):
            return None
        return found if isinstance(found, list) and is_encodable(found) else None
    if not alone:
        return None
    if not text:
        return []
    return [text] if separator is None else [part.strip() for part in value.split(separator)]


def written_as_json(example: object) -> str:
    """What a remedy adds where a text seems to be a list or an object as Python prints it, which is what pandas writes into CSV."""
    is_like_it = isinstance(example, str) and example.lstrip().startswith(("[", "{"))
    return " In a text it is JSON, which has double quotes." if is_like_it else ""


def starts_of(lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """Where each row begins among the values, and the end of the last; shape (rows + 1,)."""
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
