"""What the model said before training, where a loss compares with that: asked in one pass before the first step. So there is never a second
model in memory.

What is known is kept in the store as the pass goes on, and the next attempt asks for the rest only. What got lost is asked of the pretrained
model again, which each attempt begins with. Each rank asks of its share.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from finetune_trainer.engine.generate import Tell
from finetune_trainer.engine.predict import Arithmetic, cheapest, dearest_first, passes
from finetune_trainer.engine.ranks import ALONE, Ranks, agreed, side_by_side
from finetune_trainer.log import logger
from finetune_trainer.stop import Preempted, StopSignal
from finetune_trainer.store.checkpoints import Checkpoint, Checkpoints
from finetune_trainer.tasks.base import REFERENCE, Batch, Feature, Features, Task

FILE = "references.npz"
Said = Mapping[str, NDArray[np.float64]]
"""By the name of an output, one value a feature, NaN where the model was not asked yet."""


@dataclass(frozen=True)
class Referring:
    """Features that bring along what the untrained model said of them."""

    features: Features
    said: Said

    @property
    def costs(self) -> NDArray[np.int64]:
        return self.features.costs

    @property
    def weights(self) -> NDArray[np.float64]:
        return self.features.weights

    @property
    def rows(self) -> NDArray[np.int64]:
        return self.features.rows

    @property
    def decodes(self) -> bool:
        return self.features.decodes

    @property
    def notes(self) -> tuple[str, ...]:
        return self.features.notes

    def get(self, index: int, draw: np.random.Generator) -> Feature:
        said = {f"{REFERENCE}{name}": values[index] for name, values in self.said.items()}
        return {**self.features.get(index, draw), **said}


def own_references(task: Task, outputs: Batch) -> Batch:
    """What a batch of features without references has in their place while the model is untrained: what it says itself."""
    return {f"{REFERENCE}{name}": outputs[name].detach() for name in task.references}


def refer(task: Task, features: Features, arithmetic: Arithmetic, *, seed: int) -> Referring:
    """The features with what the model as it is says of them. What is random about a feature comes of `seed` and its index."""
    said = _unknown(task, features)
    for _ in _asked(task, features, said, arithmetic, seed, ALONE):
        pass
    return Referring(features, said)


class References:
    """Those of some splits, which are kept from one attempt to the next."""

    def __init__(
        self,
        task: Task,
        splits: Mapping[str, Features],
        kept: Checkpoints,
        *,
        attempt: int,
        inputs: str,
        scratch: Path,
        ranks: Ranks = ALONE,
    ) -> None:
        """Find what is kept. `inputs` is a fingerprint of data and model, `scratch` a folder for files on their way."""
        self._ranks = ranks
        self._ranks = ranks
        self._task = task
        self._splits = splits
        self._kept = kept
        self._attempt = attempt
        self._inputs = inputs
        self._scratch = scratch
        self._said = {name: _unknown(task, one) for name, one in splits.items()}
        kept.resume(scratch / "references", scratch / "references-best", self._take)
        self._tell_all()
        self._saved = self._known

    def ask(
        self,
        arithmetic: Arithmetic,
        stop: StopSignal,
        *,
        seed: int,
        every: float,
        tell: Tell = lambda done, of: None,
    ) -> dict[str, Referring]:
        """The splits with all that the model, which is untrained, says of them. What is found out is kept every so many seconds, and `tell` is
        told how much that is. Raises Preempted, with everything kept, when told to stop."""
        begin, before = time.monotonic(), self._known
        total = sum(len(one.rows) for one in self._splits.values())
        check = agreed(self._ranks, stop.check)
        with stop.finishing():
            try:
                latest = begin
                for name, one in self._splits.items():
                    asked = _asked(self._task, one, self._said[name], arithmetic, seed, self._ranks)
                    while any(side_by_side(self._ranks, partial(self._one_pass, asked, check))):
                        tell(self._about, total)
                        if self._ranks.gathered(time.monotonic() - latest >= every)[0]:
                            self._keep()
                            latest = time.monotonic()
            except Preempted:
                self._keep()
                self._kept.flush()
                raise
            self._keep()
        logger.info(
            "The untrained model said of %d examples what the loss compares with, in %.1f s%s.",
            self._known - before,
            time.monotonic() - begin,
            f"; of {before} it had said it before" if before else "",
        )
        return {name: Referring(one, self._said[name]) for name, one in self._splits.items()}

    def _one_pass(self, asked: Iterator[int], check: Callable[[], None]) -> bool:
        """Whether there was one left in this rank. Raises Preempted after it when told to stop."""
        there_was_one = next(asked, None) is not None
        check()
        return there_was_one

    @property
    def _known(self) -> int:
        """Features of all splits of which it was asked, as far as this rank knows."""
        return sum(int((~_missing(said)).sum()) for said in self._said.values())

    @property
    def _about(self) -> int:
        """The same of all ranks, if the others are as far."""
        total = sum(len(one.rows) for one in self._splits.values())
        return min(self._saved + (self._known - self._saved) * self._ranks.world, total)

    def _tell_all(self) -> None:
        """Let each rank know what any knows."""
        for said in self._ranks.gathered(self._said):
            for split, values_by_name in said.items():
                for name, values in values_by_name.items():
                    mine = self._said[split][name]
                    np.copyto(mine, values, where=np.isnan(mine))

    def _keep(self) -> None:
        self._tell_all()
        if self._known == self._saved:
            return
        self._saved = self._known
        folder = self._scratch / f"references-{self._known}"
        folder.mkdir(parents=True)
        arrays: dict[str, Any] = {
            f"{split}.{name}": v for split, said in self._said.items() for name, v in said.items()
        }
        np.savez(folder / FILE, **arrays)
        self._kept.commit(folder, step=self._known, attempt=self._attempt, facts={"inputs": self._inputs})

    def _take(self, checkpoint: Checkpoint, folder: Path) -> None:
        """Raises ValueError with the end of a sentence about what is kept, where it is of something else."""
        if checkpoint.facts.get("inputs") != self._inputs:
            raise ValueError("is of other data or of another model")
        with np.load(folder / FILE) as file:
            for split, said in self._said.items():
                for name, values in said.items():
                    found = file.get(f"{split}.{name}")
                    if found is None or found.shape != values.shape:
                        raise ValueError("is of other features")
                    values[:] = found


def _unknown(task: Task, features: Features) -> dict[str, NDArray[np.float64]]:
    return {name: np.full(len(features.rows), np.nan) for name in task.references}


def _missing(said: Said) -> NDArray[np.bool_]:
    """Of which features something is not known."""
    return np.asarray(np.isnan(np.stack(list(said.values()))).any(axis=0))


@torch.no_grad()
def _asked(
    task: Task,
    features: Features,
    said: dict[str, NDArray[np.float64]],
    arithmetic: Arithmetic,
    seed: int,
    ranks: Ranks,
) -> Iterator[int]:
    """Fill in this rank's share of what is missing, pass by pass, and say of how many features: the passes of the rest are those that there
    would have been."""
    missing = np.flatnonzero(_missing(said))
    left = missing[ranks.share(dearest_first(features.costs[missing]))]
    if not len(missing):
        return

    def ask(part: NDArray[np.int64]) -> int:
        given = [features.get(index, np.random.default_rng([seed, index])) for index in left[part].tolist()]
        with torch.no_grad():
            batch = arithmetic.move(task.collate(given))
            outputs = ranks.reading(lambda: arithmetic.outputs(task, batch))
        for name in task.references:
            said[name][left[part]] = outputs[name].double().cpu().numpy()
        return len(part)

    def accompany() -> None:
        feature = features.get(cheap, np.random.default_rng([seed, cheap]))
        with torch.no_grad():
            batch = arithmetic.move(task.collate([feature]))
            ranks.reading(lambda: arithmetic.outputs(task, batch))

    cheap = cheapest(features.costs)
    for done in passes(task, features.costs[left], arithmetic, ask, ranks, accompany):
        yield done or 0
