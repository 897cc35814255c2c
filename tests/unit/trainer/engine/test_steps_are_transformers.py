"""Our own steps end with the weights of transformers' Trainer, bit for bit, also when they are interrupted on the way."""

from __future__ import annotations

from itertools import islice

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader
from transformers import DataCollatorWithPadding, Trainer, TrainingArguments

from finetune_api.training import Freeze, Training
from finetune_trainer.engine.batches import LengthBucketedBatches
from finetune_trainer.engine.freeze import freeze
from finetune_trainer.engine.memory import MicroBatch
from finetune_trainer.engine.predict import Arithmetic
from finetune_trainer.engine.steps import Steps
from finetune_trainer.engine.weights import load_weights
from tests.training.models import save_tiny_bert
from tests.training.sentences import ROWS
from tests.unit.trainer.engine.oracle import TheirTrainer
from tests.unit.trainer.rows import examples
from tests.unit.trainer.tasks.loading import features_of, take, task_for

EXAMPLES = examples([text for text, _ in ROWS], labels=np.array([label == "sky" for _, label in ROWS], dtype=np.int64))
STEPS = 15
"""Two epochs of six batches of eight, and three more."""
SETTINGS = {
    "defaults": {},
    "bf16": {"precision": "bf16"},
    "weight decay and a warm-up": {"weightDecay": 0.1, "warmupRatio": 0.25},
    "along a cosine, in micro-batches": {"learningRateSchedule": "cosine", "warmupRatio": 0.1, "microBatchSize": 3},
    "constant, bf16, in micro-batches": {"learningRateSchedule": "constant", "precision": "bf16", "microBatchSize": 2},
    "a smaller last batch": {"batchSize": 20, "weightDecay": 0.01},
    "so fast that gradients are clipped": {"learningRate": 0.05, "batchSize": 4},
    "another seed": {"seed": 7},
}

