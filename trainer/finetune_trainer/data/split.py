"""A validation split drawn from the training examples: stratified, repeatable, and sharing no text with what stays."""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import blake2b
from itertools import repeat

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from finetune_api.failures import FailureReason, JobError
from finetune_api.tasks import Form, Kind
from finetune_trainer.data.examples import Examples
from finetune_trainer.data.keys import first_with
from finetune_trainer.data.kinds import Kinds, kind_of

FAR = 2
"""Times more or less rows set aside than asked for, from which on it is said."""


def choose_validation(
    examples: Examples, form: Form, keys: NDArray[np.uint64], fraction: float, seed: int
) -> tuple[NDArray[np.bool_], list[str]]:
    """Which of the training examples are set aside for validation, shape (rows,), and warnings. `keys` as of `keys_of`, of
    the inputs that stay together.

    Every example's inputs get a digest of the seed and themselves; of each label, those with the lowest digests are set aside. So
    the split depends on the inputs and the seed only, not on the order of rows or on a library's random numbers, and rows with
    inputs that look the same go the same way. Each label keeps at least one input for training; where the form has no label, all
    examples are of one. Raises JobError when nothing can be set aside.
    """
    # Sorted by digest, one entry a distinct text; two texts of one digest would merely go the same way.
    _, first, text_of_row = np.unique(_digests(examples, form, keys, seed), return_index=True, return_inverse=True)
    strata = form.of_kinds(frozenset({Kind.LABEL}))
    label_of_row = examples.numbers(strata[0]) if strata else np.zeros(len(examples), np.int64)
    label_of_text = label_of_row[first]
    labels, counts = np.unique(label_of_text, return_counts=True)
    text_aside = np.zeros(len(first), dtype=np.bool_)
    for label, quota in zip(labels, _quotas(counts.tolist(), fraction), strict=True):
        text_aside[np.flatnonzero(label_of_text == label)[:quota]] = True
    for label in np.setdiff1d(label_of_row, label_of_row[~text_aside[text_of_row]]):
        # Each of its texts is a text of another label too and went aside as one of those; the last of them comes back.
        text_aside[text_of_row[label_of_row == label].max()] = False
    aside = np.asarray(text_aside[text_of_row])
    noun = next(iter(_kinds(form, examples).values())).noun
    rows, texts = len(examples), len(first)
    if not aside.any():
        raise _nothing_aside(rows, texts, fraction, noun)
    warnings = []
    share = aside.sum() / rows
    if texts < rows and not fraction / FAR <= share <= fraction * FAR:
        warnings.append(
            f"{aside.sum():,} of {rows:,} training rows are set aside for validation, for a validationFraction of {fraction:g}: there "
            f"are only {texts:,} different {noun}s, and rows with equal {noun}s stay together."
        )
    return aside, warnings


def _nothing_aside(rows: int, texts: int, fraction: float, noun: str) -> JobError:
    said = f"validationFraction {fraction:g} of {rows:,} training examples leaves none for validation"
    remedy = "Give more examples, a larger validationFraction, or rows of their own in splits.validation."
    if texts < rows:
        said += f": they hold only {texts:,} different {noun}s, rows with equal {noun}s stay together, and each label keeps one for training"
        remedy = f"Give examples with other {noun}s, or rows of their own in splits.validation."
    return JobError(FailureReason.DATA_INVALID, said, field="spec.dataset.validationFraction", remedy=remedy)


def together_of(form: Form, splits: Iterable[Examples]) -> Kinds:
    """By role, of which rows with the same one stay together, as the form says. None where some rows have nothing in it: these have not the same."""
    splits = list(splits)
    return {
        role.name: kind_of(role)
        for role in form.roles
        if role.together and all(_all_have(some.column(role.name)) for some in splits)
    }


def _all_have(column: pa.ChunkedArray) -> bool:
    return not pa.types.is_list(column.type) or bool(pc.all(pc.greater(pc.list_value_length(column), 0)).as_py())


def _kinds(form: Form, examples: Examples) -> Kinds:
    """By role, of what stays together: all inputs where it is none of them."""
    return together_of(form, [examples]) or {role.name: kind for role in form.roles if (kind := kind_of(role)).is_input}


def _digests(examples: Examples, form: Form, keys: NDArray[np.uint64], seed: int) -> NDArray[np.uint64]:
    """A number a row, shape (rows,): equal for inputs that look the same, of which the lowest digest counts."""
    kinds = _kinds(form, examples)
    digests = np.empty(len(examples), np.uint64)
    begin = 0
    for block in examples.blocks(*(role for role in kinds if role in examples.roles)):
        # Nothing stands for a role that the data leaves out.
        parts = [kind.spelt(block[role]) if role in block else repeat("") for role, kind in kinds.items()]
        texts = map("\0".join, zip(repeat(str(seed)), *parts, strict=False))
        joined = [blake2b(text.encode(), digest_size=8).digest() for text in texts]
        digests[begin : begin + len(joined)] = np.frombuffer(b"".join(joined), dtype=">u8")
        begin += len(joined)
    first = first_with(keys)
    lowest = np.full(len(digests), np.iinfo(np.uint64).max, dtype=np.uint64)
    np.minimum.at(lowest, first, digests)
    return np.asarray(lowest[first])


def _quotas(sizes: list[int], fraction: float) -> list[int]:
    """How many of each label, by largest remainder: together the fraction of all, each label in its proportion."""
    exact = [size * fraction for size in sizes]
    quotas = [min(int(share), size - 1) for share, size in zip(exact, sizes, strict=True)]
    missing = round(sum(exact)) - sum(quotas)
    for label in sorted(range(len(sizes)), key=lambda label: quotas[label] - exact[label]):
        if missing > 0 and quotas[label] < sizes[label] - 1:
            quotas[label] += 1
            missing -= 1
    return quotas
