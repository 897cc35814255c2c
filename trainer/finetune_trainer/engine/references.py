"""What the model said before training, where a loss compares with that: asked in one pass before the first step. So there is never a second
model in memory.

What is known is kept in the store as the pass goes on, and the next attempt asks for the rest only. What got lost is asked of the pretrained
model again, which each attempt begins with.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from finetune_trainer.engine.generate import Tell
from finetune_trainer.engine.predict import Arithmetic, passes
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
    for _ in _asked(task, features, said, arithmetic, seed):
        pass
    return Referring(features, said)


class References:
    """Those of some splits, which are kept from one attempt to the next."""

    def __init__(
        self, task: Task, splits: Mapping[str, Features], kept: Checkpoints, *, attempt: int, inputs: str, scratch: Path
    ) -> None:
        """Find what is kept. `inputs` is a fingerprint of data and model, `scratch` a folder for files on their way."""
        self._task = task
        self._splits = splits
        self._kept = kept
        self._attempt = attempt
        self._inputs = inputs
        self._scratch = scratch
        self._said = {name: _unknown(task, one) for name, one in splits.items()}
        kept.resume(scratch / "references", scratch / "references-best", self._take)
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
        with stop.finishing():
            try:
                latest = begin
                for name, one in self._splits.items():
                    for _ in _asked(self._task, one, self._said[name], arithmetic, seed):
                        tell(self._known, total)
                        stop.check()
                        if time.monotonic() - latest >= every:
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

    @property
    def _known(self) -> int:
        """Features of all splits of which it was asked."""
        return sum(int((~_missing(said)).sum()) for said in self._said.values())

    def _keep(self) -> None:
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
def _asked(task: Task, features: Features, said: Said, arithmetic: Arithmetic, seed: int) -> Iterator[None]:
    """Fill in what is missing, pass by pass: the passes of the rest are those that there would have been."""
    left = np.flatnonzero(_missing(said))
    if not len(left):
        return

    def ask(part: NDArray[np.int64]) -> Batch:
        given = [features.get(index, np.random.default_rng([seed, index])) for index in left[part].tolist()]
        outputs = arithmetic.outputs(task, arithmetic.move(task.collate(given)))
        for name in task.references:
            said[name][left[part]] = outputs[name].double().cpu().numpy()
        return {}

    for _ in passes(task, features.costs[left], arithmetic, ask):
        yield
