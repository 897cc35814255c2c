"""The peers: MRPC with plain transformers, as tutorials write it. Prints samples per second.

python -m tests.bench.plain_transformers max_length 20     # every pair padded to 512 tokens
python -m tests.bench.plain_transformers longest 100       # padded to the longest of its batch
"""

from __future__ import annotations

import csv
import sys
import tempfile
import time
from typing import Any

import torch
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    PreTrainedModel,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

from finetune_trainer.threads import available_threads
from tests.bench.jobs import COLUMNS, MRPC, minilm

BATCH = 8


def main(padding: str, steps: int) -> None:
    torch.set_num_threads(available_threads())
    tokenizer = AutoTokenizer.from_pretrained(minilm())
    model = AutoModelForSequenceClassification.from_pretrained(minilm(), num_labels=2, dtype=torch.float32)
    with (MRPC / "train.tsv").open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    pad = {"padding": "max_length"} if padding == "max_length" else {}
    examples = [
        {
            **tokenizer(row[COLUMNS["text"]], row[COLUMNS["text_pair"]], truncation=True, max_length=512, **pad),
            "labels": int(row[COLUMNS["label"]]),
        }
        for row in rows
    ]
    print(rate(model, examples, DataCollatorWithPadding(tokenizer), steps))


def rate(model: PreTrainedModel, examples: Any, collator: Any, steps: int, **arguments: Any) -> float:
    """Samples per second of so many steps of transformers' Trainer."""
    clock = Clock()
    settings = {"per_device_train_batch_size": BATCH, "learning_rate": 5e-5, "weight_decay": 0.01, **arguments}
    with tempfile.TemporaryDirectory() as folder:
        given = TrainingArguments(
            folder,
            max_steps=steps,
            seed=42,
            use_cpu=True,
            report_to="none",
            save_strategy="no",
            disable_tqdm=True,
            **settings,
        )
        Trainer(model, given, train_dataset=examples, data_collator=collator, callbacks=[clock]).train()
    return given.per_device_train_batch_size * steps / clock.seconds


class Clock(TrainerCallback):
    """Seconds from the first step's begin to the last step's end, as the product counts them."""

    seconds = 0.0

    def on_epoch_begin(self, args: object, state: object, control: object, **_: object) -> None:
        self._begin = time.monotonic()

    def on_step_end(self, args: object, state: object, control: object, **_: object) -> None:
        self.seconds = time.monotonic() - self._begin


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
