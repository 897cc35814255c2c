"""A loss that compares all features of a batch has one gradient, however the batch is cut, also with dropout."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from finetune_api.training import Training
from finetune_trainer.engine.memory import MicroBatch
from finetune_trainer.engine.predict import predict
from finetune_trainer.engine.randomness import random_state, set_random_state
from finetune_trainer.engine.steps import Steps
from finetune_trainer.stop import Preempted
from finetune_trainer.tasks.base import Told
from tests.unit.trainer.tasks.loading import CPU, never

SIZE = 48


class Pair(nn.Module):
    """Two towers with dropout and a temperature that only the loss knows."""

    def __init__(self):
        super().__init__()
        self.left = nn.Sequential(nn.Linear(8, 32), nn.Dropout(0.2), nn.GELU(), nn.Linear(32, 4))
        self.right = nn.Sequential(nn.Linear(6, 32), nn.Dropout(0.2), nn.GELU(), nn.Linear(32, 4))
        self.temperature = nn.Parameter(torch.tensor(1.0))
        self.config = type("Config", (), {})()


class Features:
    costs = np.ones(SIZE, np.int64)
    weights = np.ones(SIZE)
    rows = np.arange(SIZE)
    notes = ()
    decodes = False

    def __init__(self):
        draw = np.random.default_rng(0)
        self._left, self._right = (draw.normal(size=(SIZE, n)).astype(np.float32) for n in (8, 6))

    def get(self, index, draw):
        noise = draw.normal(size=8).astype(np.float32)
        return {"left": self._left[index] + noise / 10, "right": self._right[index], "text": index % 40}


class Matching:
    """A toy of a contrastive task: each left belongs to its right, and equal texts are no negatives of each other."""

    whole_batch = True
    depends_on_padding = False
    new_parameters = frozenset()

    def __init__(self):
        torch.manual_seed(0)
        self.model = Pair()

    def collate(self, features):
        return {name: torch.from_numpy(np.asarray([f[name] for f in features])) for name in features[0]}

    def outputs(self, batch):
        return {side: nn.functional.normalize(getattr(self.model, side)(batch[side])) for side in ("left", "right")}

    def losses(self, outputs, batch):
        assert set(batch) == {"text"}, "only what has one axis"
        scores = self.model.temperature.exp() * outputs["left"].float() @ outputs["right"].float().T
        same = (batch["text"][:, None] == batch["text"]) & ~torch.eye(len(scores), dtype=torch.bool)
        scores = scores.masked_fill(same, -torch.inf)
        true = torch.arange(len(scores))
        return (cross_entropy(scores, true, reduction="none") + cross_entropy(scores.T, true, reduction="none")) / 2

    def margins(self, outputs, batch):
        assert not torch.is_grad_enabled()
        alike = (outputs["left"] * outputs["right"]).sum(dim=1)
        return Told(1 - alike, alike, batch["text"])

    def answers(self, outputs, batch):
        return {"left": outputs["left"], "length": outputs["left"].square().sum(-1)}


def steps_of(task, micro, check=never):
    limit = micro if isinstance(micro, MicroBatch) else MicroBatch(micro)
    return Steps(
        task,
        Features(),
        Training(batchSize=SIZE),
        arithmetic=CPU,
        micro=limit,
        total_steps=1,
        check=check,
        after_step=lambda step: False,
    )


def direct(task, micro):
    """Loss and gradient of one pass over the whole batch, whose dropout is drawn by micro-batches as ours is."""
    torch.manual_seed(5)
    steps = steps_of(task, SIZE)
    made = [steps._made((0, index)) for index in range(SIZE)]
    batches = [steps._collate(made[begin : begin + micro]) for begin in range(0, SIZE, micro)]
    parts = [task.outputs(batch) for batch in batches]
    outputs = {side: torch.cat([part[side] for part in parts]) for side in parts[0]}
    loss = task.losses(outputs, {"text": torch.cat([batch["text"] for batch in batches])}).mean()
    return loss.detach(), torch.autograd.grad(loss, list(task.model.parameters()))


def ours(task, micro, **options):
    torch.manual_seed(5)
    task.model.zero_grad()
    loss = steps_of(task, micro, **options).gradient(np.arange(SIZE))
    return loss, [parameter.grad.clone() for parameter in task.model.parameters()]


@pytest.mark.parametrize("micro", [48, 16, 7])
def test_the_gradient_is_that_of_one_pass_with_dropout_too(micro):
    task = Matching()
    task.model.train()
    wanted_loss, wanted = direct(task, micro)
    after = torch.get_rng_state()

    loss, found = ours(task, micro)

    assert float(loss) == pytest.approx(float(wanted_loss), abs=1e-6)
    for one, other in zip(found, wanted, strict=True):
        assert (one - other).abs().max() < 2e-7 * max(1.0, float(other.abs().max()))
    assert torch.equal(torch.get_rng_state(), after), "the next step would draw otherwise"
    assert any(float(other.abs().max()) > 1e-3 for other in wanted)


@pytest.mark.parametrize("failing", [2, 5], ids=["in the first pass", "in the second pass"])
def test_a_step_that_ran_out_of_memory_begins_anew_and_leaves_nothing_behind(failing, monkeypatch):
    wanted_loss, wanted = ours(Matching(), 8)
    task, calls = Matching(), []
    outputs = task.outputs

    def outputs_within_memory(batch):
        calls.append(len(batch["left"]))
        if len(calls) == failing:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")
        return outputs(batch)

    monkeypatch.setattr(task, "outputs", outputs_within_memory)
    micro = MicroBatch(16)
    noted: list[int] = []
    monkeypatch.setattr(task, "margins", lambda outputs, batch: noted.append(len(batch["text"])))
    loss, found = ours(task, micro)

    assert micro.limit == 8
    assert noted == [SIZE] * (1 if failing == 2 else 2)
    assert calls[:failing] == [16] * failing and calls[failing:] == [8] * 12
    assert torch.equal(loss, wanted_loss)
    assert all(torch.equal(one, other) for one, other in zip(found, wanted, strict=True))


def test_a_step_that_is_told_to_stop_in_the_second_pass_has_not_begun():
    task, looks = Matching(), []

    def check():
        looks.append(1)
        if len(looks) == 5:
            raise Preempted

    before = random_state()["cpu"].clone()
    with pytest.raises(Preempted):
        steps_of(task, 16, check).gradient(np.arange(SIZE))

    assert torch.equal(torch.get_rng_state(), before)
    assert all(parameter.grad is None for parameter in task.model.parameters())


@pytest.mark.parametrize("micro", [48, 16, 7])
def test_what_is_noted_of_each_feature_is_that_of_one_pass(micro):
    task = Matching()
    torch.manual_seed(5)
    steps = steps_of(task, micro)
    task.model.train()
    made = [steps._made((0, index)) for index in range(SIZE)]
    parts = [task.outputs(steps._collate(made[begin : begin + micro])) for begin in range(0, SIZE, micro)]
    wanted = torch.cat([(part["left"] * part["right"]).sum(dim=1) for part in parts]).detach()

    torch.manual_seed(5)
    steps.gradient(np.arange(SIZE))
    steps.margins.keep()
    seen = steps.margins.margins()

    np.testing.assert_allclose(seen.total, wanted, atol=1e-6)
    np.testing.assert_allclose(seen.loss, 1 - wanted, atol=1e-6)
    assert seen.times.tolist() == [1] * SIZE
    assert seen.other.tolist() == [index % 40 for index in range(SIZE)]


def test_evaluations_compare_batches_of_the_same_neighbours_however_they_are_cut(monkeypatch):
    task, features = Matching(), Features()

    def predicted():
        return predict(task, features, CPU, never, seed=3, batch_size=20)

    whole = predicted()
    monkeypatch.setattr("finetune_trainer.engine.predict.COST", {"cpu": 7})
    parts = predicted()

    np.testing.assert_allclose(parts.losses, whole.losses, atol=1e-6)
    task.model.eval()
    first = task.collate([features.get(index, np.random.default_rng([3, index])) for index in range(20)])
    wanted = task.losses(task.outputs(first), {"text": first["text"]})
    np.testing.assert_allclose(whole.losses[:20], wanted.detach().numpy(), atol=1e-6)
    assert isinstance(whole.answers, pa.Table) and whole.answers.num_rows == SIZE
    np.testing.assert_allclose(
        whole.answers.column("left")[3].as_py(), task.outputs(first)["left"][3].detach(), atol=1e-6
    )


def test_random_states_are_told_apart():
    """Else the test of dropout above would prove nothing."""
    state = random_state()
    one = torch.rand(3)
    set_random_state(state)
    assert torch.equal(torch.rand(3), one) and not torch.equal(torch.rand(3), one)
