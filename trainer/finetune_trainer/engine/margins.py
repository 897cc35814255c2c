"""What each feature's label cost, and by how much it was told apart from the next best, summed up while it is trained on: what
`scores.suspects` finds doubtful rows by.

All of it stays on the device, and no step waits for it: 24 bytes a feature.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from finetune_trainer.engine.predict import Arithmetic
from finetune_trainer.scores.suspects import Margins
from finetune_trainer.tasks.base import Batch, Task, Told

MARGINS = "margins.npz"


class MarginsSeen:
    """`see` what each micro-batch said; `keep` it once its step is done, or `forget` it where the step is done again."""

    def __init__(self, task: Task, features: int, arithmetic: Arithmetic) -> None:
        device = arithmetic.device
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
        """What was seen so far, and stays so. Waits for the device."""
        loss, total, other = (values.cpu().numpy().copy() for values in (self._loss, self._total, self._other))
        return Margins(loss, total, self._times.copy(), other)

    def save(self, folder: Path) -> None:
        if self._times.any():
            seen = self.margins()
            lowest = self._lowest.cpu().numpy()
            np.savez(folder / MARGINS, **vars(seen), lowest=lowest)

    def load(self, folder: Path) -> None:
        """Go on from what `save` wrote; from nothing where an earlier version wrote none."""
        if not (folder / MARGINS).exists():
            return
        with np.load(folder / MARGINS) as saved:
            for name in ("loss", "total", "lowest", "other"):
                getattr(self, f"_{name}").copy_(torch.from_numpy(saved[name]))
            self._times[:] = saved["times"]
