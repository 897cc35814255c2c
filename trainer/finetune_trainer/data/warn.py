"""What is odd about the data and no error: said in the log and the report, and the run goes on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from finetune_trainer.data.alike import Looks, look, looks
from finetune_trainer.data.examples import Examples, Origin, Split
from finetune_trainer.data.labels import NUMBER
from finetune_trainer.data.problems import at, listed, rows_of, shortened, spelt

MANY = 20
"""Labels, from which on a different one in every second row is odd."""
WRITTEN_FOR_NOTHING = frozenset(
    {
        "nan",
        "NaN",
        "None",
        "null",
        "NULL",
        "NA",
        "N/A",
        "n/a",
        "<NA>",
        "#N/A",
        "NaT",
        "undefined",
        "#REF!",
        "#VALUE!",
        "#NAME?",
    }
)
"""As pandas, Excel, databases and programming languages write that there is no value."""


def warn_of_rows(splits: Mapping[Split, Examples], labels: Sequence[str], train_looks: Looks) -> list[str]:
    """Of the rows as they were read, before any of them are set aside; one sentence each. `train_looks` as of `looks`."""
    train = splits["train"]
    return [
        *_unlearned_labels(train, labels),
        *_doubtful_labels(train, labels),
        *_doubtful_texts(train),
        *_shared_rows(splits, train_looks),
    ]


def warn_of_absent_labels(splits: Mapping[Split, Examples], labels: Sequence[str], *, drawn: bool) -> list[str]:
    """Labels that are trained and that a split has no row of; `drawn` says that validation was drawn from the training rows."""
    warnings = []
    trained = set(splits["train"].numbers("label").tolist())
    for split, examples in splits.items():
        absent = [labels[number] for number in sorted(trained - set(examples.numbers("label").tolist()))]
        if not absent:
            continue
        said = f"label {listed(absent)}" if len(absent) == 1 else f"{len(absent)} labels {listed(absent)}"
        warning = f"No row of the {split} split has the {said}: the split's metrics say nothing about {'it' if len(absent) == 1 else 'them'}."
        if drawn and split == "validation":
            warning += " Raise spec.dataset.validationFraction, give more examples, or rows of their own in spec.dataset.splits.validation."
        warnings.append(warning)
    return warnings


def _unlearned_labels(train: Examples, labels: Sequence[str]) -> list[str]:
    """Labels without training examples."""
    warnings = []
    counts = np.bincount(train.numbers("label"), minlength=len(labels))
    for label, count in zip(labels, counts, strict=True):
        if not count:
            warnings.append(f'The label "{label}" is listed and has no training example: the model will not learn it.')
    return warnings


def _doubtful_labels(train: Examples, labels: Sequence[str]) -> list[str]:
    """Labels that are perhaps none: too many different ones, what programs write for nothing, look-alikes."""
    warnings = []
    if len(labels) > MANY and len(labels) > len(train) / 2:
        warnings.append(
            f"There are {len(labels):,} different labels in {len(train):,} training rows, such as {listed(labels, 3)}. If these "
            "are no classes, name another column in spec.dataset.columns.label."
        )
    nothing = [label for label in labels if label.strip() in WRITTEN_FOR_NOTHING]
    if nothing:
        counts = np.bincount(train.numbers("label"), minlength=len(labels))
        rows = sum(int(counts[labels.index(label)]) for label in nothing)
        warnings.append(
            f"The label {listed(nothing)}, in {rows:,} training rows, is learned as any other, and is what many programs write "
            "where there is no value. If these rows have no label, remove them."
        )
    alike: dict[str, list[str]] = {}
    for label in labels:
        alike.setdefault(look(label).casefold(), []).append(label)
    for group in alike.values():
        if len(group) > 1:
            warnings.append(
                f"The labels {', '.join(map(spelt, group))} differ only in case, blanks, or how Unicode writes the same characters, "
                "and are learned as different ones."
            )
    return warnings


def _shared_rows(splits: Mapping[Split, Examples], train_looks: Looks) -> list[str]:
    """Rows of validation or test that are training rows too, and equal training rows with different labels.

    Texts that a reader cannot tell apart are equal here; see `alike`.
    """
    train: dict[Any, int] = {}
    contradictions: list[Origin] = []
    examples = splits["train"]
    for row, (key, label) in enumerate(zip(train_looks, examples.numbers("label").tolist(), strict=True)):
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
        shared = [others.origins[row] for row, key in enumerate(looks(others)) if key in train]
        if shared:
            warnings.append(
                f"{len(shared):,} of {len(others):,} {rows_of(split)} have the text of a training row, so their metrics flatter: "
                f"{at(shared)}."
            )
    return warnings


def _doubtful_texts(train: Examples) -> list[str]:
    """Texts that are perhaps none: what programs write for no value, zero bytes, numbers only."""
    warnings = []
    texts = list(train.values("text"))
    nothing = [row for row, text in enumerate(texts) if len(text) < 10 and text.strip() in WRITTEN_FOR_NOTHING]
    if nothing:
        warnings.append(
            f"{len(nothing):,} training rows have a text such as {shortened(texts[nothing[0]])}, which many programs write "
            f"where there is no value: {at([train.origins[row] for row in nothing])}."
        )
    zeros = [train.origins[row] for row, text in enumerate(texts) if "\0" in text]
    if zeros:
        warnings.append(
            f"{len(zeros):,} training rows have a text with a zero byte in it, as damaged files do: {at(zeros)}."
        )
    if all(NUMBER.fullmatch(text) for text in texts):
        warnings.append(
            f"All texts are numbers, such as {shortened(texts[0])}. If these are no texts, name another column in "
            "spec.dataset.columns.text."
        )
    return warnings
