"""The peer: MRPC with peft and transformers' Trainer, as their guides show it, with batches of like length. Prints the F1 of the best epoch.

python -m tests.bench.plain_lora SEED RATE EPOCHS WARMUP      # WARMUP is the part of all steps
"""

from __future__ import annotations

import csv
import sys
import tempfile
from collections.abc import Mapping
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from sklearn.metrics import f1_score
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    Trainer,
    TrainingArguments,
    set_seed,
)

from finetune_trainer.engine.precision import is_faster_in_bf16
from finetune_trainer.threads import available_threads
from tests.bench.jobs import COLUMNS, MRPC, minilm
from tests.bench.plain_transformers import BATCH

ADAPTERS = {"r": 16, "lora_alpha": 32, "lora_dropout": 0.05, "target_modules": "all-linear"}
"""Those of examples/mrpc-lora.yaml."""


def main(seed: int, rate: float, epochs: int, warmup: float) -> None:
    torch.set_num_threads(available_threads())
    set_seed(seed)
    tokenizer = AutoTokenizer.from_pretrained(minilm())
    model = AutoModelForSequenceClassification.from_pretrained(minilm(), num_labels=2, dtype=torch.float32)
    adapted = get_peft_model(model, LoraConfig(task_type="SEQ_CLS", **ADAPTERS))

    def read(name: str) -> list[dict[str, Any]]:
        with (MRPC / name).open(encoding="utf-8-sig", newline="") as file:
            return [
                {
                    **tokenizer(row[COLUMNS["text"]], row[COLUMNS["text_pair"]], truncation=True, max_length=512),
                    "labels": int(row[COLUMNS["label"]]),
                }
                for row in csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
            ]

    def score(said: Any) -> Mapping[str, float]:
        return {"f1": float(f1_score(said.label_ids, said.predictions.argmax(-1)))}

    with tempfile.TemporaryDirectory() as folder:
        given = TrainingArguments(
            folder,
            num_train_epochs=epochs,
            per_device_train_batch_size=BATCH,
            per_device_eval_batch_size=64,
            learning_rate=rate,
            warmup_steps=warmup,
            weight_decay=0.01,
            train_sampling_strategy="group_by_length",
            bf16=is_faster_in_bf16(torch.device("cpu")),
            seed=seed,
            use_cpu=True,
            report_to="none",
            eval_strategy="epoch",
            save_strategy="no",
            disable_tqdm=True,
        )
        trainer = Trainer(
            adapted,
            given,
            train_dataset=read("train.tsv"),
            eval_dataset=read("dev.tsv"),
            data_collator=DataCollatorWithPadding(tokenizer),
            compute_metrics=score,
        )
        trainer.train()
    print(max(row["eval_f1"] for row in trainer.state.log_history if "eval_f1" in row))


if __name__ == "__main__":
    main(int(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4]))
