"""A validation split drawn from the training examples: stratified, repeatable, and sharing no text with what stays."""

from __future__ import annotations

import hashlib

import numpy as np

from finetune_api.failures import FailureReason, JobError
from finetune_trainer.data.examples import Examples


def split_validation(examples: Examples, fraction: float, seed: int) -> tuple[Examples, Examples]:
    """Training and validation examples, both in the order they had.

    Every text gets a digest of the seed and itself; of each label, those with the lowest digests are set aside. So the split
    depends on the texts and the seed only, not on the order of rows or on a library's random numbers, and rows with equal
    texts go the same way. Each label keeps at least one text for training. Raises JobError when nothing can be set aside.
    """
    pairs = examples.pairs or [""] * len(examples)
    digests = b"".join(_digest(seed, text, pair) for text, pair in zip(examples.texts, pairs, strict=True))
    # Sorted by digest, one entry a distinct text; two texts of one digest would merely go the same way.
    _, first, text_of_row = np.unique(np.frombuffer(digests, dtype=">u8"), return_index=True, return_inverse=True)
    label_of_text = examples.labels[first]
    labels, counts = np.unique(label_of_text, return_counts=True)
    text_aside = np.zeros(len(first), dtype=np.bool_)
    for label, quota in zip(labels, _quotas(counts.tolist(), fraction), strict=True):
        text_aside[np.flatnonzero(label_of_text == label)[:quota]] = True
    for label in np.setdiff1d(examples.labels, examples.labels[~text_aside[text_of_row]]):
        # Each of its texts is a text of another label too and went aside as one of those; the last of them comes back.
        text_aside[text_of_row[examples.labels == label].max()] = False
    aside = text_aside[text_of_row]
    if not aside.any():
        raise JobError(
            FailureReason.DATA_INVALID,
            f"validationFraction {fraction:g} of {len(examples)} training examples leaves none for validation",
            field="spec.dataset.validationFraction",
            remedy="Give more examples, a larger validationFraction, or rows of their own in splits.validation.",
        )
    return examples.take(np.flatnonzero(~aside)), examples.take(np.flatnonzero(aside))


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
