"""From columns of values to examples: texts that are not empty, labels that are known, rows that splits do not share."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from finetune_api.dataset import Columns
from finetune_api.failures import FailureReason, JobError
from finetune_trainer.data.examples import Examples, Origin, Origins, Split
from finetune_trainer.data.problems import at, data_invalid, listed, rows_of, shortened


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
    _check_text_column(rows, "text", columns.text)
    if columns.text_pair:
        _check_text_column(rows, "textPair", columns.text_pair)


def _check_text_column(rows: Rows, role: str, column: str) -> None:
    values = rows.columns[role]
    if all(type(value) is str and value and not value.isspace() for value in values):
        return
    field = f"spec.dataset.columns.{role}"
    for is_bad, said, remedy in _TEXT_PROBLEMS:
        bad = [rows.origins[row] for row, value in enumerate(values) if is_bad(value)]
        if bad:
            example = "" if said == "is empty" else f", such as {shortened(next(v for v in values if is_bad(v)))}"
            raise data_invalid(
                f"the text {said} in {len(bad):,} of {len(values):,} {rows_of(rows.split)}{example}: {at(bad, column)}",
                remedy,
                field,
            )


_TEXT_PROBLEMS: tuple[tuple[Callable[[Any], bool], str, str], ...] = (
    (
        lambda value: value is not None and not isinstance(value, str),
        "is not a string",
        "Name a column of strings, or write these values as strings.",
    ),
    (
        lambda value: value is None or not value.strip(),
        "is empty",
        "Remove these rows, or give them a text.",
    ),
)


def to_examples(rows: Rows, labels: np.ndarray[Any, np.dtype[np.int64]]) -> Examples:
    return Examples(rows.columns["text"], rows.columns.get("textPair"), labels, rows.origins)


def check_counts(train: Examples, labels: Sequence[str]) -> None:
    """There are two labels or more to tell apart, and not fewer examples than labels. Raises JobError."""
    counts = np.bincount(train.labels, minlength=len(labels))
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


def warn_counts(train: Examples, labels: Sequence[str]) -> list[str]:
    """Labels without training examples, and labels that look alike."""
    warnings = []
    counts = np.bincount(train.labels, minlength=len(labels))
    for label, count in zip(labels, counts, strict=True):
        if not count:
            warnings.append(f'The label "{label}" is listed and has no training example: the model will not learn it.')
    folded = Counter(label.strip().casefold() for label in labels)
    for label, number in folded.items():
        if number > 1:
            alike = ", ".join(f'"{other}"' for other in labels if other.strip().casefold() == label)
            warnings.append(f"The labels {alike} differ only in case or spaces and are learned as different ones.")
    return warnings


def warn_absent_labels(splits: Mapping[Split, Examples], labels: Sequence[str], *, drawn: bool) -> list[str]:
    """Labels that are trained and that a split has no row of; `drawn` says that validation was drawn from the training rows."""
    warnings = []
    trained = set(splits["train"].labels.tolist())
    for split, examples in splits.items():
        absent = [labels[number] for number in sorted(trained - set(examples.labels.tolist()))]
        if not absent:
            continue
        said = f"label {listed(absent)}" if len(absent) == 1 else f"{len(absent)} labels {listed(absent)}"
        warning = f"No row of the {split} split has the {said}: the split's metrics say nothing about {'it' if len(absent) == 1 else 'them'}."
        if drawn and split == "validation":
            warning += " Raise dataset.validationFraction, give more examples, or rows of their own in dataset.splits.validation."
        warnings.append(warning)
    return warnings


def warn_shared_rows(splits: Mapping[Split, Examples]) -> list[str]:
    """Rows of validation or test that are training rows too, and equal training rows with different labels."""
    train: dict[Any, int] = {}
    contradictions: list[Origin] = []
    examples = splits["train"]
    for row, (key, label) in enumerate(zip(_keys(examples), examples.labels.tolist(), strict=True)):
        if train.setdefault(key, label) != label:
            contradictions.append(examples.origins[row])
    warnings = []
    if contradictions:
        warnings.append(
            f"{len(contradictions):,} training rows have the text of an earlier row and another label: {at(contradictions)}."
        )
    for split, others in splits.items():
        if split == "train":
            continue
        shared = [others.origins[row] for row, key in enumerate(_keys(others)) if key in train]
        if shared:
            warnings.append(
                f"{len(shared):,} of {len(others):,} {rows_of(split)} have the text of a training row, so their metrics flatter: "
                f"{at(shared)}."
            )
    return warnings


def _keys(examples: Examples) -> Sequence[Any]:
    """What makes two examples the same: their texts, not their labels."""
    return examples.texts if examples.pairs is None else list(zip(examples.texts, examples.pairs, strict=True))
