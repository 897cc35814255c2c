"""What is computed in less time is computed all the same, for every architecture, and resumes exactly."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from torch import nn
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from finetune_api.training import Training
from finetune_trainer.engine import attention, occurring
from finetune_trainer.engine.dropout import Dropout, dropout
from finetune_trainer.engine.levers import quicken
from finetune_trainer.engine.memory import MicroBatch
from finetune_trainer.engine.optimizer import adamw, shorten
from finetune_trainer.engine.predict import Arithmetic
from finetune_trainer.engine.steps import Steps
from finetune_trainer.engine.weights import load_weights
from tests.training.architectures import ARCHITECTURES, save
from tests.training.sentences import ROWS
from tests.unit.trainer.rows import examples
from tests.unit.trainer.tasks.loading import features_of, task_for

CPU = torch.device("cpu")
ARITHMETIC = Arithmetic(CPU, bf16=False)
EXAMPLES = examples([text for text, _ in ROWS], labels=np.array([label == "sky" for _, label in ROWS], dtype=np.int64))
ATTEND_AS_THEY_ALWAYS_DO = {"deberta-v2", "deberta-v3", "longformer", "mpnet"}
"""Their attention is no other's, so transformers has no place for ours."""


# Dropout


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_each_of_four_neighbours_is_dropped_as_often_and_the_mean_stays(p, dtype):
    torch.manual_seed(0)
    dropped = dropout(torch.ones(400_000, 4, dtype=dtype), p)

    assert (dropped == 0).double().mean(0).tolist() == pytest.approx([p] * 4, abs=4 * (p * (1 - p) / 400_000) ** 0.5)
    assert dropped.double().mean() == pytest.approx(1, abs=0.005)
    assert dropped.unique().numel() == 2


def test_neighbours_are_dropped_independently():
    torch.manual_seed(0)
    dropped = (dropout(torch.ones(100_000, 8), 0.5) == 0).double()

    off_diagonal = torch.corrcoef(dropped.T) - torch.eye(8)
    assert off_diagonal.abs().max() < 0.02


def test_what_is_dropped_has_no_gradient_and_what_is_kept_has_its_factor():
    values = torch.rand(3, 5, 7, requires_grad=True)

    kept = dropout(values, 0.3)
    kept.sum().backward()

    assert torch.equal(values.grad * values, kept)


def test_the_same_state_of_the_generator_drops_the_same():
    values, state = torch.rand(1001), torch.get_rng_state()
    first = dropout(values, 0.1)
    torch.set_rng_state(state)

    assert torch.equal(dropout(values, 0.1), first)


@pytest.mark.parametrize(("p", "kept"), [(0.0, 1), (1e-6, 1), (1.0, 0)])
def test_the_ends_of_the_scale_are_torchs_own(p, kept):
    assert dropout(torch.ones(1000), p).sum() == pytest.approx(1000 * kept, abs=1)


def test_in_evaluation_nothing_is_dropped():
    assert torch.equal(Dropout(0.5).eval()(torch.ones(100)), torch.ones(100))


# Attention


MASKS = {
    "none": None,
    "of padding": torch.tensor([[True] * 6, [True] * 4 + [False] * 2])[:, None, None, :].expand(2, 1, 6, 6),
    "causal": torch.ones(6, 6, dtype=torch.bool).tril()[None, None],
    "added": torch.randn(2, 4, 6, 6, generator=torch.Generator().manual_seed(0)),
}


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
@pytest.mark.parametrize("scaling", [None, 0.7])
def test_our_attention_is_that_of_torch_where_nothing_is_dropped(mask, groups, scaling, monkeypatch):
    torch.manual_seed(0)
    asked = []
    monkeypatch.setattr(attention, "drop", lambda weights, p: asked.append(p) or weights)
    module = nn.Module()
    module.num_key_value_groups, module.is_causal = groups, False
    query, key, value = torch.randn(2, 4, 6, 8), torch.randn(2, 4 // groups, 6, 8), torch.randn(2, 4 // groups, 6, 8)

    ours, _ = attention.attend(module, query, key, value, mask, dropout=0.1, scaling=scaling)
    theirs, _ = sdpa_attention_forward(module, query, key, value, mask, dropout=0.0, scaling=scaling)

    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)
    assert asked == [0.1]


