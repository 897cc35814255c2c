"""Parts of a model that compute the same in less time. Each is a file of its own, draws from torch's generator only, so that a run
resumes exactly, and leaves alone what it is not made for.

On two cores with bf16, MiniLM on MRPC: `python -m tests.bench throughput` compares the whole with plain transformers.
"""

from __future__ import annotations

import torch
from torch import nn
from transformers import PreTrainedModel

from finetune_trainer.engine import attention
from finetune_trainer.engine.dropout import Dropout


def quicken(model: PreTrainedModel, device: torch.device) -> None:
    """Let `model`, which will be trained on `device`, use them. Its parameters, their names and its saved config stay."""
    attention.use(model)
    if device.type == "cpu":
        for module in model.modules():
            if type(module) is nn.Dropout and not module.inplace:
                module.__class__ = Dropout
