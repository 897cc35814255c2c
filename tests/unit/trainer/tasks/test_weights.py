"""The body is the one that was pretrained, whole; what belongs to another task's head may be missing or left over."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import BertForSequenceClassification

from tests.training.architectures import save
from tests.unit.trainer.tasks.loading import load, refusal


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    kinds = ("bert", "roberta", "electra", "t5", "bart", "gpt2", "llama", "deberta-v3")
    return {name: save(name, tmp_path_factory.mktemp(name)) for name in kinds}


@pytest.fixture
def copy(folders, tmp_path):
    return lambda name: Path(shutil.copytree(folders[name], tmp_path / "copy"))


def rewrite(folder: Path, change) -> Path:
    """Store the weights as `change` makes them, of a dictionary of tensors."""
    file = folder / "model.safetensors"
    tensors = load_file(file)
    tensors = change(tensors) or tensors
    save_file({name: tensor.clone().contiguous() for name, tensor in tensors.items()}, file, {"format": "pt"})
    return folder


def same_body(one, other) -> bool:
    a, b = one.model.base_model.state_dict(), other.model.base_model.state_dict()
    return all(torch.equal(tensor, b[name]) for name, tensor in a.items() if "pooler" not in name)


HEADS = {
    "bert": {
        "cls.predictions.bias": (400,),
        "cls.seq_relationship.weight": (2, 16),
        "bert.embeddings.position_ids": (1, 64),
    },
    "roberta": {"lm_head.dense.weight": (16, 16), "lm_head.decoder.bias": (400,)},
    "electra": {"discriminator_predictions.dense.weight": (16, 16), "generator_lm_head.weight": (400, 8)},
    "t5": {
        "lm_head.weight": (423, 16),
        "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight": (32, 2),
    },
    "bart": {"final_logits_bias": (1, 400), "lm_head.weight": (400, 16)},
    "gpt2": {"lm_head.weight": (400, 16), "h.0.attn.bias": (1, 1, 64, 64), "h.0.attn.masked_bias": ()},
    "llama": {"lm_head.weight": (600, 16), "model.layers.0.self_attn.rotary_emb.inv_freq": (4,)},
    "deberta-v3": {"lm_predictions.lm_head.bias": (325,), "mask_predictions.dense.weight": (16, 16)},
}
"""What public weights of each have besides the body."""


@pytest.mark.parametrize("name", HEADS)
@pytest.mark.parametrize("prefixed", [False, True])
def test_heads_and_buffers_of_another_task_are_left_over_without_a_word(name, prefixed, folders, copy):
    plain = load(folders[name])
    prefix = f"{plain.model.base_model_prefix}."
    if name == "llama":
        prefix = "model."

    def with_head(tensors):
        body = {f"{prefix}{key}" if prefixed else key: tensor for key, tensor in tensors.items()}
        return body | {key: torch.zeros(shape) for key, shape in HEADS[name].items()}

    task = load(rewrite(copy(name), with_head))

    assert task.notes == []
    assert same_body(task, plain)
    assert task.new_parameters == plain.new_parameters


@pytest.mark.parametrize("name", ["bert", "t5", "gpt2", "llama"])
def test_one_missing_tensor_of_the_body_is_named(name, copy):
    lost = []

    def without_one(tensors):
        lost.append(next(key for key in sorted(tensors) if tensors[key].ndim == 2 and ".1." in key))
        tensors.pop(lost[0])

    said = refusal(rewrite(copy(name), without_one))

    assert f"{lost[0]} has shape (" in said and "by config.json and is not in the weights" in said


@pytest.mark.parametrize(
    "extra", ["encoder.layer.0.crossattention.self.query.weight", "bert.adapter.weight", "embeddings.more.weight"]
)
def test_one_more_tensor_in_the_body_is_named_with_its_shape(extra, copy):
    said = refusal(rewrite(copy("bert"), lambda tensors: {**tensors, extra: torch.zeros(3, 5)}))

    assert (
        f"{extra.removeprefix('bert.')} has shape (3, 5) in the weights and is not in the model of config.json" in said
    )


def test_a_missing_pooler_is_new_and_the_body_is_kept(folders, copy):
    whole = load(folders["bert"])

    task = load(rewrite(copy("bert"), lambda tensors: {k: v for k, v in tensors.items() if "pooler" not in k}))

    assert {name.rpartition(".")[0] for name in task.new_parameters} == {"bert.pooler.dense", "classifier"}
    assert same_body(task, whole)


def test_an_encoder_alone_is_no_model_with_a_decoder(copy):
    said = refusal(
        rewrite(copy("t5"), lambda tensors: {k: v for k, v in tensors.items() if not k.startswith("decoder.")})
    )

    assert "is not in the weights" in said


def test_weights_of_another_architecture_are_said_to_be_such(copy):
    said = refusal(rewrite(copy("bert"), lambda tensors: {f"module.wrapped.{k}": v for k, v in tensors.items()}))

    assert "the weights belong to another architecture" in said


def test_names_from_the_first_days_are_understood(folders, copy):
    def old(tensors):
        return {
            k.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): v
            for k, v in tensors.items()
        }

    task = load(rewrite(copy("bert"), old))

    assert task.notes == []
    assert same_body(task, load(folders["bert"]))


def shard(folder: Path, change=lambda index: None) -> Path:
    """Two files and an index that `change` may spoil."""
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(tensors)
    parts = {"model-00001-of-00002.safetensors": names[::2], "model-00002-of-00002.safetensors": names[1::2]}
    for file, held in parts.items():
        save_file({name: tensors[name] for name in held}, folder / file, {"format": "pt"})
    index = {"metadata": {}, "weight_map": {name: file for file, held in parts.items() for name in held}}
    change(folder)
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder


def test_weights_in_several_files_are_put_together(folders, copy):
    assert same_body(load(shard(copy("bert"))), load(folders["bert"]))


def test_a_file_of_several_that_is_missing_or_lacks_a_tensor_is_refused(copy, tmp_path):
    second = "model-00002-of-00002.safetensors"
    missing = refusal(shard(copy("bert"), lambda folder: (folder / second).unlink()))
    assert second in missing
    shutil.rmtree(tmp_path / "copy")

    def lose_one(folder):
        tensors = load_file(folder / second)
        tensors.pop(next(key for key in sorted(tensors) if key.startswith("encoder.layer.1.")))
        save_file(tensors, folder / second, {"format": "pt"})

    assert re.search(
        r"encoder\.layer\.1\..* by config.json and is not in the weights", refusal(shard(copy("bert"), lose_one))
    )


def test_quantised_weights_are_refused(copy):
    def quantised(tensors):
        key = next(key for key in sorted(tensors) if key.endswith("query.weight"))
        return {**tensors, key: tensors[key].to(torch.int8)}

    assert "query.weight is of type I8: quantised weights cannot be tuned" in refusal(rewrite(copy("bert"), quantised))


def test_a_config_that_says_so_is_of_quantised_weights(copy):
    folder = copy("bert")
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "bitsandbytes", "load_in_4bit": True}
    (folder / "config.json").write_text(json.dumps(config))

    assert "config.json has a quantization_config: quantised weights cannot be tuned" in refusal(folder)


def test_other_files_beside_the_weights_are_not_looked_at(copy):
    folder = copy("bert")
    save_file(
        {"encoder.layer.0.output.dense.weight": torch.zeros(2, 2, dtype=torch.int8)}, folder / "model.int8.safetensors"
    )

    assert load(folder).notes == []


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_no_numbers_are_refused(value, copy):
    def spoilt(tensors):
        next(tensors[key] for key in sorted(tensors) if key.endswith("query.weight"))[3, 3] = value

    assert "query.weight holds values that are no numbers" in refusal(rewrite(copy("bert"), spoilt))


@pytest.mark.parametrize(
    "wrong",
    [
        {"hidden_size": "wide"},
        {"num_attention_heads": 0},
        {"num_attention_heads": 3},
        {"model_type": "none"},
        {"hidden_act": "x"},
    ],
)
def test_a_config_that_makes_no_sense_is_an_invalid_model(wrong, copy):
    folder = copy("bert")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **wrong}))

    assert "the model cannot be loaded for text-classification" in refusal(folder)


def test_a_body_whose_model_does_not_tell_it_from_the_head_is_still_whole(copy, folders, monkeypatch):
    """As in code that comes with a model and gives its body another name than it says."""
    monkeypatch.setattr(BertForSequenceClassification, "base_model_prefix", "model")
    named = {f"bert.{key}": tensor for key, tensor in load_file(folders["bert"] / "model.safetensors").items()}

    folder = rewrite(copy("bert"), lambda _: named)
    assert load(folder).new_parameters == {"classifier.weight", "classifier.bias"}
    more = rewrite(folder, lambda _: {**named, "bert.encoder.layer.2.more.weight": torch.zeros(3)})
    assert "layer.2.more.weight has shape (3,) in the weights and is not in the model" in refusal(more)
    fewer = rewrite(folder, lambda _: {name: tensor for name, tensor in named.items() if "layer.1.output" not in name})
    assert "by config.json and is not in the weights" in refusal(fewer)
