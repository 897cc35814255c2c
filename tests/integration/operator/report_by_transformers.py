"""A training as people write it, with transformers alone: what tells of it is in its environment.

python report_by_transformers.py FOLDER
"""

from __future__ import annotations

import sys

import torch
from transformers import Trainer, TrainingArguments


class Line(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.line = torch.nn.Linear(1, 1)

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"loss": torch.nn.functional.mse_loss(self.line(x), y)}


examples = [{"x": torch.tensor([float(n)]), "y": torch.tensor([2.0 * n])} for n in range(16)]
arguments = TrainingArguments(
    sys.argv[1],
    max_steps=8,
    per_device_train_batch_size=4,
    logging_steps=1,
    save_strategy="no",
    report_to="none",
    use_cpu=True,
)
Trainer(Line(), arguments, train_dataset=examples).train()
