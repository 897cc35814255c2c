"""What is saved of a model is what training can change, and over the pretrained model it is the trained one."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file, save_model
from transformers import AutoModelForImageClassification, AutoModelForSeq2SeqLM, ResNetConfig, T5Config

from finetune_api.training import Freeze
from finetune_trainer.engine.freeze import freeze
from finetune_trainer.engine.weights import MOVED, WHOLE, load_weights, save_weights
from tests.training.models import tiny

MODELS = {
    "bert": lambda: tiny("bert"),
    "with tables that are shared": lambda: AutoModelForSeq2SeqLM.from_config(
        T5Config(vocab_size=50, d_model=16, d_kv=8, d_ff=32, num_layers=1, num_heads=2)
    ),
    "with statistics of batches": lambda: AutoModelForImageClassification.from_config(
        ResNetConfig(embedding_size=8, layer_type="basic", hidden_sizes=[8, 8], depths=[1, 1])
    ),
}


def model_of(build, frozen=None):
    torch.manual_seed(0)
    model = build()
    freeze(model, frozen)
    return model


def names_of(model):
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


def train(model):
    """Change all that may change."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter += torch.rand_like(parameter)
        for values in model.buffers():
            if values.is_floating_point():
                values += 1


@pytest.mark.parametrize("build", MODELS.values(), ids=MODELS)
@pytest.mark.parametrize("frozen", [None, Freeze(lowestLayers=1), Freeze(embeddings=True)], ids=str)
def test_over_the_pretrained_model_or_over_one_trained_further_it_is_the_trained_one(build, frozen, tmp_path):
    model = model_of(build, frozen)
    train(model)
    save_weights(model, tmp_path, names_of(model))

    wanted = model.state_dict()
    for further in (False, True):
        again = model_of(build, frozen)
        if further:
            train(again)
        load_weights(again, tmp_path)
        assert all(torch.equal(again.state_dict()[name], values) for name, values in wanted.items())
    held = {name for name, _ in model.named_parameters() if name in load_file(tmp_path / MOVED)}
    assert held == names_of(model)


def test_of_a_frozen_backbone_it_is_the_head(tmp_path):
    model = model_of(MODELS["bert"], Freeze(backbone=True))

    save_weights(model, tmp_path, names_of(model))

    assert load_file(tmp_path / MOVED).keys() == {"classifier.weight", "classifier.bias"}
    assert (tmp_path / MOVED).stat().st_size < 1000


def test_what_was_saved_whole_is_loaded(tmp_path):
    model, again = model_of(MODELS["bert"]), model_of(MODELS["bert"], Freeze(lowestLayers=1))
    train(model)
    save_model(model, str(tmp_path / WHOLE))

    load_weights(again, tmp_path)

    assert all(torch.equal(again.state_dict()[name], values) for name, values in model.state_dict().items())


def test_weights_that_are_trained_have_to_be_there(tmp_path):
    model = model_of(MODELS["bert"], Freeze(lowestLayers=1))
    save_weights(model, tmp_path, names_of(model))

    with pytest.raises(RuntimeError, match=r"lacks .*encoder\.layer\.0"):
        load_weights(model_of(MODELS["bert"]), tmp_path)
