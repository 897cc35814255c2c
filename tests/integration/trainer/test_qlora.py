"""Adapters beside weights in four bits: what these stand for, which layers have them, and runs from spec to results. On a CPU, where the code of
bitsandbytes is another than on a GPU, and the trainer allows none."""

from __future__ import annotations

import json
import sys
from functools import partial

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from transformers import AutoModelForSequenceClassification, BitsAndBytesConfig
from transformers.pytorch_utils import Conv1D

from finetune_api.failures import FailureReason, JobError
from finetune_api.training import Lora
from finetune_trainer.engine import nf4
from finetune_trainer.engine.adapters import Adapters, peft_library
from finetune_trainer.engine.freeze import ParameterCount, freeze
from finetune_trainer.engine.nf4 import BLOCK, Nf4, library
from finetune_trainer.engine.weights import MOVED
from tests.training.architectures import save
from tests.training.attempts import Job
from tests.training.inside import at_step, attempt_inside, complete_inside
from tests.training.interruptions import assert_equal_ends
from tests.training.sentences import ROWS
from tests.training.tiny import write_rows
from tests.unit.trainer.engine.test_tuning import spec_of
from tests.unit.trainer.rows import examples
from tests.unit.trainer.tasks.loading import features_of, task_for

HERE = torch.device("cpu")
PARTS = torch.tensor(
    [
        *(-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635),
        *(-0.18477343022823334, -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725),
        *(0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0),
    ]
)
"""Of the largest magnitude of a block, by appendix E of the paper."""
LABELS = ["cooking", "sky"]
TRAIN = examples(
    [text for text, _ in ROWS[:16]], labels=np.array([label == "sky" for _, label in ROWS[:16]], dtype=np.int64)
)
BERT = {
    "hidden_size": BLOCK,
    "intermediate_size": 2 * BLOCK,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
}
MODELS = {
    "bert": BERT,
    "gpt2": {"n_embd": BLOCK, "resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0},
    "llama": {"hidden_size": BLOCK, "intermediate_size": 2 * BLOCK, "head_dim": 32},
    "t5": {"d_model": BLOCK, "d_ff": 2 * BLOCK, "d_kv": 32, "dropout_rate": 0.0},
}
"""Whose layers have as many inputs as bitsandbytes needs on a CPU."""


# one layer


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("turned", [False, True], ids=["Linear", "Conv1D"])
def test_a_weight_stands_for_the_nearest_parts_of_the_largest_of_its_block_and_is_multiplied_by(turned, dtype):
    torch.manual_seed(0)
    layer = Conv1D(96, 2 * BLOCK) if turned else nn.Linear(2 * BLOCK, 96)
    nn.init.normal_(layer.weight)
    nn.init.normal_(layer.bias)
    layer.weight.data[:, 5] = 0
    weight = (layer.weight.T if turned else layer.weight).detach().to(dtype).float()

    packed = Nf4(layer, HERE, dtype)

    blocks = weight.reshape(-1, BLOCK)
    largest = blocks.abs().amax(dim=1, keepdim=True)
    nearest = PARTS[(blocks / largest).unsqueeze(-1).sub(PARTS).abs().argmin(-1)] * largest
    meant = library().functional.dequantize_4bit(packed.weight, packed.weight.quant_state).float()
    exactly = torch.finfo(dtype).eps * largest.max()
    assert (meant.reshape(-1, BLOCK) - nearest).abs().max() <= nf4.ROUNDING_OF_LARGEST * largest.max() + exactly
    assert packed.weight.nbytes == weight.numel() // 2 and nf4.count(packed.weight) == weight.numel()
    given = torch.randn(3, 2 * BLOCK, dtype=dtype, requires_grad=True)
    wanted = nn.functional.linear(given, meant.to(dtype), layer.bias.to(dtype))
    found = packed(given)
    torch.testing.assert_close(found, wanted)
    torch.testing.assert_close(*(torch.autograd.grad(y.square().sum(), given)[0] for y in (found, wanted)))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert packed(given.float()).dtype == nn.Linear(2 * BLOCK, 96)(given.float()).dtype == torch.bfloat16


def one_off(meant):
    meant[3, 7] += 2.0
    return meant


def nothing(meant):
    return torch.full_like(meant, torch.nan)


@pytest.mark.parametrize(
    ("spoilt", "by", "says"),
    [
        ("dequantize_4bit", one_off, "is held as"),
        ("dequantize_4bit", nothing, "is held as nan"),
        ("matmul_4bit", one_off, "products of 16 rows are off by"),
        ("matmul_4bit", nothing, "products of 1 rows are off by nan"),
    ],
)
def test_a_library_that_does_not_give_back_what_it_was_given_is_refused(spoilt, by, says, monkeypatch):
    torch.manual_seed(0)
    of = library() if spoilt == "matmul_4bit" else library().functional
    good = getattr(of, spoilt)
    monkeypatch.setattr(of, spoilt, lambda *given, **more: spoil(good(*given, **more)))

    def spoil(found):
        return by(found) if len(found) > 3 or by is nothing else found

    with pytest.raises(JobError, match=says) as caught:
        Nf4(nn.Linear(BLOCK, 32), HERE, torch.float32)
    assert (caught.value.reason, caught.value.field) == (FailureReason.INVALID_SPEC, "spec.image")


# a model


def loaded(folder, lora=None):
    """A task whose model has adapters beside weights in four bits, and these adapters."""
    torch.manual_seed(0)
    task = task_for(folder, TRAIN, LABELS)
    task.spec = spec_of({"type": "lora"})
    features = features_of(task, TRAIN, 64)
    freeze(task.model, None, task.new_parameters)
    adapters = Adapters.of(task, Lora.model_validate(lora or {}), four_bits=True)
    adapters.put(features)
    count = ParameterCount.of(task.model)
    adapters.quantise(partial(Nf4, device=HERE, dtype=torch.float32))
    assert ParameterCount.of(task.model) == count
    return task, features, adapters


def quantised(folder, kept):
    """The same model, as transformers loads it in four bits, but for the layers that are `kept`."""
    how = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_compute_dtype=torch.float32,
        bnb_4bit_use_double_quant=True,
        llm_int8_skip_modules=kept,
    )
    return AutoModelForSequenceClassification.from_pretrained(folder, quantization_config=how, dtype=torch.float32)


