"""A validation split drawn from the training examples: stratified, repeatable, and sharing no text with what stays."""

from __future__ import annotations

import hashlib
from itertools import repeat

import numpy as np
from numpy.typing import NDArray

from finetune_api.failures import FailureReason, JobError
from finetune_trainer.data.alike import Looks
from finetune_trainer.data.examples import Examples

FAR = 2
"""Times more or less rows set aside than asked for, from which on it is said."""


def split_validation(
    examples: Examples, looked: Looks, fraction: float, seed: int
) -> tuple[Examples, Examples, list[str]]:
    """Training and validation examples, both in the order they had, and warnings. `looked` as of `looks(examples)`.

    Every text gets a digest of the seed and itself; of each label, those with the lowest digests are set aside. So the split
    depends on the texts and the seed only, not on the order of rows or on a library's random numbers, and rows with texts that
    look the same go the same way. Each label keeps at least one text for training. Raises JobError when nothing can be set aside.
    """
    # Sorted by digest, one entry a distinct text; two texts of one digest would merely go the same way.
    _, first, text_of_row = np.unique(_digests(examples, looked, seed), return_index=True, return_inverse=True)
    label_of_row = examples.numbers("label")
    label_of_text = label_of_row[first]
    labels, counts = np.unique(label_of_text, return_counts=True)
    text_aside = np.zeros(len(first), dtype=np.bool_)
    for label, quota in zip(labels, _quotas(counts.tolist(), fraction), strict=True):
        text_aside[np.flatnonzero(label_of_text == label)[:quota]] = True
    for label in np.setdiff1d(label_of_row, label_of_row[~text_aside[text_of_row]]):
        # Each of its texts is a text of another label too and went aside as one of those; the last of them comes back.
        text_aside[text_of_row[label_of_row == label].max()] = False
    aside = text_aside[text_of_row]
    rows, texts = len(examples), len(first)
    if not aside.any():
        raise _nothing_aside(rows, texts, fraction)
    warnings = []
    share = aside.sum() / rows
    if texts < rows and not fraction / FAR <= share <= fraction * FAR:
        warnings.append(
            f"{aside.sum():,} of {rows:,} training rows are set aside for validation, for a validationFraction of {fraction:g}: there "
            f"are only {texts:,} different texts, and rows with equal texts stay together."
        )
    return examples.take(np.flatnonzero(~aside)), examples.take(np.flatnonzero(aside)), warnings


def _nothing_aside(rows: int, texts: int, fraction: float) -> JobError:
    said = f"validationFraction {fraction:g} of {rows:,} training examples leaves none for validation"
    remedy = "Give more examples, a larger validationFraction, or rows of their own in splits.validation."
    if texts < rows:
        said += f": they hold only {texts:,} different texts, rows with equal texts stay together, and each label keeps one for training"
        remedy = "Give examples with other texts, or rows of their own in splits.validation."
    return JobError(FailureReason.DATA_INVALID, said, field="spec.dataset.validationFraction", remedy=remedy)


def _digests(examples: Examples, looked: Looks, seed: int) -> NDArray[np.uint64]:
    """A number a row, shape (rows,): equal for texts that look the same, of which the lowest digest counts."""
    texts = list(examples.values("text"))
    pairs = list(examples.values("textPair")) if "textPair" in examples.roles else None
    digests = np.frombuffer(
        b"".join(_digest(seed, text, pair) for text, pair in zip(texts, pairs or repeat(""), strict=False)), dtype=">u8"
    ).astype(np.uint64)
    if (texts if pairs is None else list(zip(texts, pairs, strict=True))) == looked:
        return digests
    number: dict[str | tuple[str, str], int] = {}
    look_of_row = np.fromiter((number.setdefault(look, len(number)) for look in looked), np.int64, len(digests))
    lowest = np.full(len(number), np.iinfo(np.uint64).max, dtype=np.uint64)
    np.minimum.at(lowest, look_of_row, digests)
    return lowest[look_of_row]


def _digest(seed: int, text: str, pair: str) -> bytes:
    return hashlib.blake2b(f"{seed}\0{text}\0{pair}".encode("utf-8", "surrogatepass"), digest_size=8).digest()


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
