"""Steps on torch's `meta` device, which has shapes and no values: whatever would have to wait for a value of a device fails there."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from finetune_api.training import Training
from finetune_trainer.engine import occurring, steps as steps_module
from finetune_trainer.engine.levers import quicken
from finetune_trainer.engine.memory import MicroBatch
from finetune_trainer.engine.predict import Arithmetic
from finetune_trainer.engine.steps import Steps
from finetune_trainer.engine.tuning import Tuning
from finetune_trainer.engine.window import Window
from finetune_trainer.tasks import Features, Task
from finetune_trainer.tasks.base import Batch
from tests.unit.trainer.tasks.loading import CPU

META = torch.device("meta")


class Shapes(Arithmetic):
    """Autocast knows no meta device."""

    def outputs(self, task: Task, batch: Batch) -> Batch:
        return task.outputs(batch)


class Standing(torch.optim.SGD):
    """In the place of AdamW, whose fused kernels there are none of on that device; they have no need of values in Python."""

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        assert self.grad_scale.device == self.found_inf.device == META  # type: ignore[attr-defined]


def steps_done(
    task: Task, features: Features, training: Training, monkeypatch: pytest.MonkeyPatch, tuning: Tuning | None = None
) -> list[int]:
    """Two steps in micro-batches of five, as fast as they are done; their numbers, if none asked for a value."""
    monkeypatch.setattr(
        steps_module, "adamw", lambda model, *_: Standing([one for _, one in occurring.trained(model)], lr=0.1)
    )
    monkeypatch.setattr(occurring, "MOST", 1.0)  # the vocabularies of tests are small
    quicken(task, features, CPU)  # which looks at values, but before any step
    shortened = list(occurring.parts(task.model))
    task.model.to(META)
    for _ in shortened:
        table = task.model.get_input_embeddings()
        occurring.hold(table, occurring.Part(table, task.tokens(features), decays=True))
    window = Window(0.0, 0, META)
    done: list[int] = []
    steps = Steps(
        task,
        features,
        training,
        arithmetic=Shapes(META, bf16=False),
        micro=MicroBatch(5),
        total_steps=2,
        check=lambda: None,
        after_step=lambda step: bool(window.add(steps.loss) or done.append(step)),
        tuning=tuning,
    )
    steps.run()
    return done
