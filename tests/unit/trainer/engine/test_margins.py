"""What is noted of each example while it is trained on."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from finetune_trainer.engine.memory import MicroBatch
from finetune_trainer.engine.steps import Steps
from tests.training.models import save_tiny_bert
from tests.training.sentences import ROWS
from tests.unit.trainer.engine.test_steps import EXAMPLES, LABELS, steps_of
from tests.unit.trainer.tasks.loading import features_of, said, suspects_of, task_for

BATCHES = {"batchSize": 12, "learningRate": 1e-3}


@pytest.fixture
def task(tmp_path):
    save_tiny_bert(tmp_path / "model", [text for text, _ in ROWS], dropout=0.0)
    torch.manual_seed(0)
    return task_for(tmp_path / "model", EXAMPLES, ["cooking", "sky"])


@pytest.fixture
def encoded(task):
    return features_of(task, EXAMPLES, 64)


def weights(task):
    return {name: values.clone() for name, values in task.model.state_dict().items()}


@pytest.mark.parametrize("micro", [1, 5, 48])
def test_the_margin_of_the_first_step_is_that_of_the_model_as_it_was(task, encoded, micro):
    told = np.log(said(task, encoded))  # which differ by what logits differ by
    steps = steps_of(task, encoded, micro=micro, **BATCHES)
    steps.run()
    seen = steps.margins.margins()

    (trained,) = np.nonzero(seen.times)
    assert len(trained) == 12 and seen.times.max() == 1
    own, other = told[trained, LABELS[trained]], told[trained, 1 - LABELS[trained]]
    np.testing.assert_allclose(seen.total[trained], own - other, atol=1e-4)
    np.testing.assert_allclose(seen.loss[trained], -own, atol=1e-4)
    assert (seen.other[trained] == 1 - LABELS[trained]).all()
    assert not seen.total[seen.times == 0].any() and not seen.loss[seen.times == 0].any()


def test_each_epoch_adds_one_margin_of_each_example(task, encoded):
    before = []
    steps = steps_of(task, encoded, total_steps=8, after_step=lambda s: s == 4 and look(), **BATCHES)  # two epochs

    def look():
        before.append(steps.margins.margins())

    steps.run()
    now = steps.margins.margins()
    assert (now.times == 2).all()
    assert (before[0].times == 1).all() and (before[0].total != now.total).all(), "what was told goes on to change"


def test_a_step_that_is_done_again_counts_once(task, encoded, monkeypatch):
    expected = steps_of(task, encoded, micro=6, **BATCHES)
    before = weights(task)
    expected.run()
    task.model.load_state_dict(before)
    losses, calls = task.losses, 0

    def losses_within_memory(outputs, batch):
        nonlocal calls
        calls += 1
        if calls == 2 or len(batch["labels"]) == 12:  # in the middle of a step, too
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return losses(outputs, batch)

    monkeypatch.setattr(task, "losses", losses_within_memory)
    steps = steps_of(task, encoded, micro=MicroBatch(12), **BATCHES)
    steps.run()
    found, wanted = steps.margins.margins(), expected.margins.margins()
    assert (found.times == wanted.times).all()
    np.testing.assert_allclose(found.total, wanted.total, atol=1e-5)
    np.testing.assert_allclose(found.loss, wanted.loss, atol=1e-5)


def test_whoever_goes_on_from_a_checkpoint_ends_with_the_same(task, encoded, tmp_path):
    before = weights(task)
    whole = steps_of(task, encoded, total_steps=8, **BATCHES)
    whole.run()
    task.model.load_state_dict(before)
    first = steps_of(task, encoded, total_steps=8, after_step=lambda step: step == 3, **BATCHES)
    first.run()
    first.save(tmp_path)
    second: Steps = steps_of(task, encoded, total_steps=8, **BATCHES)
    second.margins.load(tmp_path)
    second.run(3, tmp_path)

    found, wanted = second.margins.margins(), whole.margins.margins()
    for name, values in vars(wanted).items():
        np.testing.assert_array_equal(getattr(found, name), values)


def test_a_checkpoint_of_an_earlier_version_has_none_and_is_gone_on_from(task, encoded, tmp_path):
    steps = steps_of(task, encoded, **BATCHES)
    steps.margins.load(tmp_path)
    steps.run()
    assert steps.margins.margins().times.sum() == 12


def test_a_task_without_labels_has_no_margins(task, encoded, monkeypatch, tmp_path):
    monkeypatch.setattr(task, "margins", lambda outputs, batch: None)
    steps = steps_of(task, encoded, **BATCHES)
    steps.run()
    steps.save(tmp_path)
    assert not steps.margins.margins().times.any()
    assert not list(tmp_path.glob("margins*"))
    assert suspects_of(task, EXAMPLES, encoded, steps.margins.margins(), tmp_path) == []