def in_four_bits(model):
    return {name for name, module in model.named_modules() if isinstance(module, library().nn.Linear4bit)}


@pytest.mark.parametrize("architecture", MODELS)
def test_layers_and_answers_and_gradients_are_those_of_transformers_and_peft(architecture, tmp_path):
    save(architecture, tmp_path, labels=LABELS, **MODELS[architecture])
    task, features, adapters = loaded(tmp_path)
    model = task.model

    theirs = in_four_bits(quantised(tmp_path, None))
    assert set(adapters.quantised) == {name for name in theirs if not name.startswith(tuple(adapters.whole))}
    plain = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    linear = [name for name, module in plain.named_modules() if isinstance(module, nn.Linear | Conv1D)]
    oracle = quantised(tmp_path, [name for name in linear if name not in adapters.quantised])
    assert in_four_bits(oracle) == set(adapters.quantised)
    oracle.config.pad_token_id = model.config.pad_token_id
    config = peft_library().LoraConfig(
        r=16, lora_alpha=32, target_modules=adapters.targets, modules_to_save=adapters.whole
    )
    adapted = peft_library().get_peft_model(oracle, config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".lora_B." in name:
                parameter.normal_(std=0.1)
    moving = {name: p for name, p in model.named_parameters() if p.requires_grad}
    lost = oracle.load_state_dict({name: p.detach() for name, p in moving.items()}, strict=False)
    assert moving and not lost.unexpected_keys
    batch = task.collate([features.get(index, np.random.default_rng(0)) for index in range(6)])
    model.train()
    adapted.train()
    found = task.outputs(batch)["logits"]
    labels = batch.pop("labels")
    wanted = adapted(**batch).logits
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)
    for logits in (found, wanted):
        nn.functional.cross_entropy(logits, labels).backward()
    others = dict(oracle.named_parameters())
    for name, parameter in moving.items():
        torch.testing.assert_close(parameter.grad, others[name].grad, rtol=1e-3, atol=1e-6, msg=name)


@pytest.mark.parametrize("architecture", ["bert", "gpt2"])
@pytest.mark.parametrize("dora", [False, True], ids=["lora", "dora"])
def test_before_training_what_is_left_is_the_model_that_it_began_with(architecture, dora, tmp_path):
    save(architecture, tmp_path, labels=LABELS, **MODELS[architecture])
    task, features, adapters = loaded(tmp_path, {"dora": dora})
    batch = task.collate([features.get(index, np.random.default_rng(0)) for index in range(6)])
    plain = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    task.model.eval()

    rounded = task.outputs(batch)["logits"]
    adapters.merge(dict(task_for(tmp_path, TRAIN, LABELS).model.named_parameters()))

    whole = dict(plain.named_parameters())
    for name, parameter in task.model.named_parameters():
        torch.testing.assert_close(parameter, whole[name], rtol=1e-6, atol=1e-7, msg=name)
    assert not adapters.quantised and not torch.allclose(rounded, task.outputs(batch)["logits"], atol=1e-3)


