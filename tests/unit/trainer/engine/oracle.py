"""transformers' Trainer on our batches, as version 0.1.0 and the first 0.2.0 trained with it: what our own steps are held to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from safetensors.torch import save_model
from torch.utils.data import DataLoader

from finetune_api.training import Training
from finetune_trainer.engine.batches import LengthBucketedBatches
from finetune_trainer.engine.optimizer import SCHEDULES
from finetune_trainer.engine.weights import WHOLE
from finetune_trainer.tasks import Features, Task
from finetune_trainer.tasks.base import Feature


def plain(features: Features) -> list[Feature]:
    """All features, of which nothing is random."""
    return [features.get(index, np.random.default_rng(0)) for index in range(len(features.rows))]


class TheirTrainer(transformers.Trainer):
    """Everything but the order of batches, their micro-batches and the task's loss is the Trainer's own."""

    def __init__(
        self,
        task: Task,
        features: Features,
        training: Training,
        folder: Path,
        *,
        total_steps: int,
        stop_after: int | None = None,
    ) -> None:
        self.task, self.features = task, plain(features)
        self.batch_size, self.micro = training.batch_size, training.micro_batch_size or training.batch_size
        self.bf16 = training.precision == "bf16"
        self.sampler = _Epoch(LengthBucketedBatches(features.costs, training.batch_size, training.seed))
        self.losses: list[float] = []
        self.norms: list[float] = []
        super().__init__(
            task.model,
            transformers.TrainingArguments(
                output_dir=str(folder),
                max_steps=total_steps,
                per_device_train_batch_size=training.batch_size,
                learning_rate=training.learning_rate,
                lr_scheduler_type=SCHEDULES[training.learning_rate_schedule],
                warmup_steps=training.warmup_ratio,
                weight_decay=training.weight_decay,
                seed=training.seed,
                use_cpu=True,
                optim="adamw_torch_fused",
                logging_nan_inf_filter=False,
                save_strategy="no",
                report_to="none",
                disable_tqdm=True,
                remove_unused_columns=False,
            ),
            train_dataset=self.features,
            callbacks=[_Hooks(self.sampler, stop_after)],
        )

    def get_train_dataloader(self) -> DataLoader[Any]:
        # A DataLoader draws one number each epoch, which it makes no use of here: not from the generator that dropout draws from.
        apart = torch.Generator()
        return DataLoader(self.features, batch_sampler=self.sampler, collate_fn=list, generator=apart)

    def training_step(self, model: Any, inputs: list[Any], num_items_in_batch: Any = None) -> torch.Tensor:
        model.train()
        whole = torch.zeros(())
        for begin in range(0, len(inputs), self.micro):
            batch = self.task.collate(inputs[begin : begin + self.micro])
            given = {name: values for name, values in batch.items() if name != "labels"}
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=self.bf16):
                logits = model(**given).logits
            loss = self.task.losses({"logits": logits}, batch).sum() / len(inputs)
            self.accelerator.backward(loss)
            whole += loss.detach()
        self.losses.append(float(whole))
        return whole

    def get_decay_parameter_names(self, model: Any) -> list[str]:
        matrices = {name for name, parameter in model.named_parameters() if parameter.ndim >= 2}
        return [name for name in super().get_decay_parameter_names(model) if name in matrices]

    def _clip_grad_norm(self, model: Any) -> Any:
        norm = super()._clip_grad_norm(model)
        self.norms.append(float(norm))
        return norm

    def log(self, *_: Any, **__: Any) -> None:
        pass

    def save(self, folder: Path) -> None:
        """A checkpoint as those versions wrote it."""
        folder.mkdir()
        save_model(self.model, str(folder / WHOLE))
        self._save_optimizer_and_scheduler(str(folder))
        self._save_rng_state(str(folder))
        self.state.save_to_json(str(folder / "trainer_state.json"))


class _Hooks(transformers.TrainerCallback):
    def __init__(self, sampler: _Epoch, stop_after: int | None) -> None:
        self._sampler = sampler
        self._stop_after = stop_after

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._sampler.number = state.global_step // len(self._sampler)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step == self._stop_after:
            control.should_training_stop = True


class _Epoch:
    """Our batches as a sampler of torch: those of the epoch that the Trainer is in."""

    def __init__(self, batches: LengthBucketedBatches) -> None:
        self._batches = batches
        self.number = 0

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Any:
        return iter(self._batches.epoch(self.number))
