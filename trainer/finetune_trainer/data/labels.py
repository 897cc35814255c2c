"""From the values of the label column to label names and numbers.

Values may be names, whole numbers (1, "1" and 1.0 are the same label), or booleans. Numbers are numbers, also where a file has
only strings: fractions are no labels unless the spec lists them. With names in the spec, whole numbers that are not themselves
names are positions in that list. Where a file has names of its own for its numbers, these say what they mean, as two files may list
the same names in different orders; only a list in the spec that has none of them gives them other names.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from decimal import Decimal
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finetune_api.failures import FailureReason, JobError
from finetune_trainer.data.alike import is_blank, look
from finetune_trainer.data.check import Rows
from finetune_trainer.data.examples import Origin
from finetune_trainer.data.problems import at, empty_to_the_hub, listed, nearest, rows_of, shortened, spelt

MAX_LABELS = 1000

_WHOLE = re.compile(r"(-?(?:0|[1-9][0-9]*))(?:\.0+)?")
NUMBER = re.compile(r"[-+]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?")
_ZEROS = re.compile(r"[-+]?0[0-9]|[+]")  # 007 and +1 are names

Labels = tuple[str, ...]


def encode_labels(
    splits: Sequence[Rows], column: str, listed_labels: Sequence[str] | None
) -> tuple[Labels, list[NDArray[np.int64]], list[str]]:
    """Label names, for each split (training first) the position of each row's label, and warnings of names that others took the place of.

    Raises JobError (LabelInvalid): null or empty labels, fractions, mixed types, labels that are not listed, labels that
    occur only outside the training rows, so many different ones that the column is hardly one of labels, or names in the spec
    for numbers that mean different things in different files.
    """
    names = [_names_of_values(rows, column, frozenset(listed_labels or ())) for rows in splits]
    own_names = [own for rows in splits for own in rows.label_names if own]
    for own in own_names:
        _refuse_names_that_are_none(own, column)
    of_data = next((own for own in splits[0].label_names if own), None)
    field = "spec.dataset.labels" if listed_labels else "spec.dataset.columns.label"
    warnings = []
    if own_names and listed_labels and not _share_a_name(own_names, listed_labels):
        _refuse_different_names(splits)
        warnings.append(
            f"The data names its labels {listed(own_names[0])}; by their positions they are called {listed(listed_labels)} here, as "
            "spec.dataset.labels says."
        )
    elif of_data or (own_names and (listed_labels or not all(map(_WHOLE.fullmatch, set(names[0]))))):
        names = [
            _by_own_names(
                values, [own or of_data for own in rows.label_names], rows, column, field, listed_labels or ()
            )
            for values, rows in zip(names, splits, strict=True)
        ]
    known = tuple(listed_labels or of_data or ())
    train = set(names[0])
    if not known:
        for values, rows in zip(names, splits, strict=True):
            _refuse_fractions(values, rows, column)
        numeric = all(_WHOLE.fullmatch(name) for name in train)
        if numeric:
            names = [_all_canonical(values) for values in names]
        known = _found(set(names[0]), numeric, len(names[0]), column)
    elif not train <= set(known) and not all(_WHOLE.fullmatch(label) for label in known):
        if {name.casefold() for name in train} <= {"false", "true"} and len(known) == 2:
            # They are names where the list has them, however it writes them, and else positions.
            meant = {name.casefold(): name for name in known}
            if meant.keys() != {"false", "true"}:
                meant = {"false": "0", "true": "1"}
                warnings.append(
                    f"The label false is taken for {spelt(known[0])} and true for {spelt(known[1])}, by their positions."
                )
            names = [[meant.get(name.casefold(), name) for name in values] for values in names]
            train = set(names[0])
        if not train <= set(known) and all(_WHOLE.fullmatch(name) for name in train):
            _refuse_names_and_positions(train, known)
            names = [
                _by_position(values, known, rows, column, field) for values, rows in zip(names, splits, strict=True)
            ]
    elif not train <= set(known):
        names = [_all_canonical(values) for values in names]
    return (
        known,
        [
            _numbers(values, rows, known, column, field, listed=bool(listed_labels or of_data))
            for values, rows in zip(names, splits, strict=True)
        ],
        warnings,
    )


def _names_of_values(rows: Rows, column: str, listed_labels: frozenset[str]) -> list[str]:
    """Each value as a string: `true`, `1` and `1.0` as they are in JSON, with whole floats as whole numbers."""
    values = rows.columns["label"]
    kinds = set(map(type, values))
    if kinds == {str} and all(values) and not any(is_blank(value) for value in set(values)):
        return values
    empty = [rows.origins[row] for row, value in enumerate(values) if not kinds <= {int, bool} and _is_empty(value)]
    if empty:
        raise _invalid(
            f"the label is empty in {len(empty):,} of {len(values):,} {rows_of(rows.split)}: {at(empty, column)}",
            f"Remove these rows, or give them a label.{empty_to_the_hub(rows.origins)}",
        )
    families = {"numbers" if _is_number(kind) else kind.__name__ for kind in kinds}
    if len(families) > 1:
        firsts = [next(row for row, value in enumerate(values) if type(value) is kind) for kind in kinds]
        said = "; ".join(f"{values[row]!r} in {rows.origins[row]}" for row in sorted(firsts))
        raise _invalid(
            f'the column "{column}" mixes types: {said}', "Write all labels as strings, or all as whole numbers."
        )
    if families == {"numbers"}:
        if not listed_labels:
            broken = [row for row, value in enumerate(values) if not _is_whole(value)]
            if broken:
                raise _no_whole_number(str(values[broken[0]]), broken, rows, column)
        return [
            str(value) if not _is_whole(value) or str(value) in listed_labels else str(int(value)) for value in values
        ]
    if families == {"bool"}:
        return ["true" if value else "false" for value in values]
    if families == {"str"}:
        return values
    raise _invalid(
        f"{shortened(values[0])} of type {families.pop()} is no label: {at([rows.origins[0]], column)}",
        "Write labels as strings or whole numbers.",
    )


def _is_number(kind: type) -> bool:
    return issubclass(kind, (Real, Decimal)) and not issubclass(kind, bool)


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) or (math.isfinite(value) and value == int(value))


def _is_empty(value: Any) -> bool:
    if isinstance(value, str):
        return is_blank(value)
    return value is None or (_is_number(type(value)) and not isinstance(value, int) and math.isnan(value))


def _refuse_fractions(values: list[str], rows: Rows, column: str) -> None:
    """Strings that are all numbers, some of them no whole ones, as JSON would have them as numbers."""
    different = set(values)
    if not all(NUMBER.fullmatch(value) for value in different) or all(_WHOLE.fullmatch(value) for value in different):
        return
    fractions = {value for value in different if not _WHOLE.fullmatch(value) and not _ZEROS.match(value)}
    broken = [row for row, value in enumerate(values) if value in fractions]
    if broken:
        raise _no_whole_number(values[broken[0]], broken, rows, column)


def _no_whole_number(value: str, broken: list[int], rows: Rows, column: str) -> JobError:
    return _invalid(
        f"{value} is no whole number, so no label, in {len(broken):,} of {len(rows.origins):,} "
        f"{rows_of(rows.split)}: {at([rows.origins[row] for row in broken], column)}",
        "Name the column with the classes, or turn the numbers into classes: regression is not what this task learns. If they are "
        'names that look like numbers, list them all in spec.dataset.labels, such as ["1.5", "2.5"].',
    )


def _canonical(name: str) -> str:
    """`1.0` as `1`; anything that is no whole number as it is."""
    match = _WHOLE.fullmatch(name)
    return str(int(match[1])) if match else name  # -0 is 0


def _all_canonical(values: list[str]) -> list[str]:
    canonical = {name: _canonical(name) for name in set(values)}
    return [canonical[value] for value in values]


def _found(names: set[str], numeric: bool, rows: int, column: str) -> Labels:
    if len(names) > MAX_LABELS:
        raise _invalid(
            f'the column "{column}" has {len(names):,} different values in {rows:,} training rows, such as '
            f"{listed(sorted(names), 3)}; there may be {MAX_LABELS:,} labels at most",
            "Name the column with the classes.",
        )
    return tuple(sorted(names, key=int) if numeric else sorted(names))


def _refuse_different_names(splits: Sequence[Rows]) -> None:
    """Names of the spec replace those of the data by position, which needs one meaning of each position."""
    named = [
        (file, own)
        for rows in splits
        for file, own in zip(rows.origins.files, rows.label_names, strict=True)
        if own is not None
    ]
    first, own = named[0]
    for file, other in named:
        if list(other) != list(own):
            raise _invalid(
                f"{first} names its labels {listed(own)}, but {file} {listed(other)}: the same number means different labels",
                "List these names in spec.dataset.labels, or write the files again with one order of names.",
                "spec.dataset.labels",
            )


def _share_a_name(own_names: Sequence[Sequence[str]], listed_labels: Sequence[str]) -> bool:
    return any(_as_listed(name, listed_labels) in listed_labels for own in own_names for name in own)


def _as_listed(name: str, listed_labels: Sequence[str]) -> str:
    """The name as the list writes it, which may be in other letters; the name itself where the list does not have it."""
    if name in listed_labels:
        return name
    key = look(name).casefold()
    alike = [label for label in listed_labels if look(label).casefold() == key]
    return alike[0] if len(alike) == 1 else name


def _refuse_names_that_are_none(own: Sequence[str], column: str) -> None:
    if len(set(own)) < len(own) or any(is_blank(name) for name in own):
        raise _invalid(
            f'the data\'s own names for the numbers in the column "{column}", {listed(own)}, are not all different or not all there',
            "Write the data again with one name for each number, or without names.",
        )


def _refuse_names_and_positions(values: set[str], known: Sequence[str]) -> None:
    """Where some numbers are names in the list and others are positions in it, those that are names must mean the same either way."""
    for value in sorted(values & set(known)):
        if known.index(value) != int(_canonical(value)):
            raise _invalid(
                f"the label {shortened(value)} is a name among the labels {listed(known)}, and as a position it is another one; other "
                f"labels in the data, such as {shortened(min(values - set(known)))}, are positions only",
                "Write the names themselves into the data, or list the numbers that the data holds.",
                "spec.dataset.labels",
            )


def _by_own_names(
    values: list[str],
    names_of_file: Sequence[Sequence[str] | None],
    rows: Rows,
    column: str,
    field: str,
    listed_labels: Sequence[str],
) -> list[str]:
    """Numbers as what they are called in their file, whatever these names look like; names stay, as do values in files without."""
    files = rows.origins.file.tolist()
    are_numbers = not any(isinstance(value, str) for value in rows.columns["label"])
    wanted: dict[tuple[str, int], str] = {}
    for value, file in set(zip(values, files, strict=True)):
        known = names_of_file[file]
        is_name = known is None or (
            (value in known or value in listed_labels) and not (are_numbers and rows.label_names[file])
        )
        name = value if is_name else dict(enumerate(known or ())).get(_position(value))
        if name is None:
            raise _no_position(value, known or (), values, rows, column, field)
        wanted[value, file] = name if is_name else _as_listed(name, listed_labels)
    return [wanted[place] for place in zip(values, files, strict=True)]


def _position(value: str) -> int:
    """-1 where it is none."""
    return int(_canonical(value)) if _WHOLE.fullmatch(value) else -1


def _by_position(values: list[str], known: Sequence[str], rows: Rows, column: str, field: str) -> list[str]:
    """Positions as the names they stand for; names stay."""
    wanted: dict[str, str] = {}
    for value in set(values):
        name = value if value in known else dict(enumerate(known)).get(_position(value))
        if name is None:
            raise _no_position(value, known, values, rows, column, field)
        wanted[value] = name
    return [wanted[value] for value in values]


def _no_position(value: str, known: Sequence[str], values: list[str], rows: Rows, column: str, field: str) -> JobError:
    places = [rows.origins[row] for row, other in enumerate(values) if other == value]
    where = f"{len(places):,} of {len(values):,} {rows_of(rows.split)} have it: {at(places, column)}"
    if value == "-1" and (any(rows.label_names) or _is_unlabelled(values, rows)):
        return _no_label(places, values, rows, column)
    numbers = {_canonical(other) for other in values}
    remedy = "Write every label as one of these names, or as a position that counts from 0."
    if numbers <= {str(number) for number in range(1, len(known) + 1)}:
        remedy += f" These count from 1. To keep them as they are, list the numbers themselves: {_as_yaml(numbers)}."
    elif "-1" in numbers:
        remedy += (
            f" If -1 is a label of its own, list the numbers themselves, {_as_yaml(numbers)}; if it marks rows without a label, "
            "remove them."
        )
    return _invalid(
        f"the label {shortened(value)} is not a position in the {len(known)} labels {listed(known)}, which count from "
        f"0 to {len(known) - 1}; {where}",
        remedy,
        field,
    )


def _as_yaml(numbers: set[str]) -> str:
    """`["-1", "0", "1"]`, as far as they are numbers."""
    return json.dumps(sorted((number for number in numbers if _WHOLE.fullmatch(number)), key=int)[:20])


def _is_unlabelled(values: list[str], rows: Rows) -> bool:
    """Whether the whole split is -1, and is none to train on: it is kept for a contest, and nobody outside has its labels."""
    return rows.split != "train" and set(values) == {"-1"}


def _no_label(places: Sequence[Origin], values: list[str], rows: Rows, column: str) -> JobError:
    """-1 where it says that nobody has labelled the row, as in data of the hub."""
    if _is_unlabelled(values, rows):
        field = f"spec.dataset.splits.{rows.split}"
        remedy = f"Leave out {field}, or name a split whose rows have labels."
    else:
        field = "spec.dataset.columns.label"
        remedy = "Copy the data without these rows to object storage, as Parquet, and name it there."
    return _invalid(
        f"the label -1 marks a row without a label, and {len(places):,} of {len(values):,} {rows_of(rows.split)} have it: "
        f"{at(places, column)}",
        remedy,
        field,
    )


def _numbers(
    values: list[str], rows: Rows, known: Labels, column: str, field: str, *, listed: bool
) -> NDArray[np.int64]:
    number = {name: position for position, name in enumerate(known)}
    unknown = set(values) - number.keys()
    if unknown:
        raise _unknown_label(values, unknown, rows, known, column, field, listed)
    return np.fromiter((number[value] for value in values), dtype=np.int64, count=len(values))


def _unknown_label(
    values: list[str], unknown: set[str], rows: Rows, known: Labels, column: str, field: str, is_listed: bool
) -> JobError:
    places: list[Origin] = [rows.origins[row] for row, value in enumerate(values) if value in unknown]
    one = min(unknown)
    said = f"the label {shortened(one)}" if len(unknown) == 1 else f"the labels {listed(sorted(unknown), 5)}"
    verb = "is" if len(unknown) == 1 else "are"
    where = f"{len(places):,} of {len(values):,} {rows_of(rows.split)}: {at(places, column)}"
    if is_listed:
        return _invalid(
            f"{said} {verb} not among the labels {listed(known)}.{nearest(one, known)} It is in {where}"
            if len(unknown) == 1
            else f"{said} {verb} not among the labels {listed(known)}. They are in {where}",
            "Correct the label, or list every label in spec.dataset.labels.",
            field,
        )
    if unknown == {"-1"} and _is_unlabelled(values, rows):
        return _no_label(places, values, rows, column)
    verb = "occurs" if len(unknown) == 1 else "occur"
    return _invalid(
        f"{said} {verb} in no training row, so the model cannot learn it, but in {where}. "
        f"The training labels are {listed(known)}.{nearest(one, known)}",
        "Correct the label, add training examples of it, or list every label in spec.dataset.labels to go on regardless.",
        field,
    )


def _invalid(message: str, remedy: str, field: str = "spec.dataset.columns.label") -> JobError:
    return JobError(FailureReason.LABEL_INVALID, message, field=field, remedy=remedy)
