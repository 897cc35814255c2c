"""Running out of memory in training: the batch and the result stay, and the next attempt begins with what this one found."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from finetune_api.failures import FailureReason
from finetune_trainer.tasks.text_classification import TextClassification
from tests.training.attempts import Job
from tests.training.images import tiny_image_inputs
from tests.training.inside import at_step, attempt_inside, complete_inside
from tests.training.interruptions import assert_equal_ends
from tests.training.tiny import tiny_inputs

TRAINING = {"epochs": 3, "batchSize": 8, "learningRate": 1e-3, "precision": "fp32"}
"""Fifteen steps, five an epoch."""

Collate = Callable[[Any, Any], Any]


def within_memory(collate: Collate, ran_out: list[int]) -> Collate:
    """Two examples fit in the memory of a step if activations are computed again, and none if they are kept."""

    def collated(task: Any, features: Any) -> Any:
        again = any(getattr(module, "gradient_checkpointing", False) for module in task.model.modules())
        if task.model.training and torch.is_grad_enabled() and len(features) > 2 * again:
            ran_out.append(len(features))
            raise MemoryError("Unable to allocate 20.0 MiB for an array")
        return collate(task, features)

    return collated


def test_a_resumed_run_begins_with_what_was_found_and_ends_as_if_it_had_been_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs = tiny_inputs(tmp_path / "inputs")
    asked = Job(
        tmp_path / "asked", **inputs, training={**TRAINING, "microBatchSize": 2, "activationCheckpointing": "on"}
    )
    complete_inside(asked)
    job, ran_out = Job(tmp_path / "job", **inputs, training=TRAINING), []
    monkeypatch.setattr(TextClassification, "collate", within_memory(TextClassification.collate, ran_out))

    stopped = attempt_inside(job, told_at=at_step(7))
    assert (stopped.result.outcome, stopped.result.step) == ("preempted", 7)
    assert ran_out == [8, 4, 2, 1, 8, 4]
    assert stopped.log.count("activations are computed again in the backward pass") == 1
    again = complete_inside(job)

    assert ran_out == [8, 4, 2, 1, 8, 4], "it ran out of memory again"
    assert "in micro-batches of at most 2 examples or 4,096 tokens, activations computed again, in fp32" in again.log
    assert_equal_ends(job, asked)
    said = json.loads((job.results / "run.json").read_text())
    assert (said["microBatchSize"], said["activationCheckpointing"]) == (2, True)
    assert "at most 2 of 8 examples, activations computed again" in (job.results / "report.html").read_text()


def only_two_fit() -> None:
    """As the kernel does it where more than two examples are more than the memory: nobody gets a word."""
    collate = TextClassification.collate

    def collated(task: Any, features: Any) -> Any:
        if task.model.training and torch.is_grad_enabled() and len(features) > 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return collate(task, features)

    TextClassification.collate = collated  # type: ignore[method-assign]


def test_whoever_is_killed_in_its_first_step_is_followed_by_one_that_begins_with_half(tmp_path: Path) -> None:
    inputs = tiny_inputs(tmp_path / "inputs")
    asked = Job(tmp_path / "asked", **inputs, training={**TRAINING, "microBatchSize": 2})
    complete_inside(asked)
    job = Job(tmp_path / "job", **inputs, training=TRAINING)
    for number in (1, 2):
        assert job.start(only_two_fit).wait() == -signal.SIGKILL
        said = json.loads((job.results / f"attempts/{number}/tried.json").read_text())
        assert (said["micro"], said["stepped"]) == (8 // number, False)
    last = job.start(only_two_fit).succeed()
    assert (
        "Attempt 2, with micro-batches of 4, was killed without a word, most likely because memory ran out: this one begins with 2."
    ) in last.log
    assert "in micro-batches of at most 2 examples" in last.log
    assert_equal_ends(job, asked)
    said = json.loads((job.results / "attempts/3/tried.json").read_text())
    assert (said["micro"], said["found"], said["stepped"], said["tight"]) == (2, 2, True, False)
    assert said["peak"] > 2**20


def test_a_model_whose_layers_cannot_be_computed_again_begins_no_run_that_asks_for_it(tmp_path: Path) -> None:
    inputs = tiny_image_inputs(tmp_path / "inputs", "resnet", each=2)
    ended = attempt_inside(Job(tmp_path / "job", **inputs, training={"activationCheckpointing": "on"}))
    error = ended.result.error
    assert error is not None
    assert (error.reason, error.field) == (FailureReason.INVALID_SPEC, "spec.training.activationCheckpointing")
    assert "cannot compute the layers of ResNetForImageClassification again" in error.message
    assert ended.result.step == 0
