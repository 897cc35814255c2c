"""The order of training: batches of examples of like length, in an order that depends on the seed and the epoch alone."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count, islice

import numpy as np
from numpy.typing import NDArray

from finetune_api.training import Training

POOL = 50
"""Batches whose examples are sorted together. More gives less padding, fewer gives more random company."""


@dataclass(frozen=True)
class Extent:
    """How long a training is, in optimiser steps, unless it stops early."""

    per_epoch: int
    steps: int

    @classmethod
    def of(cls, training: Training, features: int) -> Extent:
        per_epoch = math.ceil(features / training.batch_size)
        return cls(per_epoch, min(training.epochs * per_epoch, training.max_steps or 2**31))

    @property
    def epochs(self) -> int:
        """That begin."""
        return math.ceil(self.steps / self.per_epoch)


class LengthBucketedBatches:
    """Each example once an epoch, neighbours in length together, batches shuffled.

    The examples are shuffled, cut into pools of `POOL` batches, sorted by length within each pool and cut into batches. The last
    batch to be cut may be smaller; it stands anywhere in the epoch. Nothing is drawn from a global random generator, so an epoch
    resumes at any batch by leaving out those before it.
    """

    def __init__(self, lengths: NDArray[np.int64], batch_size: int, seed: int) -> None:
        self._lengths = lengths
        self._batch_size = batch_size
        self._seed = seed

    def __len__(self) -> int:
        """Batches of an epoch."""
        return -(-len(self._lengths) // self._batch_size)

    def after(self, step: int) -> Iterator[NDArray[np.int64]]:
        """The batches of the steps that follow the first `step` ones, epoch after epoch, without an end."""
        first, done = divmod(step, len(self))
        for epoch in count(first):
            yield from islice(self.epoch(epoch), done if epoch == first else 0, None)

    def epoch(self, number: int) -> Iterator[NDArray[np.int64]]:
        """The batches of one epoch, counted from 0; each has the indices of its examples, shape (examples,)."""
        random = np.random.default_rng([self._seed, number])
        order = random.permutation(len(self._lengths))
        pool = self._batch_size * POOL
        for begin in range(0, len(order), pool):
            part = order[begin : begin + pool]
            order[begin : begin + pool] = part[np.argsort(-self._lengths[part], kind="stable")]
        for batch in random.permutation(len(self)):
            begin = int(batch) * self._batch_size
            yield order[begin : begin + self._batch_size]