INTERRUPTED = {
    "fp32": {"weightDecay": 0.1, "warmupRatio": 0.25},
    "bf16": {"precision": "bf16", "microBatchSize": 3},
}
STOPS = (4, 6, 8)
"""Within an epoch, at the end of one, and within the next."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_tiny_bert(tmp_path_factory.mktemp("model"), [text for text, _ in ROWS], dropout=0.1)


def load(folder, frozen=None):
    """A task with freshly loaded weights and its examples."""
    torch.manual_seed(0)
    task = task_for(folder, EXAMPLES, ["cooking", "sky"])
    freeze(task.model, frozen)
    return task, features_of(task, EXAMPLES, 64)


def training_of(settings):
    return Training.model_validate({"batchSize": 8, "learningRate": 1e-3, **settings})


def theirs(folder, settings, tmp_path, *, frozen=None, stop_after=None):
    task, encoded = load(folder, frozen)
    trainer = TheirTrainer(
        task, encoded, training_of(settings), tmp_path / "theirs", total_steps=STEPS, stop_after=stop_after
    )
    trainer.train()
    return task.model, trainer


def steps_of(task, encoded, settings, after_step=lambda step: False):
    training = training_of(settings)
    return Steps(
        task,
        encoded,
        training,
        arithmetic=Arithmetic(torch.device("cpu"), bf16=training.precision == "bf16"),
        micro=MicroBatch(training.micro_batch_size or training.batch_size),
        total_steps=STEPS,
        check=lambda: None,
        after_step=after_step,
        exact=True,
    )


def gone_on_from(saved, step, folder, settings, frozen=None):
    task, encoded = load(folder, frozen)
    load_weights(task.model, saved)
    steps_of(task, encoded, settings).run(step, saved)
    return task.model


def assert_equal(ours, wanted):
    found = dict(ours.named_parameters())
    for name, parameter in wanted.named_parameters():
        assert torch.equal(found[name], parameter), name


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_the_weights_after_some_epochs_are_those_of_transformers(folder, settings, tmp_path):
    wanted, trainer = theirs(folder, settings, tmp_path)
    task, encoded = load(folder)
    losses = []
    steps = steps_of(task, encoded, settings, lambda step: losses.append(float(steps.loss)))
    steps.run()

    assert_equal(task.model, wanted)
    assert losses == trainer.losses
    if settings.get("learningRate"):
        assert min(trainer.norms) < 1 < max(trainer.norms)


@pytest.mark.parametrize("settings", INTERRUPTED.values(), ids=INTERRUPTED)
def test_a_run_that_was_interrupted_ends_with_the_weights_of_an_uninterrupted_one(folder, settings, tmp_path):
    wanted, _ = theirs(folder, settings, tmp_path)
    for stop in STOPS:
        task, encoded = load(folder)
        first = steps_of(task, encoded, settings, lambda step, stop=stop: step == stop)
        first.run()
        saved = tmp_path / f"saved-{stop}"
        saved.mkdir()
        first.save(saved)
        torch.rand(100)  # whatever else the process does, or another process does not

        assert_equal(gone_on_from(saved, stop, folder, settings), wanted)


def test_a_checkpoint_that_the_trainer_of_transformers_wrote_is_gone_on_from(folder, tmp_path):
    settings = INTERRUPTED["fp32"]
    wanted, _ = theirs(folder, settings, tmp_path)
    for stop in STOPS:
        _, interrupted = theirs(folder, settings, tmp_path, stop_after=stop)
        saved = tmp_path / f"saved-{stop}"
        interrupted.save(saved)

        assert_equal(gone_on_from(saved, stop, folder, settings), wanted)


def test_so_is_one_of_a_run_with_frozen_layers_which_held_these_too(folder, tmp_path):
    settings, frozen = INTERRUPTED["fp32"], Freeze(embeddings=True, lowestLayers=1)
    wanted, _ = theirs(folder, settings, tmp_path, frozen=frozen)
    _, interrupted = theirs(folder, settings, tmp_path, frozen=frozen, stop_after=4)
    interrupted.save(tmp_path / "saved")

    assert_equal(gone_on_from(tmp_path / "saved", 4, folder, settings, frozen), wanted)


@pytest.mark.parametrize("frozen", [Freeze(embeddings=True, lowestLayers=1), Freeze(backbone=True)], ids=str)
def test_with_frozen_layers_too(folder, frozen, tmp_path):
    settings = {"weightDecay": 0.1}
    wanted, _ = theirs(folder, settings, tmp_path, frozen=frozen)
    task, encoded = load(folder, frozen)
    steps_of(task, encoded, settings).run()

    assert_equal(task.model, wanted)


class Plain(Trainer):
    """Told nothing but the order of examples: the loss is the model's, gradients are accumulated and bf16 is chosen by the Trainer."""

    def __init__(self, task, examples, folder, **arguments):
        settings = TrainingArguments(
            output_dir=str(folder),
            max_steps=STEPS,
            per_device_train_batch_size=4,
            gradient_accumulation_steps=4,
            learning_rate=1e-3,
            use_cpu=True,
            report_to="none",
            save_strategy="no",
            disable_tqdm=True,
            **arguments,
        )
        collator = DataCollatorWithPadding(task.tokenizer)
        super().__init__(task.model, settings, data_collator=collator, train_dataset=examples)
        self.model_accepts_loss_kwargs = False  # BERT's loss takes the number of examples and is a mean all the same

    def get_train_dataloader(self):
        apart = torch.Generator()
        return DataLoader(self.train_dataset, batch_size=4, collate_fn=self.data_collator, generator=apart)

    def log(self, *_, **__):
        pass


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_trainer_that_is_told_nothing_but_the_order_ends_with_these_weights(folder, precision, tmp_path):
    task, encoded = load(folder)
    settings = {
        "batchSize": 16,
        "microBatchSize": 4,
        "precision": precision,
    }  # powers of two: a mean of means is the mean
    steps_of(task, encoded, settings).run()
    batches = islice(LengthBucketedBatches(encoded.costs, 16, training_of(settings).seed).after(0), STEPS)
    in_order = take(encoded, *np.concatenate(list(batches)))

    wanted, _ = load(folder)
    Plain(wanted, in_order, tmp_path, bf16=precision == "bf16").train()

    assert_equal(task.model, wanted.model)