def test_a_causal_layer_without_a_mask_still_looks_at_nothing_that_follows():
    torch.manual_seed(0)
    module, one = nn.Module(), torch.randn(1, 1, 5, 8)
    changed = one.clone()
    changed[:, :, -1] += 1

    before, _ = attention.attend(module, one, one, one, None, dropout=1e-9)
    after, _ = attention.attend(module, one, changed, changed, None, dropout=1e-9)

    torch.testing.assert_close(before[:, :-1], after[:, :-1])


# Clipping


@pytest.mark.parametrize("length", [0.01, 1.0, 30.0])
def test_the_optimiser_shortens_gradients_as_torch_clips_them(length):
    torch.manual_seed(0)
    models = [nn.Linear(30, 20) for _ in range(2)]
    models[1].load_state_dict(models[0].state_dict())
    gradient = torch.randn(20, 30)
    for model, shortening in zip(models, (False, True), strict=True):
        optimizer = adamw(model, Training(learningRate=0.01, weightDecay=0.1))
        for _ in range(3):
            model.weight.grad = gradient / gradient.norm() * length
            model.bias.grad = torch.zeros(20)
            if shortening:
                shorten(optimizer)
            else:
                nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()

    torch.testing.assert_close(models[1].weight, models[0].weight, rtol=1e-5, atol=1e-7)


def test_a_gradient_that_is_no_number_is_not_passed_over():
    model = nn.Linear(3, 2)
    optimizer = adamw(model, Training())
    model.weight.grad, model.bias.grad = torch.full((2, 3), float("nan")), torch.zeros(2)

    shorten(optimizer)
    optimizer.step()

    assert model.weight.isnan().all()


# Models


def steps_of(task, features, after_step=lambda step: False):
    quicken(task, features, ARITHMETIC)
    return Steps(
        task,
        features,
        task.spec.training,
        arithmetic=ARITHMETIC,
        micro=MicroBatch(5),
        total_steps=6,
        check=lambda: None,
        after_step=after_step,
    )


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_architecture_answers_as_before_and_resumes_exactly(name, tmp_path, monkeypatch):
    monkeypatch.setattr(occurring, "MOST", 1.0)  # their vocabularies are small
    folder = save(name, tmp_path / "model", labels=["cooking", "sky"])

    def load():
        torch.manual_seed(0)
        training = {"batchSize": 8, "learningRate": 1e-3, "weightDecay": 0.1}
        task = task_for(folder, EXAMPLES, ["cooking", "sky"], training=training)
        return task, features_of(task, EXAMPLES, 48)

    task, features = load()
    batch = task.collate([features.get(index, np.random.default_rng(0)) for index in range(6)])
    with torch.no_grad():
        task.model.eval()
        before = task.outputs(batch)["logits"]
        task.model.save_pretrained(tmp_path / "before")
        quicken(task, features, ARITHMETIC)
        torch.testing.assert_close(task.outputs(batch)["logits"], before, rtol=1e-5, atol=1e-6)
        task.model.save_pretrained(tmp_path / "after")
    config, was = (json.loads((tmp_path / when / "config.json").read_text()) for when in ("after", "before"))
    assert config == was
    assert (task.model.config._attn_implementation == attention.NAME) == (name not in ATTEND_AS_THEY_ALWAYS_DO)

    task, features = load()
    steps_of(task, features).run()
    whole = {name: value.clone() for name, value in task.model.state_dict().items()}
    task, features = load()
    first = steps_of(task, features, lambda step: step == 3)
    first.run()
    (tmp_path / "saved").mkdir()
    first.save(tmp_path / "saved")
    torch.rand(7)
    task, features = load()
    steps = steps_of(task, features)
    load_weights(task.model, tmp_path / "saved")
    steps.run(3, tmp_path / "saved")

    assert all(torch.equal(task.model.state_dict()[name], value) for name, value in whole.items())
