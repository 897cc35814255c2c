"""How fast steps are: the trainer's own, and those of transformers' Trainer on the same rows."""

from __future__ import annotations

import gc
import json
import tempfile
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorForLanguageModeling,
    DataCollatorWithPadding,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

from finetune_api.job import FineTuneJobSpec
from finetune_api.training import Lora
from finetune_trainer.engine.batches import LengthBucketedBatches
from finetune_trainer.threads import available_threads
from tests.gpu.shapes import Shape
from tests.training.measured import prepared, steps_of

WARM = 4
"""Steps before the clock starts: they make moments, and torch chooses its ways."""


@dataclass(frozen=True)
class Rate:
    """Of the steps after the first few."""

    tokens: float
    """A second; padding is none."""
    samples: float
    """A second: rows, or packs of them."""
    peak: int
    """Bytes of tensors on the GPU at most, 0 without one."""
    losses: Sequence[float]
    """Of each step, with those before; of a peer their mean."""
    waits: int = 0
    """Operations in the timed steps that waited for the device, as far as torch notices them."""
    ready: float = 0.0
    """Seconds until the first step could begin: model and data are loaded, proved and moved."""


def spec_of(shape: Shape, folder: Path, device: str, **more: Any) -> FineTuneJobSpec:
    """A job for the shape, whose model and rows are below `folder`."""
    training = {
        "maxLength": shape.max_length,
        "batchSize": shape.batch,
        "precision": "bf16",
        **more.pop("training", {}),
    }
    given: dict[str, Any] = {
        "task": "text-generation" if shape.writes else "text-classification",
        "model": {"uri": f"file://{shape.save(folder, device)}"},
        "dataset": {
            "uri": f"file://{shape.write_rows(folder)}",
            "splits": {"train": "train.jsonl", "validation": "validation.jsonl"},
        },
        "training": training,
        "output": {"uri": f"file://{folder}/results"},
        **more,
    }
    return FineTuneJobSpec.model_validate(given)


class Clock:
    """Waits for the device at the two ends of what is timed, and in between never."""

    def __init__(self, steps: int) -> None:
        self.last = WARM + steps
        self.seconds = 0.0
        self.peak = 0
        self._begin = 0.0

    def after(self, step: int) -> bool:
        """Call it after each step; returns whether it was the last one."""
        if step == WARM:
            _wait()
            if torch.cuda.is_available():
                torch.cuda.reset_peak_memory_stats()
            self._begin = time.perf_counter()
            _watch_waits("warn")
        elif step == self.last:
            _watch_waits("default")
            _wait()
            self.seconds = time.perf_counter() - self._begin
            self.peak = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 0
        return step >= self.last


def ours(spec: FineTuneJobSpec, steps: int) -> Rate:
    """The trainer's own steps, of features as it makes them."""
    clock, losses = Clock(steps), []
    _forget()
    with tempfile.TemporaryDirectory() as scratch, warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        begin = time.perf_counter()
        ready = prepared(spec, Path(scratch), available_threads())
        _wait()
        waited = time.perf_counter() - begin

        def after(step: int) -> bool:
            losses.append(made.loss.clone())
            return clock.after(step)

        made = steps_of(ready, spec.training, clock.last, after)
        made.run()
        costs = ready.trained_on.costs
        batches = list(
            islice(LengthBucketedBatches(costs, spec.training.batch_size, spec.training.seed).after(0), clock.last)
        )
    timed = batches[WARM:]
    tokens = sum(int(costs[batch].sum()) for batch in timed)
    samples = sum(len(batch) for batch in timed)
    found = [float(loss) for loss in losses]
    waits = sum("synchronizing CUDA operation" in str(one.message) for one in told)
    return Rate(tokens / clock.seconds, samples / clock.seconds, clock.peak, found, waits, waited)


def peers(spec: FineTuneJobSpec, steps: int, *, batch: int, parts: int = 1) -> Rate:
    """transformers' Trainer with `batch` rows at once and `parts` of these a step, and peft where the job asks for adapters."""
    _forget()
    model, rows, collate = _of_peer(spec)
    clock, counts = Clock(steps), []

    def counted(features: list[dict[str, Any]]) -> Mapping[str, torch.Tensor]:
        made: Mapping[str, torch.Tensor] = collate(features)
        counts.append((int(made["attention_mask"].sum()), len(features)))
        return made

    class Timed(TrainerCallback):
        def on_step_end(self, args: object, state: Any, control: object, **_: object) -> None:
            clock.after(state.global_step)
            _watch_waits("default")

    on_a_gpu = torch.cuda.is_available()
    with tempfile.TemporaryDirectory() as folder:
        given = TrainingArguments(
            folder,
            max_steps=clock.last,
            per_device_train_batch_size=batch,
            gradient_accumulation_steps=parts,
            learning_rate=spec.training.learning_rate,
            weight_decay=spec.training.weight_decay,
            bf16=spec.training.precision == "bf16",
            use_cpu=not on_a_gpu,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            seed=spec.training.seed,
        )
        trainer = Trainer(model, given, train_dataset=rows, data_collator=counted, callbacks=[Timed()])
        trainer.remove_callback(PrinterCallback)
        mean = trainer.train().training_loss
    timed = counts[WARM * parts : clock.last * parts]
    tokens, samples = (sum(column) for column in zip(*timed, strict=True))
    return Rate(tokens / clock.seconds, samples / clock.seconds, clock.peak, [mean])


def _of_peer(spec: FineTuneJobSpec) -> tuple[nn.Module, list[dict[str, Any]], Any]:
    folder = spec.model.uri.removeprefix("file://")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    file = Path(spec.dataset.uri.removeprefix("file://")) / "train.jsonl"
    read = [json.loads(line) for line in file.read_text().splitlines()]
    device = "cuda" if torch.cuda.is_available() else "cpu"
    length = spec.training.max_length
    adapters = spec.method.type == "lora"
    dtype = torch.bfloat16 if adapters and spec.training.precision == "bf16" else torch.float32
    if spec.task == "text-classification":
        model: Any = AutoModelForSequenceClassification.from_pretrained(
            folder, num_labels=2, dtype=dtype, device_map=device
        )
        rows = [
            {
                **tokenizer(row["text"], row["textPair"], truncation=True, max_length=length),
                "labels": int(row["label"] == "yes"),
            }
            for row in read
        ]
        return model, rows, DataCollatorWithPadding(tokenizer)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, device_map=device)
    if adapters:
        from peft import LoraConfig, get_peft_model

        lora = spec.method.lora or Lora()
        model = get_peft_model(model, LoraConfig(r=lora.rank, lora_alpha=lora.alpha, target_modules="all-linear"))
    ends = tokenizer.eos_token_id
    rows = [
        {"input_ids": [*tokenizer(row["text"], add_special_tokens=False)["input_ids"][: length - 1], ends]}
        for row in read
    ]
    return model, rows, DataCollatorForLanguageModeling(tokenizer, mlm=False)


def _forget() -> None:
    """Give back what an earlier measurement held."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _watch_waits(how: str) -> None:
    if torch.cuda.is_available():
        torch.cuda.set_sync_debug_mode(how)


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
