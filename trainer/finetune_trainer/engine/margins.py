"""What each feature's label cost, and by how much it was told apart from the next best, summed up while it is trained on: what
`scores.suspects` finds doubtful rows by.

All of it stays on the device, and no step waits for it: 24 bytes a feature. Each rank has that of its own shares, until they are asked for
together.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from finetune_trainer.engine.predict import Arithmetic
from finetune_trainer.engine.ranks import ALONE, Ranks
from finetune_trainer.scores.suspects import Margins
from finetune_trainer.tasks.base import Batch, Task, Told

MARGINS = "margins.npz"


@dataclass(frozen=True)
class Seen:
    """What was seen by all ranks until now."""

    margins: Margins
    lowest: NDArray[np.float32]
    """The lowest margin of each feature, infinite of one that was not seen."""

    @classmethod
    def of(cls, ranks: Ranks, one: Seen) -> Seen:
        """Of all, what each rank has seen."""
        every = ranks.gathered(one)
        where = np.argmin([seen.lowest for seen in every], axis=0)[None]
        margins = [seen.margins for seen in every]
        return cls(
            Margins(
                np.sum([seen.loss for seen in margins], axis=0),
                np.sum([seen.total for seen in margins], axis=0),
                np.sum([seen.times for seen in margins], axis=0, dtype=np.int32),
                np.take_along_axis(np.stack([seen.other for seen in margins]), where, axis=0)[0],
            ),
            np.min([seen.lowest for seen in every], axis=0),
        )

    def save(self, folder: Path) -> None:
        if self.margins.times.any():
            np.savez(folder / MARGINS, **vars(self.margins), lowest=self.lowest)


class MarginsSeen:
    """`see` what each micro-batch said; `keep` it once its step is done, or `forget` it where the step is done again."""

    def __init__(self, task: Task, features: int, arithmetic: Arithmetic, ranks: Ranks = ALONE) -> None:
        device = arithmetic.device
        self._ranks = ranks
        self._task = task
        self._arithmetic = arithmetic
        self._loss = torch.zeros(features, device=device)
        self._total = torch.zeros(features, device=device)
        self._lowest = torch.full((features,), torch.inf, device=device)
        self._other = torch.zeros(features, dtype=torch.int64, device=device)
        self._times = np.zeros(features, np.int32)
        self._seen: list[tuple[NDArray[np.int64], Told]] = []

    @torch.no_grad()
    def see(self, part: NDArray[np.int64], outputs: Batch, batch: Batch) -> None:
        """`part` are the indices of the features of a micro-batch, or of a whole one where features are compared."""
        found = self._task.margins(outputs, batch)
        if found is not None:
            self._seen.append((part, found))

    def forget(self) -> None:
        self._seen = []

    @torch.no_grad()
    def keep(self) -> None:
        for part, told in self._seen:
            index = self._arithmetic.move({"index": torch.from_numpy(part)})["index"]
            self._times[part] += 1
            self._loss[index] += told.loss  # no feature is twice in a batch
            self._total[index] += told.margin
            lower = told.margin < self._lowest[index]
            self._other[index] = torch.where(lower, told.other, self._other[index])
            self._lowest[index] = torch.where(lower, told.margin, self._lowest[index])
        self.forget()

    def margins(self) -> Margins:
        """Of what all ranks saw so far."""
        return self.seen().margins

    def seen(self) -> Seen:
        """What all ranks saw so far, and stays so. Waits for the device."""
        loss, total, lowest, other = (
            values.cpu().numpy().copy() for values in (self._loss, self._total, self._lowest, self._other)
        )
        return Seen.of(self._ranks, Seen(Margins(loss, total, self._times.copy(), other), lowest))

    def load(self, folder: Path) -> None:
        """Go on from what `Seen.save` wrote; from nothing where an earlier version wrote none. The first rank has what all had seen."""
        if self._ranks.rank or not (folder / MARGINS).exists():
            return
        with np.load(folder / MARGINS) as saved:
            for name in ("loss", "total", "lowest", "other"):
                getattr(self, f"_{name}").copy_(torch.from_numpy(saved[name]))
            self._times[:] = saved["times"]
