"""Eight examples at once, one after another, or as memory lets them: the same losses and gradients over many steps, and no bias between them.

A loss that is averaged in each micro-batch, and not over the batch, is near the truth in every step and beside it on the average.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from finetune_api.training import Training
from finetune_trainer.engine import steps as steps_module
from finetune_trainer.engine.activations import Activations
from finetune_trainer.engine.levers import quicken
from finetune_trainer.engine.memory import MicroBatch
from finetune_trainer.engine.optimizer import shorten
from finetune_trainer.engine.references import refer
from finetune_trainer.engine.steps import Steps
from finetune_trainer.engine.weights import load_weights
from finetune_trainer.tasks import Features, Task
from tests.training.cases import CASES
from tests.unit.trainer.tasks.loading import CPU, features_of, task_of

STEPS = 50
TRAINING = {"batchSize": 8, "learningRate": 2e-4, "epochs": 10, "precision": "fp32"}
CLOSE = 1e-5
"""Of a loss or a norm; 50 steps make less than a tenth of that of rounding."""


@dataclass
class Course:
    """What a training went through, step by step."""

    losses: list[float] = field(default_factory=list)
    norms: list[float] = field(default_factory=list)
    """Of gradients, before they are shortened."""


class Run:
    """One training of a case, whose model has no dropout, in as many attempts as it is told to stop."""

    def __init__(self, case: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        folder.mkdir()
        self._case = case
        self._folder = folder
        self._inputs = dict(CASES[case].inputs(folder, 0.0))
        self._step = 0
        self.course = Course()
        self.micro, self.again = MicroBatch(8), False
        self.ran_out: list[int] = []
        self.holds: Callable[[int, bool], int] = lambda step, again: 8
        """How many examples fit in a step, and whether activations are computed again."""
        self._patch = monkeypatch

    def until(self, last: int) -> Run:
        """An attempt that goes on from the one before and stops after this step."""
        task, features = self._made()
        before = self._folder / f"checkpoint-{self._step}"
        if self._step:
            load_weights(task.model, before)
        activations = Activations(task.model, "auto", again=self.again)
        collate = task.collate

        def within(given: Any) -> Any:
            if len(given) > self.holds(self._step, activations.again):
                self.ran_out.append(self._step)
                raise MemoryError("Unable to allocate 20.0 MiB for an array")
            return collate(given)

        task.collate = within  # type: ignore[method-assign]

        def after(step: int) -> bool:
            self._step = step
            self.course.losses.append(float(steps.loss))
            return step == last

        steps = Steps(
            task,
            features,
            Training.model_validate(TRAINING),
            arithmetic=CPU,
            micro=self.micro,
            total_steps=STEPS,
            check=lambda: None,
            after_step=after,
            activations=activations,
        )
        with self._patch.context() as patch:
            patch.setattr(steps_module, "shorten", self._told)
            steps.run(self._step, before if self._step else None)
        self.again, self.micro = activations.again, MicroBatch(self.micro.limit, most=8)
        after_it = self._folder / f"checkpoint-{last}"
        after_it.mkdir()
        steps.save(after_it)
        return self

    def _told(self, optimizer: torch.optim.AdamW) -> None:
        gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        self.course.norms.append(float(torch.nn.utils.get_total_norm(gradients)))
        shorten(optimizer)

    def _made(self) -> tuple[Task, Features]:
        dataset = {name: value for name, value in self._inputs["dataset"].items() if name != "uri"}
        options = self._inputs["textGeneration"]
        task = task_of(
            self._folder / "model", self._folder / "data", dataset,
            task="text-generation", textGeneration=options, training=TRAINING,
        )  # fmt: skip
        features: Features = features_of(task, task.data.train)
        if task.references:
            features = refer(task, features, CPU, seed=0)
        quicken(task, features, CPU)
        return task, features


def residuals(one: list[float], other: list[float]) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Step by step, as a part of what it is."""
    return np.array(one) / np.array(other) - 1


def unbiased(found: np.ndarray[Any, np.dtype[np.float64]]) -> bool:
    """Whether their mean is zero, as far as their number tells."""
    return abs(found.mean()) <= max(1e-7, 4 * found.std() / len(found) ** 0.5)


@pytest.mark.parametrize("case", ["text-generation", "text-generation-by-preferences"], ids=["sft", "dpo"])
def test_one_after_another_is_all_at_once_also_after_a_resume_and_with_ever_less_memory(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_once = Run(case, tmp_path / "at-once", monkeypatch).until(STEPS)

    resumed = Run(case, tmp_path / "resumed", monkeypatch)
    resumed.micro = MicroBatch(1)
    resumed.until(20).until(STEPS)

    ladder = Run(case, tmp_path / "ladder", monkeypatch)
    ladder.holds = lambda step, again: 8 if step < 10 else 3 if step < 20 else 4 * again
    ladder.until(35).until(STEPS)
    assert ladder.ran_out == [10, 10, 20, 20, 20]
    assert ladder.again and ladder.micro.limit == 4

    for other in (resumed, ladder):
        for mine, theirs in (
            (other.course.losses, at_once.course.losses),
            (other.course.norms, at_once.course.norms),
        ):
            assert len(mine) == STEPS
            found = residuals(mine, theirs)
            assert abs(found).max() < CLOSE
            assert unbiased(found)


def test_a_loss_that_is_averaged_in_each_micro_batch_would_be_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_once = Run("text-generation", tmp_path / "at-once", monkeypatch).until(STEPS)
    averaged = Run("text-generation", tmp_path / "averaged", monkeypatch)
    averaged.micro = MicroBatch(3)

    def accumulate(steps: Any, whole: Any, batch: Any, micro: int) -> torch.Tensor:
        parts = [batch[begin : begin + micro] for begin in range(0, len(batch), micro)]
        total = torch.zeros(())
        for part in parts:
            weight = steps._features.weights[[index for index, _ in part]].sum()
            given = steps._collate(part)
            loss = steps._task.losses(steps._task.outputs(given), given).sum() / (weight * len(parts))
            loss.backward()
            total += loss.detach()
        return total

    monkeypatch.setattr(Steps, "_accumulate", accumulate)
    averaged.until(STEPS)
    found = residuals(averaged.course.losses, at_once.course.losses)
    assert abs(found).max() > 100 * CLOSE
    assert not unbiased(found) or abs(found.mean()) > CLOSE
