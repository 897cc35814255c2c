"""The last layer is computed for the first token alone where that is proved to be all that is read, and nowhere else."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from transformers import AutoModelForSequenceClassification

from finetune_trainer.engine import attention, first_token
from tests.training.architectures import ARCHITECTURES, save
from tests.training.sentences import ROWS
from tests.unit.trainer.rows import examples
from tests.unit.trainer.tasks.loading import ask, features_of, task_for

LABELS = ["cooking", "sky"]
EXAMPLES = examples([text for text, _ in ROWS], labels=np.array([label == "sky" for _, label in ROWS], dtype=np.int64))
READ_THE_FIRST = ("bert", "distilbert", "electra", "roberta", "xlm-roberta")


def loaded(folder):
    """A task whose model drops nothing, and its features."""
    torch.manual_seed(0)
    task = task_for(folder, EXAMPLES, LABELS)
    attention.use(task.model)
    for module in task.model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return task, features_of(task, EXAMPLES, 48)


def batch_of(task, features, size=8):
    return task.collate([features.get(index, np.random.default_rng(0)) for index in range(size)])


def used(task, features):
    return first_token.use(task, [batch_of(task, features, 2), batch_of(task, features, 1)])


def gradients(task, features):
    batch = batch_of(task, features)
    task.model.train()
    task.model.zero_grad()
    task.losses(task.outputs(batch), batch).sum().backward()
    return {name: values.grad for name, values in task.model.named_parameters()}


@pytest.fixture(params=ARCHITECTURES)
def name(request):
    return request.param


def test_it_is_done_for_models_that_read_the_first_token_and_for_no_other(name, tmp_path):
    task, features = loaded(save(name, tmp_path, labels=LABELS))
    state, before = torch.get_rng_state(), dict(task.model.state_dict())

    assert used(task, features) == (name in READ_THE_FIRST)
    assert torch.equal(torch.get_rng_state(), state)
    assert {name: id(values) for name, values in task.model.state_dict().items()}.keys() == before.keys()
    assert all(parameter.grad is None for parameter in task.model.parameters())


@pytest.mark.parametrize("name", READ_THE_FIRST)
def test_answers_and_gradients_stay(name, tmp_path):
    folder = save(name, tmp_path, labels=LABELS)
    plain, features = loaded(folder)
    shorter, _ = loaded(folder)
    assert used(shorter, features)

    wanted, found = gradients(plain, features), gradients(shorter, features)
    most = max(float(values.abs().max()) for values in wanted.values() if values is not None)
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-6 * most)
    torch.testing.assert_close(ask(shorter, features).losses, ask(plain, features).losses, rtol=1e-5, atol=1e-6)


def test_less_is_computed(tmp_path):
    task, features = loaded(save("bert", tmp_path, labels=LABELS))
    used(task, features)
    seen = []
    for layer in task.model.bert.encoder.layer:
        layer.register_forward_hook(lambda _, given, made: seen.append((given[0].shape[1], made.shape[1])))
    ask(task, features)

    assert all(given == made > 1 for given, made in seen[::2])
    assert all(given > made == 1 for given, made in seen[1::2])


@pytest.mark.parametrize("attribute", ["intermediate", "attention.output.LayerNorm"])
def test_a_layer_that_does_more_than_its_names_say_is_left_alone(attribute, tmp_path, monkeypatch):
    task, features = loaded(save("bert", tmp_path, labels=LABELS))
    layer = task.model.bert.encoder.layer[-1]
    part = layer.get_submodule(attribute)
    forward = type(layer).forward
    monkeypatch.setattr(type(layer), "forward", lambda self, *given, **named: forward(self, *given, **named) * 1.01)

    assert not used(task, features)
    assert "forward" not in vars(layer) and part is layer.get_submodule(attribute)


class MeanOfAll(nn.Module):
    def __init__(self, pooler):
        super().__init__()
        self.pooler = pooler

    def forward(self, hidden):
        return self.pooler(hidden.mean(dim=1, keepdim=True))


def test_a_head_that_reads_all_tokens_keeps_its_layer(tmp_path):
    task, features = loaded(save("bert", tmp_path, labels=LABELS))
    task.model.bert.pooler = MeanOfAll(task.model.bert.pooler)

    assert not used(task, features)


def test_where_nothing_is_read_nothing_is_proved(tmp_path):
    task, features = loaded(save("bert", tmp_path, labels=LABELS))
    nn.init.zeros_(task.model.classifier.weight)

    assert not used(task, features)


def test_a_decoder_whose_first_token_looks_at_itself_is_left_alone(tmp_path):
    task, features = loaded(save("bert", tmp_path, labels=LABELS, is_decoder=True))

    assert not used(task, features)


def test_frozen_layers_are_shortened_too(tmp_path):
    task, features = loaded(save("bert", tmp_path, labels=LABELS))
    for parameter in task.model.bert.parameters():
        parameter.requires_grad_(False)

    assert used(task, features)
    assert not any(parameter.requires_grad for parameter in task.model.bert.parameters())


def test_what_is_saved_is_the_model(tmp_path):
    task, features = loaded(save("bert", tmp_path / "model", labels=LABELS))
    assert used(task, features)
    task.save(tmp_path / "saved")

    saved = AutoModelForSequenceClassification.from_pretrained(tmp_path / "saved")
    batch = batch_of(task, features)
    with torch.no_grad():
        task.model.eval()
        torch.testing.assert_close(
            saved(**{k: v for k, v in batch.items() if k != "labels"}).logits, task.outputs(batch)["logits"]
        )
