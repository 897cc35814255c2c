"""A validation split drawn from the training examples: stratified, repeatable, and sharing no text with what stays."""

from __future__ import annotations

import hashlib
from collections import defaultdict

import numpy as np
from finetune_api.failures import FailureReason, JobError
from numpy.typing import NDArray

from finetune_trainer.data.examples import Examples


def split_validation(examples: Examples, fraction: float, seed: int) -> tuple[Examples, Examples]:
    """Training and validation examples, both in the order they had.

    Every text gets a digest of the seed and itself; of each label, those with the lowest digests are set aside. So the split
    depends on the texts and the seed only, not on the order of rows or on a library's random numbers, and rows with equal
    texts go the same way. Each label keeps at least one text for training. Raises JobError when nothing can be set aside.
    """
    groups: dict[bytes, list[int]] = defaultdict(list)
    for row, text in enumerate(examples.texts):
        pair = "" if examples.pairs is None else examples.pairs[row]
        key = f"{seed}\0{text}\0{pair}".encode("utf-8", "surrogatepass")
        groups[hashlib.blake2b(key, digest_size=16).digest()].append(row)
    by_label: dict[int, list[bytes]] = defaultdict(list)
    for digest in sorted(groups):
        by_label[int(examples.labels[groups[digest][0]])].append(digest)
    aside = np.zeros(len(examples), dtype=np.bool_)
    for label, number in _quotas({label: len(digests) for label, digests in by_label.items()}, fraction).items():
        for digest in by_label[label][:number]:
            aside[groups[digest]] = True
    if not aside.any():
        raise JobError(
            FailureReason.DATA_INVALID,
            f"validationFraction {fraction:g} of {len(examples)} training examples leaves none for validation",
            field="spec.dataset.validationFraction",
            remedy="Give more examples, a larger validationFraction, or rows of their own in splits.validation.",
        )
    return examples.take(_rows(~aside)), examples.take(_rows(aside))


def _rows(mask: NDArray[np.bool_]) -> NDArray[np.int64]:
    return np.flatnonzero(mask).astype(np.int64)


def _quotas(sizes: dict[int, int], fraction: float) -> dict[int, int]:
    """How many of each label, by largest remainder: together the fraction of all, each label in its proportion."""
    exact = {label: size * fraction for label, size in sizes.items()}
    quotas = {label: min(int(share), sizes[label] - 1) for label, share in exact.items()}
    missing = round(sum(exact.values())) - sum(quotas.values())
    for label in sorted(exact, key=lambda label: (quotas[label] - exact[label], label)):
        if missing > 0 and quotas[label] < sizes[label] - 1:
            quotas[label] += 1
            missing -= 1
    return quotas
