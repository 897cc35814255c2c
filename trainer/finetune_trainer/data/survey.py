"""What the data is like, before any training: how many rows, how even, how long, how often the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import get_args

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from finetune_api.result import MOST_LABELS, DataResult, LabelResult, LengthsResult, SplitResult
from finetune_trainer.data.examples import Examples, Split
from finetune_trainer.data.keys import among, different

FEW = 10
"""Training rows under which a label is learned from hardly anything."""
PERCENTILES = (50, 90, 99, 100)


@dataclass(frozen=True)
class SplitSurvey:
    """One split."""

    split: Split
    rows: int
    repeated: int
    """Rows whose inputs an earlier row of the split has."""
    contradictory: int
    """Rows whose inputs another row of the split has with another answer."""
    trained: int
    """Rows whose inputs a training row has; 0 for training itself."""


@dataclass(frozen=True)
class LabelRows:
    """How often a label occurs; in rows with several, in each."""

    label: str
    rows: Mapping[Split, int]


@dataclass(frozen=True)
class Lengths:
    """How long the encoded rows of a split are, as the model gets them."""

    split: Split
    unit: str
    """Such as `tokens`."""
    percentiles: Mapping[int, int]
    """The length that so many of a hundred rows do not exceed; 100 is the longest."""
    notes: tuple[str, ...]
    """What was cut: `12 examples are cut at 512 tokens`."""


@dataclass(frozen=True)
class Survey:
    """All splits."""

    splits: tuple[SplitSurvey, ...]
    """Training first."""
    labels: Mapping[str, tuple[LabelRows, ...]]
    """By role of a kind that has names; in the order of their numbers."""
    lengths: tuple[Lengths, ...] = ()
    """Of what is measured in tokens; known once it is encoded."""

    def few(self, role: str) -> list[LabelRows]:
        """Labels with fewer than `FEW` training rows, the rarest first."""
        rare = [label for label in self.labels[role] if label.rows["train"] < FEW]
        return sorted(rare, key=lambda label: label.rows["train"])

    def result(self) -> DataResult:
        """As result.json has it."""
        labels = [label for of_role in self.labels.values() for label in of_role][:MOST_LABELS]
        return DataResult(
            splits=[SplitResult(**vars(split)) for split in self.splits],
            labels=[LabelResult(label=label.label, rows=label.rows["train"]) for label in labels],
            lengths=[
                LengthsResult(split=one.split, unit=one.unit, percentiles=dict(one.percentiles), notes=list(one.notes))
                for one in self.lengths
            ],
        )

    def __str__(self) -> str:
        """A line for the log."""
        parts = [_listed("rows", {split.split: split.rows for split in self.splits})]
        parts += [
            _listed(what, found)
            for what, found in (
                ("repeated", {split.split: split.repeated for split in self.splits if split.repeated}),
                ("contradictory", {split.split: split.contradictory for split in self.splits if split.contradictory}),
                (
                    "with the inputs of training rows",
                    {split.split: split.trained for split in self.splits if split.trained},
                ),
            )
            if found
        ]
        for role, labels in self.labels.items():
            counts, few = [label.rows["train"] for label in labels], len(self.few(role))
            rare = f", {few:,} of them with fewer than {FEW}" if few else ""
            rows = f"{min(counts):,} training row{'s' * (min(counts) != 1)} each"
            if min(counts) < max(counts):
                rows = f"{min(counts):,} to {max(counts):,} training rows"
            parts.append(f"{role}: {len(labels):,} names with {rows}{rare}")
        for one in self.lengths[:1]:
            half, most, longest = (f"{one.percentiles[share]:,}" for share in (50, 99, 100))
            parts.append(
                f"{one.unit}: at most {half} in half of the {one.split} rows, {most} in 99 of 100, {longest} in all"
            )
        return "; ".join(parts)


def _listed(what: str, numbers: Mapping[Split, int]) -> str:
    return f"{what}: " + ", ".join(f"{split} {number:,}" for split, number in numbers.items())


def survey(
    splits: Mapping[Split, Examples], names: Mapping[str, Sequence[str]], keys: Mapping[Split, NDArray[np.uint64]]
) -> Survey:
    """`names` are the label names by role, and `keys` tell of each row what inputs it has, as `keys_of` makes them."""
    trained = different(keys["train"])
    found = []
    for split in (split for split in get_args(Split) if split in splits):
        examples, own = splits[split], keys[split]
        inputs = trained if split == "train" else different(own)
        repeated = len(own) - len(inputs)
        contradictory = _contradictory(own, inputs, _answers(examples, tuple(names))) if repeated else 0
        shared = 0 if split == "train" else int(among(own, trained).sum())
        found.append(SplitSurvey(split, len(examples), repeated, contradictory, shared))
    return Survey(tuple(found), {role: _label_rows(splits, role, own) for role, own in names.items()})


def lengths(split: Split, unit: str, costs: NDArray[np.integer], notes: Sequence[str]) -> Lengths:
    """`costs` are the lengths, shape (rows,)."""
    at = np.percentile(costs, PERCENTILES, method="inverted_cdf") if len(costs) else np.zeros(len(PERCENTILES))
    return Lengths(split, unit, dict(zip(PERCENTILES, map(int, at), strict=True)), tuple(notes))


def _answers(examples: Examples, roles: Sequence[str]) -> NDArray[np.int64]:
    """A number for each row, the same where all of these roles have the same; shape (rows,)."""
    found = np.zeros(len(examples), np.int64)
    for role in roles:
        numbers = _numbers(examples.column(role))
        found = found * (int(numbers.max(initial=0)) + 1) + numbers
    return found


def _numbers(column: pa.ChunkedArray) -> NDArray[np.int64]:
    """A number for each value, the same for the same values; several names of a row are a set or a sequence, as they stand."""
    if not pa.types.is_nested(column.type):
        return np.asarray(column.to_numpy(), dtype=np.int64)
    words = [
        pa.array([" ".join(map(str, value)) for value in chunk.to_pylist()], pa.string()) for chunk in column.chunks
    ]
    indices = pa.chunked_array(words, pa.string()).combine_chunks().dictionary_encode().indices
    return np.asarray(indices.to_numpy(zero_copy_only=False), dtype=np.int64)


def _contradictory(keys: NDArray[np.uint64], inputs: NDArray[np.uint64], answers: NDArray[np.int64]) -> int:
    """Rows whose key comes with more than one answer; `inputs` are the different keys in order."""
    of_row = np.searchsorted(inputs, keys)
    least, most = np.full(len(inputs), np.iinfo(np.int64).max), np.full(len(inputs), -1)
    np.minimum.at(least, of_row, answers)
    np.maximum.at(most, of_row, answers)
    return int((least < most)[of_row].sum())


def _label_rows(splits: Mapping[Split, Examples], role: str, names: Sequence[str]) -> tuple[LabelRows, ...]:
    counts = {split: _counts(examples.column(role), len(names)) for split, examples in splits.items()}
    return tuple(LabelRows(name, {split: int(of[n]) for split, of in counts.items()}) for n, name in enumerate(names))


def _counts(column: pa.ChunkedArray, names: int) -> NDArray[np.int64]:
    """How many rows have each name; chunk by chunk, as the column may not fit the memory."""
    total = np.zeros(names, np.int64)
    for chunk in column.chunks:
        if pa.types.is_nested(chunk.type):
            # A row with a name several times, such as a sentence with its tags, counts once.
            parent = pc.list_parent_indices(chunk).to_numpy().astype(np.int64)
            pairs = np.unique(parent * names + chunk.flatten().to_numpy(zero_copy_only=False))
            total += np.bincount(pairs % names, minlength=names)
        else:
            total += np.bincount(chunk.to_numpy(zero_copy_only=False), minlength=names)
    return total
