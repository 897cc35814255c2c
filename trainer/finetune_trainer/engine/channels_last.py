"""Convolutions of images whose weights have the channels of a pixel beside each other in memory, which in bf16 is how they are computed
fastest: torch then lets all images between them lie so, and neither oneDNN nor cuDNN turns each over before and after.

The same numbers up to rounding, and the same files: what is saved of a model is contiguous. In fp32 small images take longer so on a CPU,
and a model with one convolution, as most that cut an image into patches, has none to hand its images on to: these stay as they are.
https://docs.pytorch.org/tutorials/intermediate/memory_format_tutorial.html
"""

from __future__ import annotations

import torch
from torch import nn

from finetune_trainer.tasks.base import Batch, Task


def use(task: Task, batch: Batch) -> bool:
    """Let the weights of the model's convolutions of images lie so where it still answers a `batch`, which code that takes them for
    contiguous does not; returns whether they do."""
    convolutions = [module for module in task.model.modules() if type(module) is nn.Conv2d]
    if len(convolutions) < 2:
        return False
    was_training = task.model.training
    task.model.eval()
    try:
        _lay(convolutions, torch.channels_last)
        with torch.no_grad():
            task.outputs(batch)
    except RuntimeError:
        _lay(convolutions, torch.contiguous_format)
        return False
    finally:
        task.model.train(was_training)
    return True


def follow(optimizer: torch.optim.Optimizer) -> None:
    """Let the moments of `optimizer` lie as what they are of when they are loaded, however they were saved: its fused kernels go through
    both as they lie, and do not look at strides."""

    def loaded(_: torch.optim.Optimizer) -> None:
        for parameter, moments in optimizer.state.items():
            for name, values in moments.items():
                if values.shape == parameter.shape and values.stride() != parameter.stride():
                    moments[name] = torch.empty_like(parameter, dtype=values.dtype).copy_(values)

    optimizer.register_load_state_dict_post_hook(loaded)


def _lay(convolutions: list[nn.Conv2d], memory_format: torch.memory_format) -> None:
    for module in convolutions:
        module.to(memory_format=memory_format)
