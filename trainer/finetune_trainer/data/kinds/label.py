"""Labels: from the values of their column to names and positions.

Values may be names, whole numbers (1, "1" and 1.0 are the same label), or booleans. Numbers are numbers, also where a file has
only strings: fractions are no labels unless the spec lists them. With names in the spec, whole numbers that are not themselves
names are positions in that list. Where a file has names of its own for its numbers, these say what they mean, as two files may list
the same names in different orders; only a list in the spec that has none of them gives them other names.

A column of labels has few different values, so it is kept as these and a number for each row.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import partial
from numbers import Real
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from finetune_api.failures import FailureReason, JobError
from finetune_trainer.data.alike import is_blank, look
from finetune_trainer.data.examples import Origins, Split
from finetune_trainer.data.kinds.number import NUMBER
from finetune_trainer.data.kinds.values import Named, Read, Values
from finetune_trainer.data.problems import (
    at,
    data_invalid,
    empty_to_the_hub,
    listed,
    nearest,
    rows_of,
    shortened,
    spelt,
)

MAX_LABELS = 1000

_WHOLE = re.compile(r"(-?(?:0|[1-9][0-9]*))(?:\.0+)?")
_ZEROS = re.compile(r"[-+]?0[0-9]|[+]")  # 007 and +1 are names

Names = tuple[str, ...]


class Label(Values):
    type: ClassVar[pa.DataType] = pa.int64()
    is_input: ClassVar[bool] = False
    noun: ClassVar[str] = "label"
    another: ClassVar[str] = "another label"

    def __init__(self, role: str, column: str, split: Split) -> None:
        super().__init__(role, column, split)
        self._distinct = Distinct()
        self._codes: list[NDArray[np.int32]] = []

    def takes(self, type: pa.DataType) -> bool:
        return True

    def read(self, values: Sequence[Any] | pa.Array) -> None:
        self._codes.append(self._distinct.codes_of(values))
        self.rows += len(values)

    def coded(self, origins: Origins, own_names: Sequence[Sequence[str] | None]) -> Column:
        """All that was read; `own_names` as of `Values.named`."""
        codes = np.concatenate([np.empty(0, np.int32), *self._codes])
        return Column(self, self._distinct.values, codes, origins, own_names)

    def check(self, table: pa.Table, origins: Origins) -> None:
        """Only names tell what is wrong with a label; see `named`."""

    @classmethod
    def named(cls, splits: Sequence[Read], listed_labels: Sequence[str] | None) -> Named:
        columns = [values.coded(origins, own) for values, origins, own in splits if isinstance(values, cls)]
        names, numbers, warnings = encode_labels(columns, listed_labels)
        _check_counts(columns[0], numbers[0], names)
        return Named(names, [pa.array(positions) for positions in numbers], warnings)

    @staticmethod
    def keys(values: Iterable[Any]) -> NDArray[np.uint64]:
        return np.fromiter(values, np.uint64)


class Distinct:
    """Different values, and the number of each: 1, "1", 1.0 and true are four."""

    def __init__(self) -> None:
        self.values: list[Any] = []
        self._numbers: dict[Any, int] = {}

    def codes_of(self, values: Sequence[Any] | pa.Array) -> NDArray[np.int32]:
        """The number of each value, shape (len(values),)."""
        if isinstance(values, pa.Array):
            try:
                encoded = values.dictionary_encode()
            except pa.ArrowNotImplementedError:  # of lists, which are no labels
                return self.codes_of(values.to_pylist())
            places, inverse = np.unique(encoded.indices.cast(pa.int64()).fill_null(-1).to_numpy(), return_inverse=True)
            different = [None if place < 0 else encoded.dictionary[place].as_py() for place in places.tolist()]
            return self.codes_of(different)[inverse]
        keys = values if set(map(type, values)) == {str} else [_key(value) for value in values]
        for key, value in dict(zip(keys, values, strict=True)).items():
            if key not in self._numbers:
                self._numbers[key] = len(self.values)
                self.values.append(value)
        return np.fromiter(map(self._numbers.__getitem__, keys), np.int32, len(values))


def _key(value: Any) -> Any:
    return value if type(value) is str else (type(value), repr(value))


@dataclass(frozen=True)
class Column:
    """The labels of one split as they were read."""

    of: Values
    values: Sequence[Any]
    """All different."""
    codes: NDArray[np.int32]
    """For each label, the place of its value in `values`; shape (labels,)."""
    origins: Origins
    """Of the rows."""
    own_names: Sequence[Sequence[str] | None]
    """For each of `origins.files`, the names of its whole-number labels, where it tells them."""
    row: NDArray[np.int64] | None = None
    """For each label its row, shape (labels,); None where each row has one."""

    def __len__(self) -> int:
        return len(self.origins)

    @property
    def split(self) -> Split:
        return self.of.split

    @property
    def column(self) -> str:
        return self.of.column

    @property
    def field(self) -> str:
        return self.of.field

    @property
    def file(self) -> NDArray[np.int32]:
        """For each label, the index of its file."""
        return self.origins.file if self.row is None else self.origins.file[self.row]

    def which(self, is_one: Callable[[Any], bool]) -> NDArray[np.int64]:
        """The labels with such a value."""
        return np.flatnonzero(np.fromiter(map(is_one, self.values), np.bool_, len(self.values))[self.codes])

    def places(self, labels: NDArray[np.int64]) -> Origins:
        """The rows of these labels."""
        return self.origins.take(labels if self.row is None else np.unique(self.row[labels]))


@dataclass(frozen=True)
class Spelling:
    """The labels of one split as strings, `names[codes]`; of equal strings there may be several."""

    names: Sequence[str]
    codes: NDArray[np.int32]

    def spelt(self, names: Iterable[str]) -> Spelling:
        return Spelling(list(names), self.codes)

    def with_names(self, names: Collection[str]) -> NDArray[np.int64]:
        return np.flatnonzero(np.array([name in names for name in self.names], np.bool_)[self.codes])


def encode_labels(
    splits: Sequence[Column], listed_labels: Sequence[str] | None
) -> tuple[Names, list[NDArray[np.int64]], list[str]]:
    """Label names, for each split (training first) the position of each row's label, and warnings of names that others took the place of.

    Raises JobError (LabelInvalid): null or empty labels, fractions, mixed types, labels that are not listed, labels that
    occur only outside the training rows, so many different ones that the column is hardly one of labels, or names in the spec
    for numbers that mean different things in different files.
    """
    spellings = [_spelling(labels, frozenset(listed_labels or ())) for labels in splits]
    own_names = [own for labels in splits for own in labels.own_names if own]
    for own in own_names:
        _refuse_names_that_are_none(own, splits[0])
    of_data = next((own for own in splits[0].own_names if own), None)
    field = "spec.dataset.labels" if listed_labels else splits[0].field
    warnings = []
    if own_names and listed_labels and not _share_a_name(own_names, listed_labels):
        _refuse_different_names(splits)
        warnings.append(
            f"The data names its labels {listed(own_names[0])}; by their positions they are called {listed(listed_labels)} here, as "
            "spec.dataset.labels says."
        )
    elif of_data or (own_names and (listed_labels or not all(map(_WHOLE.fullmatch, set(spellings[0].names))))):
        spellings = [
            _by_own_names(spelling, [own or of_data for own in labels.own_names], labels, field, listed_labels or ())
            for spelling, labels in zip(spellings, splits, strict=True)
        ]
    known = tuple(listed_labels or of_data or ())
    train = set(spellings[0].names)
    if not known:
        for spelling, labels in zip(spellings, splits, strict=True):
            _refuse_fractions(spelling, labels)
        numeric = all(_WHOLE.fullmatch(name) for name in train)
        if numeric:
            spellings = [spelling.spelt(map(_canonical, spelling.names)) for spelling in spellings]
        known = _found(set(spellings[0].names), numeric, splits[0])
    elif not train <= set(known) and not all(_WHOLE.fullmatch(label) for label in known):
        if {name.casefold() for name in train} <= {"false", "true"} and len(known) == 2:
            # They are names where the list has them, however it writes them, and else positions.
            meant = {name.casefold(): name for name in known}
            if meant.keys() != {"false", "true"}:
                meant = {"false": "0", "true": "1"}
                warnings.append(
                    f"The label false is taken for {spelt(known[0])} and true for {spelt(known[1])}, by their positions."
                )
            spellings = [s.spelt(meant.get(name.casefold(), name) for name in s.names) for s in spellings]
            train = set(spellings[0].names)
        if not train <= set(known) and all(_WHOLE.fullmatch(name) for name in train):
            _refuse_names_and_positions(train, known)
            spellings = [
                _by_position(spelling, known, labels, field) for spelling, labels in zip(spellings, splits, strict=True)
            ]
    elif not train <= set(known):
        spellings = [spelling.spelt(map(_canonical, spelling.names)) for spelling in spellings]
    return (
        known,
        [
            _numbers(spelling, labels, known, field, listed=bool(listed_labels or of_data))
            for spelling, labels in zip(spellings, splits, strict=True)
        ],
        warnings,
    )


def _spelling(labels: Column, listed_labels: frozenset[str]) -> Spelling:
    """Each value as a string: `true`, `1` and `1.0` as they are in JSON, with whole floats as whole numbers."""
    values, codes = labels.values, labels.codes
    kinds = set(map(type, values))
    empty = labels.places(labels.which(_is_empty))
    if len(empty):
        raise _invalid(
            f"the label is empty in {len(empty):,} of {len(labels):,} {rows_of(labels.split)}: {at(empty, labels.column)}",
            f"Remove these rows, or give them a label.{empty_to_the_hub(labels.origins)}",
            labels.field,
        )
    families = {"numbers" if _is_number(kind) else kind.__name__ for kind in kinds}
    if len(families) > 1:
        firsts = [int(labels.which(partial(_is_of, kind))[0]) for kind in kinds]
        said = "; ".join(
            f"{values[codes[first]]!r} in {labels.places(np.array([first]))[0]}" for first in sorted(firsts)
        )
        raise _invalid(
            f'the column "{labels.column}" mixes types: {said}',
            "Write all labels as strings, or all as whole numbers.",
            labels.field,
        )
    if families == {"numbers"}:
        if not listed_labels:
            broken = labels.which(lambda value: not _is_whole(value))
            if len(broken):
                raise _no_whole_number(str(values[codes[broken[0]]]), broken, labels)
        return Spelling(
            [
                str(value) if not _is_whole(value) or str(value) in listed_labels else str(int(value))
                for value in values
            ],
            codes,
        )
    if families == {"bool"}:
        return Spelling(["true" if value else "false" for value in values], codes)
    if families == {"str"} or not families:
        return Spelling(values, codes)
    raise _invalid(
        f"{shortened(values[codes[0]])} of type {families.pop()} is no label: {at(labels.places(np.array([0])), labels.column)}",
        "Write labels as strings or whole numbers.",
        labels.field,
    )


def _is_of(kind: type, value: Any) -> bool:
    return type(value) is kind


def _is_number(kind: type) -> bool:
    return issubclass(kind, (Real, Decimal)) and not issubclass(kind, bool)


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) or (math.isfinite(value) and value == int(value))


def _is_empty(value: Any) -> bool:
    if isinstance(value, str):
        return is_blank(value)
    return value is None or (_is_number(type(value)) and not isinstance(value, int) and math.isnan(value))


def _refuse_fractions(spelling: Spelling, labels: Column) -> None:
    """Strings that are all numbers, some of them no whole ones, as JSON would have them as numbers."""
    different = set(spelling.names)
    if not all(NUMBER.fullmatch(value) for value in different) or all(_WHOLE.fullmatch(value) for value in different):
        return
    fractions = {value for value in different if not _WHOLE.fullmatch(value) and not _ZEROS.match(value)}
    broken = spelling.with_names(fractions)
    if len(broken):
        raise _no_whole_number(spelling.names[spelling.codes[broken[0]]], broken, labels)


def _no_whole_number(value: str, broken: NDArray[np.int64], labels: Column) -> JobError:
    places = labels.places(broken)
    return _invalid(
        f"{value} is no whole number, so no label, in {len(places):,} of {len(labels):,} "
        f"{rows_of(labels.split)}: {at(places, labels.column)}",
        "Name the column with the classes, or turn the numbers into classes: regression is not what this task learns. If they are "
        'names that look like numbers, list them all in spec.dataset.labels, such as ["1.5", "2.5"].',
        labels.field,
    )


def _canonical(name: str) -> str:
    """`1.0` as `1`; anything that is no whole number as it is."""
    match = _WHOLE.fullmatch(name)
    return str(int(match[1])) if match else name  # -0 is 0


def _found(names: set[str], numeric: bool, train: Column) -> Names:
    if len(names) > MAX_LABELS:
        raise _invalid(
            f'the column "{train.column}" has {len(names):,} different values in {len(train):,} training rows, such as '
            f"{listed(sorted(names), 3)}; there may be {MAX_LABELS:,} labels at most",
            "Name the column with the classes.",
            train.field,
        )
    return tuple(sorted(names, key=int) if numeric else sorted(names))


def _refuse_different_names(splits: Sequence[Column]) -> None:
    """Names of the spec replace those of the data by position, which needs one meaning of each position."""
    named = [
        (file, own)
        for labels in splits
        for file, own in zip(labels.origins.files, labels.own_names, strict=True)
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


def _refuse_names_that_are_none(own: Sequence[str], labels: Column) -> None:
    if len(set(own)) < len(own) or any(is_blank(name) for name in own):
        raise _invalid(
            f'the data\'s own names for the numbers in the column "{labels.column}", {listed(own)}, are not all different or not all there',
            "Write the data again with one name for each number, or without names.",
            labels.field,
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
    spelling: Spelling,
    names_of_file: Sequence[Sequence[str] | None],
    labels: Column,
    field: str,
    listed_labels: Sequence[str],
) -> Spelling:
    """Numbers as what they are called in their file, whatever these names look like; names stay, as do values in files without."""
    are_numbers = not any(isinstance(value, str) for value in labels.values)
    # One number for each value and file that occur together.
    many = len(spelling.names)
    pairs, codes = np.unique(labels.file.astype(np.int64) * many + spelling.codes, return_inverse=True)
    wanted = []
    for file, value in ((pair // many, spelling.names[pair % many]) for pair in pairs.tolist()):
        known = names_of_file[file]
        is_name = known is None or (
            (value in known or value in listed_labels) and not (are_numbers and labels.own_names[file])
        )
        name = value if is_name else dict(enumerate(known or ())).get(_position(value))
        if name is None:
            raise _no_position(value, known or (), spelling, labels, field)
        wanted.append(value if is_name else _as_listed(name, listed_labels))
    return Spelling(wanted, codes.astype(np.int32))


def _position(value: str) -> int:
    """-1 where it is none."""
    return int(_canonical(value)) if _WHOLE.fullmatch(value) else -1


def _by_position(spelling: Spelling, known: Sequence[str], labels: Column, field: str) -> Spelling:
    """Positions as the names they stand for; names stay."""
    wanted: dict[str, str] = {}
    for value in set(spelling.names):
        name = value if value in known else dict(enumerate(known)).get(_position(value))
        if name is None:
            raise _no_position(value, known, spelling, labels, field)
        wanted[value] = name
    return spelling.spelt(wanted[value] for value in spelling.names)


def _no_position(value: str, known: Sequence[str], spelling: Spelling, labels: Column, field: str) -> JobError:
    places = labels.places(spelling.with_names({value}))
    where = f"{len(places):,} of {len(labels):,} {rows_of(labels.split)} have it: {at(places, labels.column)}"
    if value == "-1" and (any(labels.own_names) or _is_unlabelled(spelling, labels)):
        return _no_label(places, spelling, labels)
    numbers = {_canonical(other) for other in spelling.names}
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


def _is_unlabelled(spelling: Spelling, labels: Column) -> bool:
    """Whether the whole split is -1, and is none to train on: it is kept for a contest, and nobody outside has its labels."""
    return labels.split != "train" and set(spelling.names) == {"-1"}


def _no_label(places: Origins, spelling: Spelling, labels: Column) -> JobError:
    """-1 where it says that nobody has labelled the row, as in data of the hub."""
    if _is_unlabelled(spelling, labels):
        field = f"spec.dataset.splits.{labels.split}"
        remedy = f"Leave out {field}, or name a split whose rows have labels."
    else:
        field = labels.field
        remedy = "Copy the data without these rows to object storage, as Parquet, and name it there."
    return _invalid(
        f"the label -1 marks a row without a label, and {len(places):,} of {len(labels):,} {rows_of(labels.split)} have it: "
        f"{at(places, labels.column)}",
        remedy,
        field,
    )


def _numbers(spelling: Spelling, labels: Column, known: Names, field: str, *, listed: bool) -> NDArray[np.int64]:
    number = {name: position for position, name in enumerate(known)}
    unknown = set(spelling.names) - number.keys()
    if unknown:
        raise _unknown_label(spelling, unknown, labels, known, field, listed)
    return np.array([number[name] for name in spelling.names], np.int64)[spelling.codes]


def _unknown_label(
    spelling: Spelling, unknown: set[str], labels: Column, known: Names, field: str, is_listed: bool
) -> JobError:
    places = labels.places(spelling.with_names(unknown))
    one = min(unknown)
    said = f"the label {shortened(one)}" if len(unknown) == 1 else f"the labels {listed(sorted(unknown), 5)}"
    verb = "is" if len(unknown) == 1 else "are"
    where = f"{len(places):,} of {len(labels):,} {rows_of(labels.split)}: {at(places, labels.column)}"
    if is_listed:
        return _invalid(
            f"{said} {verb} not among the labels {listed(known)}.{nearest(one, known)} It is in {where}"
            if len(unknown) == 1
            else f"{said} {verb} not among the labels {listed(known)}. They are in {where}",
            "Correct the label, or list every label in spec.dataset.labels.",
            field,
        )
    if unknown == {"-1"} and _is_unlabelled(spelling, labels):
        return _no_label(places, spelling, labels)
    verb = "occurs" if len(unknown) == 1 else "occur"
    return _invalid(
        f"{said} {verb} in no training row, so the model cannot learn it, but in {where}. "
        f"The training labels are {listed(known)}.{nearest(one, known)}",
        "Correct the label, add training examples of it, or list every label in spec.dataset.labels to go on regardless.",
        field,
    )


def _check_counts(train: Column, numbers: NDArray[np.int64], names: Names) -> None:
    """There are two labels or more to tell apart, and not fewer examples than labels. Raises JobError."""
    present = np.unique(numbers).tolist()
    if len(present) < 2:
        raise _invalid(
            f'all {len(train):,} training examples have the label "{names[present[0]]}", so there is nothing to tell apart',
            "Name the column that holds the labels, or add examples of the other labels.",
            train.field,
        )
    if len(train) < len(names):
        raise data_invalid(
            f"there are {len(train)} training examples for {len(names)} labels",
            "Give at least one example of each label, better some dozens, or list fewer spec.dataset.labels.",
            "spec.dataset.labels",
        )


def _invalid(message: str, remedy: str, field: str) -> JobError:
    return JobError(FailureReason.LABEL_INVALID, message, field=field, remedy=remedy)
