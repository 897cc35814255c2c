"""What the model says about a split. Draws nothing at random, so that evaluating never changes what training does next."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel

from finetune_trainer.engine.memory import does_not_fit, is_out_of_memory
from finetune_trainer.tasks.base import Encoded, Task

TOKENS = {"cpu": 4096, "cuda": 65536}
"""Padded tokens of one forward pass without gradients."""


@dataclass(frozen=True)
class Arithmetic:
    """Where and how tensors are multiplied."""

    device: torch.device
    bf16: bool

    def logits(self, model: PreTrainedModel, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """The model's logits in fp32. `batch` has no labels."""
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.bf16):
            logits: torch.Tensor = model(**batch).logits
        return logits.float()

    def move(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        if self.device.type == "cuda":
            batch = {
                name: values.pin_memory() for name, values in batch.items()
            }  # only from there a copy is in the background
        return {name: values.to(self.device, non_blocking=True) for name, values in batch.items()}


def predict(
    task: Task, model: PreTrainedModel, encoded: Encoded, arithmetic: Arithmetic, check: Callable[[], None]
) -> tuple[NDArray[np.float32], float]:
    """Logits of all examples in their order, and the mean loss. `check` is called between two batches and may raise."""
    lengths = encoded.lengths
    order = np.argsort(
        -lengths, kind="stable"
    )  # neighbours of like length; the longest first, where memory runs out if at all
    tokens = TOKENS[arithmetic.device.type]
    logits: NDArray[np.float32] | None = None
    loss = 0.0
    done = 0
    model.eval()
    while done < len(order):
        check()
        longest = int(lengths[order[done]])
        part = order[done : done + max(1, tokens // longest)]
        if task.depends_on_padding:
            part = part[lengths[part] == longest]
        try:
            found, part_loss = _forward(task, model, encoded, part, arithmetic)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            if len(part) == 1:
                raise does_not_fit(error, f"one example of {longest} tokens") from error
            tokens = longest * len(part) // 2
            continue
        if logits is None:
            logits = np.empty((len(encoded), *found.shape[1:]), dtype=np.float32)
        logits[part] = found
        loss += part_loss
        done += len(part)
    assert logits is not None  # data without examples is refused before
    return logits, loss / len(encoded)


@torch.no_grad()
def _forward(
    task: Task, model: PreTrainedModel, encoded: Encoded, part: NDArray[np.int64], arithmetic: Arithmetic
) -> tuple[NDArray[np.float32], float]:
    batch = arithmetic.move(task.collate([encoded[int(index)] for index in part]))
    labels = batch.pop("labels")
    logits = arithmetic.logits(model, batch)
    return logits.cpu().numpy(), float(task.loss(logits, labels))
