"""Short texts put together to features that are about full, so that little is padding and each forward pass has as much to do.

Which texts stand together is found once, by best fit (Johnson 1973): the longest text first, each into the fullest feature that has room
for it. It depends on lengths and seed alone, so that each attempt of a run has the same features. Texts of which nothing is learnt are left
out.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from finetune_trainer.documents import Documents
from finetune_trainer.tasks.ragged import Ragged

OF, POSITIONS, STARTS = "documents", "position_ids", "starts"
"""Of each token the number of its text in the feature; its position in that, as models call it; and where the texts of a batch begin."""
PADDING = -1
"""The text that padding is of."""


@dataclass(frozen=True)
class Packs:
    """Features of several texts each, as `tasks.base.Features` asks for them."""

    texts: Ragged
    members: Sequence[NDArray[np.int64]]
    """Of each feature the texts, by their indices, ascending."""
    size: int
    """Tokens of a feature, at most."""
    decodes: ClassVar[bool] = False

    @cached_property
    def costs(self) -> NDArray[np.int64]:
        return self._sums(self.texts.costs)

    @cached_property
    def weights(self) -> NDArray[np.float64]:
        return self._sums(self.texts.weights)

    @cached_property
    def rows(self) -> NDArray[np.int64]:
        """The first example of each."""
        return np.array([self.texts.rows[texts[0]] for texts in self.members], np.int64)

    @property
    def notes(self) -> tuple[str, ...]:
        count, full = sum(map(len, self.members)), self.costs.mean() / self.size
        return (
            f"{count:,} examples are packed into {len(self.members):,} features of at most {self.size:,} tokens, {full:.0%} full",
        )

    def get(self, index: int, draw: np.random.Generator) -> dict[str, Any]:
        return joined([self.texts.get(int(text), draw) for text in self.members[index]], list(self.texts.along))

    def _sums(self, values: NDArray[Any]) -> NDArray[Any]:
        return np.array([values[texts].sum() for texts in self.members], values.dtype)


def packs(texts: Ragged, size: int, seed: int) -> Packs:
    """Features of at most `size` tokens of those texts that something is learnt of."""
    learnt = np.flatnonzero(texts.weights)
    found = [np.sort(learnt[places]) for places in best_fit(texts.costs[learnt], size, seed)]
    return Packs(texts, sorted(found, key=lambda members: int(members[0])), size)


def best_fit(lengths: NDArray[np.int64], size: int, seed: int) -> list[list[int]]:
    """Indices of what stands together, in bins of `size`; whatever is longer stands alone. Of equal lengths `seed` decides."""
    order = np.random.default_rng([seed, size]).permutation(len(lengths))
    order = order[np.argsort(-lengths[order], kind="stable")]
    bins: list[list[int]] = []
    with_room: dict[int, list[list[int]]] = defaultdict(list)  # by the room that they have
    rooms: list[int] = []  # those that some bin has, ascending
    for index in order.tolist():
        length = int(lengths[index])
        place = bisect_left(rooms, length)
        room, chosen = size, list[int]()
        if place == len(rooms):
            bins.append(chosen)
        else:
            room = rooms[place]
            chosen = with_room[room].pop()
            if not with_room[room]:
                del rooms[place]
        chosen.append(index)
        left = room - length
        if left > 0:
            if not with_room[left]:
                insort(rooms, left)
            with_room[left].append(chosen)
    return bins


def joined(texts: Sequence[dict[str, Any]], along: Sequence[str]) -> dict[str, Any]:
    """One feature of several texts: what they have `along` their tokens, end to end, and whose each token is."""
    lengths = [len(text[along[0]]) for text in texts]
    return {
        **{name: np.concatenate([text[name] for text in texts]) for name in along},
        OF: np.repeat(np.arange(len(texts)), lengths),
    }


def placed(batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A padded batch of packs with the positions of its tokens, and where its texts begin."""
    numbers = batch[OF]
    features, width = numbers.shape
    begins = torch.ones_like(numbers, dtype=torch.bool)
    begins[:, 1:] = numbers[:, 1:] != numbers[:, :-1]
    place = torch.arange(width).expand(features, width)
    start = torch.where(begins, place, 0).cummax(dim=1).values
    (starts,) = torch.nonzero(begins.flatten(), as_tuple=True)
    ends = torch.tensor([numbers.numel()])
    return {**batch, POSITIONS: place - start, STARTS: torch.cat([starts, ends]).to(torch.int32)}


def documents_of(batch: dict[str, torch.Tensor]) -> Documents | None:
    """Those of a batch; None where each feature is one text."""
    return Documents(batch[OF], batch[POSITIONS], batch[STARTS]) if OF in batch else None
