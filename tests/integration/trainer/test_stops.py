"""Being told to stop at an exact moment of training: nothing that was done is lost, and the end is that of a run nobody disturbed."""

from __future__ import annotations

import pytest
import torch

from finetune_api.failures import FailureReason
from finetune_api.progress import TrainerPhase
from finetune_trainer.engine.loop import Loop
from finetune_trainer.tasks.text_classification import TextClassification
from tests.training.attempts import Job
from tests.training.inside import at_step, attempt_inside, complete_inside, tell_to_stop
from tests.training.interruptions import assert_equal_ends
from tests.training.tiny import tiny_inputs

QUICK = {"epochs": 3, "batchSize": 8, "learningRate": 1e-3, "precision": "fp32"}
"""Fifteen steps, five an epoch."""


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    return tiny_inputs(tmp_path_factory.mktemp("inputs"))


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, inputs):
    job = Job(tmp_path_factory.mktemp("undisturbed"), **inputs, training=QUICK)
    complete_inside(job)
    return job


@pytest.fixture(scope="module")
def undisturbed_in_twos(tmp_path_factory, inputs):
    job = Job(tmp_path_factory.mktemp("undisturbed"), **inputs, training={**QUICK, "microBatchSize": 2})
    complete_inside(job)
    return job


def in_training(method, act):
    """`method` of the task, with `act(call)` before each call that is made for an optimiser step; calls count from 1."""
    calls = 0

    def wrapped(task, *arguments):
        nonlocal calls
        if task.model.training and torch.is_grad_enabled():
            calls += 1
            act(calls)
        return method(task, *arguments)

    return wrapped


def test_in_an_evaluation_between_steps(inputs, undisturbed, tmp_path):
    job = Job(tmp_path, **inputs, training=QUICK)

    stopped = attempt_inside(
        job, told_at=lambda progress: progress.phase is TrainerPhase.EVALUATING and progress.metric("step") == 5
    )
    assert "Stopped in the evaluation after step 5" in stopped.log
    assert (stopped.result.outcome, stopped.result.step) == ("preempted", 5)
    again = attempt_inside(job, told_at=at_step(7))
    assert "Epoch 1 of 3, step 5 of 15" in again.log
    assert [folder.name for folder in (job.results / "best").iterdir()] == ["step-5-attempt-2"]
    complete_inside(job)

    assert_equal_ends(job, undisturbed)


# Of the first step; of a step in mid-epoch; of the first of an epoch.
@pytest.mark.parametrize("micro_batch", [2, 10, 22])
def test_in_the_middle_of_a_step_of_many_micro_batches(inputs, undisturbed_in_twos, tmp_path, monkeypatch, micro_batch):
    job = Job(tmp_path, **inputs, training={**QUICK, "microBatchSize": 2})
    begun = []

    def told(call):
        begun.append(call)
        if call == micro_batch:
            tell_to_stop()

    with monkeypatch.context() as patch:
        patch.setattr(TextClassification, "collate", in_training(TextClassification.collate, told))
        stopped = attempt_inside(job)
    done = (micro_batch - 1) // 4
    assert (stopped.result.outcome, stopped.result.step) == ("preempted", done)
    assert job.saved_step() == done
    assert begun[-1] == micro_batch, "no micro-batch was begun after the signal"
    again = complete_inside(job)

    assert f"from step {done}." in again.log
    assert_equal_ends(job, undisturbed_in_twos)


def test_right_after_it_was_decided_not_to_save(inputs, undisturbed, tmp_path, monkeypatch):
    job = Job(tmp_path, **inputs, training=QUICK)

    def not_due(loop):
        if loop.state.step == 3:
            tell_to_stop()
        return False

    with monkeypatch.context() as patch:
        patch.setattr(Loop, "_save_due", property(not_due))
        stopped = attempt_inside(job)
    assert (stopped.result.outcome, stopped.result.step) == ("preempted", 3)
    assert job.saved_step() == 3
    complete_inside(job)

    assert_equal_ends(job, undisturbed)


def test_what_memory_allowed_is_remembered(inputs, tmp_path, monkeypatch):
    too_much = TextClassification.collate

    def collate(task, features):
        if len(features) > 3 and task.model.training:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return too_much(task, features)

    undisturbed, job = (Job(tmp_path / name, **inputs, training=QUICK) for name in ("undisturbed", "job"))
    with monkeypatch.context() as patch:
        patch.setattr(TextClassification, "collate", collate)
        complete_inside(undisturbed)
        assert attempt_inside(job, told_at=at_step(3)).result.step == 3
    again = complete_inside(job)

    assert "in micro-batches of at most 2 examples" in again.log
    assert_equal_ends(job, undisturbed)


def test_bf16_goes_on_as_exactly_as_fp32(inputs, tmp_path):
    training = {**QUICK, "epochs": 2, "precision": "bf16"}
    undisturbed, job = (Job(tmp_path / name, **inputs, training=training) for name in ("undisturbed", "job"))
    assert "in bf16 with 1 CPU thread" in complete_inside(undisturbed).log

    assert attempt_inside(job, told_at=at_step(7)).result.step == 7
    complete_inside(job)

    assert_equal_ends(job, undisturbed)


def test_a_diverged_model_is_not_saved(inputs, tmp_path, monkeypatch):
    # So many steps that the loss of the second is looked at by its save alone.
    job = Job(tmp_path, **inputs, training={**QUICK, "epochs": 300}, checkpoints={"everySteps": 2})

    class Diverging:
        losses = TextClassification.losses
        steps = 0

    def losses(task, outputs, batch):
        Diverging.steps += task.model.training
        return Diverging.losses(task, outputs, batch) * (float("nan") if Diverging.steps >= 4 else 1)

    with monkeypatch.context() as patch:
        patch.setattr(TextClassification, "losses", losses)
        failed = attempt_inside(job).result

    assert failed.error is not None
    assert failed.error.reason is FailureReason.LOSS_DIVERGED
    assert "at step 4 of 1500" in failed.error.message
    assert job.saved_step() == 2
