"""Parts of a model that compute the same in less time. Each is a file of its own, draws from torch's generator only, so that a run
resumes exactly, and leaves alone what it is not made for, or what is not proved to allow it.

On two cores with bf16, MiniLM on MRPC: `python -m tests.bench throughput` compares the whole with plain transformers.
"""

from __future__ import annotations

import numpy as np
from torch import nn

from finetune_trainer.engine import attention, channels_last, first_token, occurring, rms_norm
from finetune_trainer.engine.dropout import Dropout
from finetune_trainer.engine.predict import Arithmetic
from finetune_trainer.tasks.base import Features, Task


def quicken(task: Task, features: Features, arithmetic: Arithmetic, *, in_parts: bool = False) -> None:
    """Let the model of `task`, which will be trained on `features`, use them. Names of its parameters and its saved config stay, and
    nothing is drawn from torch's generator. Those that take whole parameters stand aside where each rank will have a part of them,
    `in_parts`."""
    attention.use(task.model)
    if arithmetic.device.type == "cpu":
        for module in task.model.modules():
            if type(module) is nn.Dropout and not module.inplace:
                module.__class__ = Dropout
    elif arithmetic.bf16:
        rms_norm.use(task.model)
    if in_parts:
        return
    order = np.argsort(features.costs, kind="stable")
    longer = np.searchsorted(features.costs[order], features.costs[order[0]], side="right")
    some = [features.get(int(order[place]), np.random.default_rng(0)) for place in (0, min(longer, len(order) - 1))]
    # Two, one of which is padded, and one, where a model may go without a mask.
    two, one = (arithmetic.move(task.collate(batch)) for batch in (some, some[:1]))
    if arithmetic.bf16:
        with arithmetic.precision():
            channels_last.use(task, two)
    occurring.use(task, features, two)
    first_token.use(task, [two, one])
