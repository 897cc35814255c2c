"""transformers' Trainer, with three things of our own: the order of batches, micro-batches that may shrink, and no hidden costs.

A batch of the data loader is a whole optimiser step; the slices of it that fit in memory are made here. So the Trainer knows no
gradient accumulation, a step is a step in its counts, and running out of memory changes neither the batch nor the schedule.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from safetensors.torch import load_model, save_model
from torch import nn
from torch.utils.data import DataLoader
from transformers import PreTrainedModel, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.integrations import KubeflowCallback

from finetune_api.training import Training
from finetune_trainer.engine.batches import LengthBucketedBatches
from finetune_trainer.engine.memory import MicroBatch, is_out_of_memory
from finetune_trainer.engine.predict import Arithmetic
from finetune_trainer.stop import Preempted
from finetune_trainer.tasks.base import Encoded, Feature, Task

SCHEDULES = {"linear": "linear", "cosine": "cosine", "constant": "constant_with_warmup"}
"""transformers' names; its `constant` knows no warm-up."""
WEIGHTS = "model.safetensors"


class BucketTrainer(transformers.Trainer):  # type: ignore[misc]  # transformers is not type-checked
    """Trains `task.model` on `encoded`. `after_step(step)` is called after each optimiser step and returns True to stop; `check` is
    called between micro-batches and may raise Preempted, which leaves `train` as if the step had not begun."""

    def __init__(
        self,
        task: Task,
        encoded: Encoded,
        training: Training,
        *,
        arithmetic: Arithmetic,
        micro: MicroBatch,
        total_steps: int,
        folder: Path,
        check: Callable[[], None],
        after_step: Callable[[int], bool],
    ) -> None:
        self.task = task
        self.arithmetic = arithmetic
        self.micro = micro
        self.check = check
        self.batches = LengthBucketedBatches(encoded.lengths, training.batch_size, training.seed)
        self.step_loss = torch.zeros((), device=arithmetic.device)
        """Mean loss of the latest step's batch."""
        self.step_learning_rate = 0.0
        """What the latest step was done with."""
        super().__init__(
            model=task.model,
            args=_arguments(training, total_steps, folder, arithmetic.device),
            train_dataset=encoded,
            callbacks=[_Hooks(self.batches, after_step)],
        )
        # The one prints dictionaries between the sentences of our log, the other posts from inside the loop, whatever report_to says.
        self.remove_callback(transformers.PrinterCallback)
        self.remove_callback(KubeflowCallback)

    def get_train_dataloader(self) -> DataLoader[Any]:
        return DataLoader(self.train_dataset, batch_sampler=self.batches, collate_fn=list)

    def training_step(self, model: nn.Module, inputs: list[Feature], num_items_in_batch: Any = None) -> torch.Tensor:
        """Accumulate the gradient of the whole batch; `inputs` are its examples."""
        model.train()
        longest = max(len(feature["input_ids"]) for feature in inputs)
        before = _random_state()
        while True:
            try:
                self.step_loss = self._accumulate(model, inputs, self.micro.size(longest))
                break
            except Preempted:
                self._undo(model, before)
                raise
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                ran_out = error.with_traceback(None)  # which would keep the tensors of the failed pass alive
            self._undo(model, before)
            self.micro.shrink(longest, ran_out)
        self.step_learning_rate = self.optimizer.param_groups[0]["lr"]
        return self.step_loss

    def _accumulate(self, model: nn.Module, examples: list[Feature], micro: int) -> torch.Tensor:
        total = torch.zeros((), device=self.arithmetic.device)
        for begin in range(0, len(examples), micro):
            self.check()
            batch = self.arithmetic.move(self.task.collate(examples[begin : begin + micro]))
            labels = batch.pop("labels")
            # Every example weighs the same, whatever the size of its micro-batch.
            loss = self.task.loss(self.arithmetic.logits(model, batch), labels) / len(examples)
            torch.autograd.backward(loss)
            total += loss.detach()
        return total

    def _undo(self, model: nn.Module, random_state: tuple[Any, ...]) -> None:
        """Stand between two steps again."""
        model.zero_grad()
        _restore_random_state(random_state)

    def get_decay_parameter_names(self, model: nn.Module) -> list[str]:
        """Matrices only: transformers tells normalisation by name, and models have scales of other names."""
        matrices = {name for name, parameter in model.named_parameters() if parameter.ndim >= 2}
        return [name for name in super().get_decay_parameter_names(model) if name in matrices]

    def floating_point_ops(self, inputs: Any) -> int:
        return 0  # transformers would count the parameters anew in every step

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        pass  # rows are kept in TrainingState; the Trainer's own list would grow inside every checkpoint

    def save(self, folder: Path) -> None:
        """All that `train(resume_from_checkpoint=folder)` needs to go on exactly from here."""
        save_weights(self.model, folder)
        self._save_optimizer_and_scheduler(str(folder))
        self._save_rng_state(str(folder))
        self.state.save_to_json(str(folder / "trainer_state.json"))


class _Hooks(TrainerCallback):  # type: ignore[misc]  # transformers is not type-checked
    def __init__(self, batches: LengthBucketedBatches, after_step: Callable[[int], bool]) -> None:
        self._batches = batches
        self._after_step = after_step

    def on_epoch_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        # From the step, because the epoch is a float. The Trainer itself tells samplers only that it has wrapped.
        self._batches.set_epoch(state.global_step // len(self._batches))

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if self._after_step(state.global_step):
            control.should_training_stop = True


def save_weights(model: PreTrainedModel, folder: Path) -> None:
    """The parameters by their own names: `save_pretrained` may write older names, which a plain load would then miss."""
    save_model(model, str(folder / WEIGHTS))


def load_weights(model: PreTrainedModel, folder: Path) -> None:
    load_model(model, str(folder / WEIGHTS))


def _arguments(training: Training, total_steps: int, folder: Path, device: torch.device) -> TrainingArguments:
    arguments = TrainingArguments(
        output_dir=str(folder),
        max_steps=total_steps,
        per_device_train_batch_size=training.batch_size,
        learning_rate=training.learning_rate,
        lr_scheduler_type=SCHEDULES[training.learning_rate_schedule],
        warmup_steps=training.warmup_ratio,  # a number below one is a part of all steps
        weight_decay=training.weight_decay,
        optim="adamw_torch_fused",
        seed=training.seed,
        use_cpu=device.type == "cpu",
        # When to log, evaluate and save is decided after each step, by us.
        logging_strategy="no",
        eval_strategy="no",
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        logging_nan_inf_filter=False,  # looks at the loss after every step, which makes a GPU wait
        remove_unused_columns=False,
    )
    arguments._n_gpu = min(1, arguments.n_gpu)  # one process, one device; otherwise every visible GPU gets a thread
    return arguments


def _random_state() -> tuple[Any, ...]:
    cuda = torch.cuda.get_rng_state() if torch.cuda.is_available() else None
    return random.getstate(), np.random.get_state(), torch.get_rng_state(), cuda


def _restore_random_state(state: tuple[Any, ...]) -> None:
    python, numpy, cpu, cuda = state
    random.setstate(python)
    np.random.set_state(numpy)
    torch.set_rng_state(cpu)
    if cuda is not None:
        torch.cuda.set_rng_state(cuda)
