"""From columns of values to examples: texts that are not empty, labels that are known, rows that splits do not share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from finetune_api.dataset import Columns
from finetune_api.failures import FailureReason, JobError
from finetune_trainer.data.alike import is_blank
from finetune_trainer.data.examples import Examples, Origins, Split
from finetune_trainer.data.problems import at, data_invalid, empty_to_the_hub, rows_of, shortened


@dataclass(frozen=True)
class Rows:
    """What was read for one split: values by role (`text`, `textPair`, `label`), unchecked."""

    split: Split
    columns: Mapping[str, list[Any]]
    origins: Origins
    label_names: Sequence[Sequence[str] | None]
    """For each of `origins.files`, the names of its whole-number labels, where it tells them."""


def check_texts(rows: Rows, columns: Columns) -> None:
    """Every text is a string with something in it, and there is at least one row. Raises JobError (DataInvalid)."""
    if not len(rows.origins):
        where = f": {', '.join(rows.origins.files)}" if rows.origins.files else ""
        raise data_invalid(
            f"the {rows.split} split has no rows{where}",
            "Give it rows, or name other files or another split.",
            f"spec.dataset.splits.{rows.split}",
        )
    _check_text_column(rows, "text", columns.text or "text")
    if columns.text_pair:
        _check_text_column(rows, "textPair", columns.text_pair)


def _check_text_column(rows: Rows, role: str, column: str) -> None:
    values = rows.columns[role]
    if all(type(value) is str and not is_blank(value) for value in values):
        return
    field = f"spec.dataset.columns.{role}"
    for is_bad, said, remedy in _TEXT_PROBLEMS:
        bad = [rows.origins[row] for row, value in enumerate(values) if is_bad(value)]
        if bad:
            example = "" if said == "is empty" else f", such as {shortened(next(v for v in values if is_bad(v)))}"
            raise data_invalid(
                f"the text {said} in {len(bad):,} of {len(values):,} {rows_of(rows.split)}{example}: {at(bad, column)}",
                remedy + (empty_to_the_hub(rows.origins) if said == "is empty" else ""),
                field,
            )


_TEXT_PROBLEMS: tuple[tuple[Callable[[Any], bool], str, str], ...] = (
    (
        lambda value: value is not None and not isinstance(value, str),
        "is not a string",
        "Name a column of strings, or write these values as strings.",
    ),
    (
        lambda value: value is None or is_blank(value),
        "is empty",
        "Remove these rows, or give them a text.",
    ),
)


def to_examples(rows: Rows, labels: NDArray[np.int64]) -> Examples:
    texts = {role: pa.array(values, pa.large_string()) for role, values in rows.columns.items() if role != "label"}
    return Examples(pa.table({**texts, "label": labels}), rows.origins)


def check_counts(train: Examples, labels: Sequence[str]) -> None:
    """There are two labels or more to tell apart, and not fewer examples than labels. Raises JobError."""
    counts = np.bincount(train.numbers("label"), minlength=len(labels))
    present = [label for label, count in zip(labels, counts, strict=True) if count]
    if len(present) < 2:
        raise JobError(
            FailureReason.LABEL_INVALID,
            f'all {len(train):,} training examples have the label "{present[0]}", so there is nothing to tell apart',
            field="spec.dataset.columns.label",
            remedy="Name the column that holds the labels, or add examples of the other labels.",
        )
    if len(train) < len(labels):
        raise data_invalid(
            f"there are {len(train)} training examples for {len(labels)} labels",
            "Give at least one example of each label, better some dozens, or list fewer spec.dataset.labels.",
            "spec.dataset.labels",
        )
