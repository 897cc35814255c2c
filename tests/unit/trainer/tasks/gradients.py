"""The gradient of one step, and that beside the one of the same model by whom it is compared with."""

from __future__ import annotations

import numpy as np
import torch

from finetune_api.training import Training
from finetune_trainer.engine.memory import MicroBatch
from finetune_trainer.engine.steps import Steps
from finetune_trainer.tasks import Features, Task
from tests.unit.trainer.tasks.loading import CPU, never


def one_step(task: Task, features: Features, training: Training, micro: int) -> Steps:
    """The only one of a training, of at most so many examples at once."""
    return Steps(
        task,
        features,
        training,
        arithmetic=CPU,
        micro=MicroBatch(micro),
        total_steps=1,
        check=never,
        after_step=lambda step: False,
    )


def loss_with_gradients_of(found: Task, features: Features, policy: torch.nn.Module) -> float:
    """The loss of a step over all examples, in smaller parts, whose gradients are those of `policy`."""
    steps = one_step(found, features, found.spec.training, 3)
    loss = float(steps.gradient(np.arange(len(features.rows))))
    gradients = dict(policy.named_parameters())
    for name, parameter in found.model.named_parameters():
        torch.testing.assert_close(parameter.grad, gradients[name].grad, rtol=1e-4, atol=1e-6)
    return loss
