"""Which examples are the same: what leaks between splits, contradicts itself, or has to go the same way."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from finetune_trainer.data.examples import Examples, Stop
from finetune_trainer.data.kinds import Kinds

MIX = np.uint64(0x9E3779B97F4A7C15)
"""An odd number, so that the order of roles counts: (a, b) is another pair than (b, a)."""


def inputs(kinds: Kinds) -> list[str]:
    """The roles that a model is given."""
    return [role for role, kind in kinds.items() if kind.is_input]


def keys_of(examples: Examples, kinds: Kinds, stop: Stop) -> NDArray[np.uint64]:
    """8 bytes an example, shape (rows,): equal for equal inputs, as their kinds compare them, whatever is to be answered to them."""
    roles = inputs(kinds)
    keys = np.zeros(len(examples), np.uint64)
    begin = 0
    for block in examples.blocks(*roles):
        stop()
        end = begin + len(block[roles[0]])
        for role in roles:
            keys[begin:end] = keys[begin:end] * MIX + kinds[role].keys(block[role])
        begin = end
    return keys
