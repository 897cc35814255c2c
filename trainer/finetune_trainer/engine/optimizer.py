"""AdamW and its learning rates, by the names, meanings and defaults that they have in transformers."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR
from transformers import get_scheduler
from transformers.trainer_pt_utils import get_parameter_names

from finetune_api.training import Training
from finetune_trainer.engine.occurring import trained
from finetune_trainer.engine.sharded import whole

MAX_GRAD_NORM = 1.0
"""A gradient that is longer is shortened to this: transformers' default."""
SCHEDULES = {"linear": "linear", "cosine": "cosine", "constant": "constant_with_warmup"}
"""transformers' names; its `constant` knows no warm-up."""
NOT_DECAYED = [r"bias", r"layernorm", r"rmsnorm", r"(?:^|\.)norm(?:$|\.)", r"_norm(?:$|\.)"]
"""Parts of names, in lower case, that transformers' Trainer takes for biases and normalisation."""


def adamw(model: nn.Module, training: Training, rates: Mapping[str, float] | None = None) -> torch.optim.AdamW:
    """The optimiser of all parameters that are trained, in two groups for each rate, from the highest down: with weight decay, and without.

    `rates` are the highest learning rates of parameters by their names; that of `training` where there are none.
    """
    names, base = decayed(model), training.learning_rate
    parameters = [(name, p, base if rates is None else rates[name]) for name, p in trained(model)]
    groups = [
        {"params": [p for name, p, its in parameters if its == rate and (name in names) == decays], "lr": rate}
        | {"weight_decay": training.weight_decay if decays else 0.0}
        for rate in sorted({its for _, _, its in parameters}, reverse=True)
        for decays in (True, False)
    ]
    # Torch's own betas and epsilon, which are those of transformers too.
    return torch.optim.AdamW(groups, lr=base, fused=True)


def shorten(optimizer: torch.optim.AdamW) -> None:
    """Have the next step of `optimizer` divide the gradient by as much as it is longer than MAX_GRAD_NORM, on its own way through it.

    `clip_grad_norm_` would go through all of it once more. The last bits differ: it multiplies by the inverse.
    """
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    norm = whole(nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None]))
    optimizer.grad_scale = ((norm + 1e-6) / MAX_GRAD_NORM).clamp(min=1)  # type: ignore[attr-defined]  # as torch's GradScaler does
    optimizer.found_inf = torch.zeros_like(norm)  # type: ignore[attr-defined]  # a step is never left out


def decayed(model: nn.Module) -> set[str]:
    """Names of the parameters that weight decay is for: those that transformers takes, and of them the matrices only.

    It tells normalisation by name, and models have scales of other names.
    """
    matrices = {name for name, parameter in model.named_parameters() if parameter.ndim >= 2}
    return matrices & set(get_parameter_names(model, [nn.LayerNorm], NOT_DECAYED))


def learning_rates(optimizer: torch.optim.Optimizer, training: Training, total_steps: int) -> LambdaLR:
    """transformers' schedule over `total_steps`; the part of them that warms up is rounded up to whole steps."""
    warmup = math.ceil(total_steps * training.warmup_ratio)
    schedule: LambdaLR = get_scheduler(SCHEDULES[training.learning_rate_schedule], optimizer, warmup, total_steps)
    return schedule