# runs

QLORA = {"type": "qlora", "lora": {"rank": 4, "dropout": 0.1}}
TRAINING = {"epochs": 2, "batchSize": 8, "learningRate": 1e-2, "seed": 3}
GPU = {"limits": {"nvidia.com/gpu": 1}}
PER_EPOCH = 5


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inputs")
    save("bert", folder / "model", **BERT | {"hidden_dropout_prob": 0.1})
    (folder / "data").mkdir()
    write_rows(folder / "data/train.tsv", ROWS[:40])
    write_rows(folder / "data/validation.tsv", ROWS[40:])
    splits = {"train": "train.tsv", "validation": "validation.tsv"}
    return {
        "model": {"uri": f"file://{folder}/model"},
        "dataset": {"uri": f"file://{folder}/data", "splits": splits, "labels": LABELS},
        "resources": GPU,
    }


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_stopped_it_ends_as_if_it_had_not_been_and_adds_adapters_to_the_weights_as_they_came(
    precision, inputs, tmp_path, monkeypatch
):
    monkeypatch.setattr(nf4, "WORKS_ON", frozenset({"cpu"}))
    method = QLORA | ({"lora": {"rank": 4, "dora": True}} if precision == "bf16" else {})
    stopped, job = (
        Job(tmp_path / name, method=method, training=TRAINING | {"precision": precision}, **inputs) for name in "ab"
    )
    attempt_inside(stopped, told_at=at_step(PER_EPOCH + 2))
    [kept] = stopped.results.glob(f"checkpoints/step-*{PER_EPOCH + 2}-*/{MOVED}")
    names = {name for name in load_file(kept) if not name.endswith("_ids")}
    assert names and all(".lora_" in name or ".modules_to_save." in name for name in names)
    complete_inside(stopped)
    log = complete_inside(job).log

    assert_equal_ends(stopped, job)
    assert "of 13 layers the weights are in four bits (NF4)" in log
    before = load_file(f"{inputs['model']['uri'].removeprefix('file://')}/model.safetensors")
    after = load_file(job.results / "model/model.safetensors")
    added = load_file(job.results / "adapter/adapter_model.safetensors")
    assert {values.dtype for values in after.values()} == {torch.float32}
    assert not (job.results / "model/config.json").read_text().count("quantization")
    for name, values in before.items():
        stem = f"base_model.model.bert.{name.removesuffix('.weight')}"
        if f"{stem}.lora_A.weight" in added:
            wanted = values + 8 * added[f"{stem}.lora_B.weight"] @ added[f"{stem}.lora_A.weight"]
            if precision == "bf16":
                wanted *= (added[f"{stem}.lora_magnitude_vector"] / wanted.norm(dim=1))[:, None]
            torch.testing.assert_close(after[f"bert.{name}"], wanted, rtol=1e-5, atol=1e-6)
            assert not torch.allclose(after[f"bert.{name}"], values, atol=1e-4)
        else:
            assert torch.equal(after[f"bert.{name}"], values), name
    assert json.loads((job.results / "result.json").read_text())["model"] == {"folder": "model", "adapter": "adapter"}
    for page in ("README.md", "report.html"):
        assert "was measured with the weights of linear layers in four bits" in (job.results / page).read_text()


NOWHERE = {"model": {"uri": "file:///nowhere/model"}}


@pytest.mark.parametrize(
    ("lacking", "field", "says"),
    [("device", "spec.method.type", "no CUDA device is visible"), ("bitsandbytes", "spec.image", "cannot load bitsandbytes")],
)  # fmt: skip
def test_what_it_takes_is_looked_for_before_anything_is_fetched(lacking, field, says, inputs, tmp_path, monkeypatch):
    if lacking != "device":
        monkeypatch.setattr(nf4, "WORKS_ON", frozenset({"cpu"}))
        monkeypatch.setitem(sys.modules, lacking, None)
    job = Job(tmp_path, method=QLORA, training=TRAINING, **{**inputs, **NOWHERE})

    error = attempt_inside(job).result.error

    assert (error.reason, error.field) == ("InvalidSpec", field)
    assert says in error.message
