"""Which examples are the same: what leaks between splits, contradicts itself, or has to go the same way."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from finetune_trainer.data.examples import Examples, Stop
from finetune_trainer.data.kinds import Kinds

Keys = NDArray[np.uint64]
"""8 bytes an example, shape (rows,)."""

MIX = np.uint64(0x9E3779B97F4A7C15)
"""An odd number, so that the order of roles counts: (a, b) is another pair than (b, a)."""


def inputs(kinds: Kinds) -> list[str]:
    """The roles that a model is given."""
    return [role for role, kind in kinds.items() if kind.is_input]


def keys_of(examples: Examples, kinds: Kinds, stop: Stop, roles: Sequence[str] | None = None) -> Keys:
    """8 bytes an example, shape (rows,): equal where what these roles have is equal, one after another, as their kinds compare it; None for all
    inputs, whatever is to be answered to them."""
    roles = inputs(kinds) if roles is None else roles
    keys = np.zeros(len(examples), np.uint64)
    begin = 0
    for block in examples.blocks(*roles):
        stop()
        end = begin + len(block[roles[0]])
        for role in roles:
            keys[begin:end] = keys[begin:end] * MIX + kinds[role].keys(block[role])
        begin = end
    return keys


def different(keys: Keys) -> Keys:
    """Each of them once, in order. By sorting, which takes a fraction of what numpy's `unique` takes for so many different ones."""
    keys = np.sort(keys)
    return keys[np.append(True, keys[1:] != keys[:-1])] if len(keys) else keys


def among(keys: Keys, known: Keys) -> NDArray[np.bool_]:
    """Which of them are known, shape (rows,); `known` as of `different`."""
    places = np.minimum(np.searchsorted(known, keys), len(known) - 1)
    return np.asarray(known[places] == keys)


def first_with(keys: Keys) -> NDArray[np.int64]:
    """For each row the first that has its key, shape (rows,)."""
    order = np.argsort(keys, kind="stable")
    in_order = keys[order]
    begins = np.append(True, in_order[1:] != in_order[:-1])
    first = np.empty(len(keys), np.int64)
    first[order] = order[begins][np.cumsum(begins) - 1]
    return first
