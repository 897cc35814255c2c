"""Adapters beside layers: which layers, at which rates, with which steps, and what is left of them in a model that is saved."""

from __future__ import annotations

import json
import re
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from transformers import AutoConfig, AutoModel, AutoModelForSeq2SeqLM, AutoModelForSequenceClassification

from finetune_api.failures import FailureReason, JobError
from finetune_api.training import Lora, Training
from finetune_trainer.engine.adapters import Adapters, peft_library, plain_name, stacked_matrices
from finetune_trainer.engine.freeze import ParameterCount, freeze, refuse_idle
from finetune_trainer.engine.levers import quicken
from finetune_trainer.engine.memory import MicroBatch
from finetune_trainer.engine.optimizer import adamw, learning_rates
from finetune_trainer.engine.predict import Arithmetic
from finetune_trainer.engine.steps import Steps
from finetune_trainer.engine.tuning import Tuning
from finetune_trainer.engine.weights import MOVED, load_weights
from tests.training.architectures import save
from tests.training.chatters import save_chatter
from tests.training.images import save_tiny_images
from tests.training.models import save_tiny_bert
from tests.training.no_values import steps_done
from tests.training.sentences import ROWS
from tests.training.sounds import save_tiny_sounds
from tests.training.writers import SPARSE, save_writer
from tests.unit.trainer.data.folders import written
from tests.unit.trainer.engine.oracle import TheirTrainer
from tests.unit.trainer.engine.test_tuning import spec_of
from tests.unit.trainer.rows import examples
from tests.unit.trainer.tasks import (
    test_audio_classification as sounds,
    test_image_classification as images,
    test_text2text_generation as writers,
)
from tests.unit.trainer.tasks.loading import CPU, features_of, said, task_for, task_of

peft = peft_library()
TEXTS = [text for text, _ in ROWS]
TRAIN = examples(TEXTS, labels=np.array([label == "sky" for _, label in ROWS], dtype=np.int64))
STEPS = 10
MANY = ("bert", "roberta", "distilbert", "deberta-v2", "electra", "modernbert", "albert", "gpt2", "llama", "bart")
LABELS = ["cooking", "sky"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_tiny_bert(tmp_path_factory.mktemp("model"), TEXTS, dropout=0.1)


def load(folder, method=None, **training):
    """A task whose model has adapters, its examples, and these adapters."""
    torch.manual_seed(0)
    task = task_for(folder, TRAIN, LABELS)
    method = {"type": "lora", **(method or {})}
    task.spec = spec_of(method, **training)
    features = features_of(task, TRAIN, 64)
    freeze(task.model, task.spec.method.freeze, task.new_parameters)
    adapters = Adapters.of(task, task.spec.method.lora or Lora())
    adapters.put(features)
    return task, features, adapters


def steps_of(task, features, *, exact=False, tuning=None, after_step=lambda step: False, total=STEPS, arithmetic=CPU):
    training = task.spec.training
    return Steps(
        task,
        features,
        training,
        arithmetic=arithmetic,
        micro=MicroBatch(training.micro_batch_size or training.batch_size),
        total_steps=total,
        check=lambda: None,
        after_step=after_step,
        tuning=tuning,
        exact=exact,
    )


def moving(task):
    return {name for name, parameter in task.model.named_parameters() if parameter.requires_grad}


def refused(folder, lora, frozen=None):
    with pytest.raises(JobError) as caught:
        load(folder, {"lora": lora, **({"freeze": frozen} if frozen else {})})
    assert caught.value.reason == FailureReason.INVALID_SPEC
    return caught.value


# where they are


def test_what_only_four_bits_need_is_not_imported_for_them(folder, monkeypatch):
    """It takes three seconds, and complains where there is no GPU."""
    for name in ("bitsandbytes", "peft.tuners.lora.bnb"):
        monkeypatch.delitem(sys.modules, name, raising=False)

    load(folder)

    assert "bitsandbytes" not in sys.modules


@pytest.mark.parametrize(
    ("lora", "said"),
    [
        ({"rank": 16}, ""),
        ({"rank": 17, "targetModules": ["0.output.dense"]}, "0.output.dense has 16 inputs or outputs, and a rank above that only costs memory"),
        ({"rank": 17, "targetModules": ["query", "key"]}, "and 1 more have 16 inputs or outputs, and a rank above that only costs memory"),
    ],
    ids=["as wide", "one layer", "several"],
)  # fmt: skip
def test_a_rank_above_what_layers_can_use_is_said(lora, said, folder):
    _, _, adapters = load(folder, {"lora": lora})
    assert said in str(adapters) and ("inputs or outputs" in str(adapters)) == bool(said)


@pytest.mark.parametrize("architecture", MANY)
def test_every_linear_layer_has_one_but_the_head_as_peft_says_all_linear(architecture, tmp_path):
    save(architecture, tmp_path)

    task, _, adapters = load(tmp_path)

    torch.manual_seed(0)
    theirs = peft.get_peft_model(
        AutoModelForSequenceClassification.from_pretrained(tmp_path), peft.LoraConfig(target_modules="all-linear")
    )
    theirs = {name for name in theirs.targeted_module_names if not any(name.startswith(m) for m in adapters.whole)}
    assert set(adapters.targets) == theirs and not adapters.unreached
    plain = task_for(tmp_path, TRAIN, LABELS)
    head = plain.new_parameters | plain.head_parameters
    assert moving(task) == {
        *(f"{name}.lora_{part}.default.weight" for name in adapters.targets for part in "AB"),
        *(f"{n}.modules_to_save.default.{p}" for n, _, p in (name.rpartition(".") for name in head)),
    }


def experts(name, folder, lora=None, four_bits=False, **spec):
    """A writer with experts, which has adapters, and these."""
    task = writers.writing(save_writer(name, folder / "model"), folder / "data", **spec)
    features = writers.pairs_of(task)
    freeze(task.model, task.spec.method.freeze, task.new_parameters)
    adapters = Adapters.of(task, lora or Lora(), four_bits=four_bits)
    adapters.put(features)
    return task, features, adapters


@pytest.mark.parametrize("name", SPARSE)
def test_experts_have_one_also_those_that_no_token_of_the_shortest_row_is_sent_to(name, tmp_path):
    _, _, adapters = experts(name, tmp_path)

    plain = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "model")
    theirs = peft.get_peft_model(plain, peft.LoraConfig(target_modules="all-linear")).targeted_module_names
    assert set(adapters.targets) == set(theirs) and not adapters.unreached
    assert len([name for name in adapters.targets if ".expert_" in name]) == 2 * 8 * 2
    assert "would do nothing" not in str(adapters)


@pytest.mark.parametrize("number", range(8))
def test_an_expert_can_be_named_whether_or_not_a_token_is_sent_to_it_first(number, tmp_path):
    frozen = {"method": {"type": "lora", "freeze": {"embeddings": True}}}
    task, features, adapters = experts("switch", tmp_path, Lora(targetModules=[f"expert_{number}.*"]), **frozen)

    assert len(adapters.targets) == 4 and not adapters.unreached
    refuse_idle(task, features, CPU)


@pytest.mark.parametrize(("name", "kept"), [("switch", "wo"), ("nllb moe", "fc2")])
def test_of_experts_the_same_parts_may_be_held_in_four_bits_whichever_a_token_is_sent_to(name, kept, tmp_path):
    """Their code looks at the weights of the others."""
    _, _, adapters = experts(name, tmp_path, four_bits=True)

    of_experts = {name for name in adapters.targets if ".expert_" in name}
    assert of_experts - set(adapters.quantisable) == {name for name in of_experts if name.endswith(f".{kept}")}


STACKED = {
    "qwen3_moe": (
        {"moe_intermediate_size": 8, "num_experts": 4, "num_experts_per_tok": 2},
        [f"layers.{n}.mlp.experts.{part}" for n in range(2) for part in ("gate_up_proj", "down_proj")],
    ),
    "gpt_oss": (
        {"num_local_experts": 4, "num_experts_per_tok": 2},
        [f"layers.{n}.mlp.experts.{part}" for n in range(2) for part in ("gate_up_proj", "down_proj")],
    ),
    "xlnet": (
        {"d_head": 8, "d_inner": 32},
        [f"layer.{n}.rel_attn.{part}" for n in range(2) for part in (*"qkvor", "seg_embed")],
    ),
    "vit": ({"image_size": 32, "patch_size": 8}, []),
    "wav2vec2": ({"conv_dim": [8], "conv_kernel": [4], "conv_stride": [2], "num_conv_pos_embedding_groups": 2}, []),
    "convnext": ({"depths": [1, 1, 1, 1], "hidden_sizes": [8, 8, 8, 8]}, []),
    "switch_transformers": ({"d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 2, "num_heads": 2}, []),
}


@pytest.mark.parametrize("kind", STACKED)
def test_what_is_several_matrices_in_one_is_found_and_no_convolution_is(kind):
    options, wanted = STACKED[kind]
    small = {
        "vocab_size": 50,
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "pad_token_id": 0,
    }
    with torch.device("meta"):
        model = AutoModel.from_config(AutoConfig.for_model(kind, **{**small, **options}))

    assert stacked_matrices(model) == wanted


def experts_in_one(folder, method=None):
    """A chatter whose experts are one parameter a layer, and adapters that are planned beside what it has else."""
    save_chatter(folder / "model", architecture="qwen3_moe")
    turns = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yo"}]
    lines = {f"{name}.jsonl": json.dumps({"messages": turns}) + "\n" for name in ("train", "dev")}
    splits = {"splits": {"validation": "dev.jsonl"}}
    method = {"type": "lora", **(method or {})}
    task = task_of(folder / "model", written(folder / "data", lines), splits, task="text-generation", method=method)
    freeze(task.model, task.spec.method.freeze, task.new_parameters)
    return task, Adapters.of(task, task.spec.method.lora or Lora())


def test_experts_that_are_no_layers_have_none_and_it_is_said_what_of_the_model_stays_so(tmp_path):
    task, adapters = experts_in_one(tmp_path)
    total = sum(p.numel() for p in task.model.parameters())
    part = sum(p.numel() for name, p in task.model.named_parameters() if ".experts." in name) / total

    adapters.put(features_of(task, task.data.train))

    assert all(".self_attn." in name for name in adapters.targets)
    assert "beside model.layers.0.mlp.experts.gate_up_proj, " in adapters.warning
    said_part = float(re.search(r"([\d.]+) % of the model's parameters", adapters.warning)[1])
    assert 0.8 * 100 * part < said_part < 100 * part, "of the adapters, too"
    assert "spec.method.type full" in adapters.warning


@pytest.mark.parametrize(
    "method",
    [{"lora": {"targetModules": ["q_proj"]}}, {"freeze": {"modules": ["*.experts.*"]}}],
    ids=["named", "frozen"],
)
def test_nothing_is_said_of_experts_that_somebody_left_out(method, tmp_path):
    assert experts_in_one(tmp_path, method)[1].warning is None


@pytest.mark.parametrize("pattern", ["gate_up_proj", "*.experts.*", "layers.1.mlp.experts.down_proj"])
def test_a_pattern_for_experts_that_are_no_layers_says_so(pattern, tmp_path):
    with pytest.raises(JobError, match="each is several matrices in one, such as all experts of a layer") as caught:
        experts_in_one(tmp_path, {"lora": {"targetModules": ["q_proj", pattern]}})
    assert caught.value.field == "spec.method.lora.targetModules[1]" and "to full" in caught.value.remedy


def test_names_are_those_of_the_plain_model_once_what_peft_adds_is_left_out(folder):
    plain = {name for name, _ in task_for(folder, TRAIN, LABELS).model.named_parameters()}
    task, _, _ = load(folder)

    assert {plain_name(name) for name, _ in task.model.named_parameters() if ".lora_" not in name} == plain
    assert {plain_name(name) for name in task.new_parameters} == task_for(folder, TRAIN, LABELS).new_parameters
    assert task.new_parameters <= moving(task)


@pytest.mark.parametrize(
    ("patterns", "wanted"),
    [
        (["query"], ["encoder.layer.0.attention.self.query", "encoder.layer.1.attention.self.query"]),
        (["*.self.value"], ["encoder.layer.0.attention.self.value", "encoder.layer.1.attention.self.value"]),
        (["layer.1.attention.*"], [f"encoder.layer.1.attention.{n}" for n in ("self.query", "self.key", "self.value", "output.dense")]),
        (["layer.0.intermediate.dense", "pooler.dense"], ["encoder.layer.0.intermediate.dense", "pooler.dense"]),
    ],
)  # fmt: skip
def test_patterns_match_names_or_their_ends(folder, patterns, wanted):
    _, _, adapters = load(folder, {"lora": {"targetModules": patterns}})

    assert adapters.targets == [f"bert.{name}" for name in wanted]


@pytest.mark.parametrize(
    ("pattern", "near"),
    [
        ("q_proj", "query"),
        ("querry", "query"),
        ("classifier", "query"),
        ("word_embeddings", "dense"),
        ("*.self", "query"),
    ],
)
def test_a_pattern_that_matches_nothing_names_the_nearest(folder, pattern, near):
    error = refused(folder, {"targetModules": ["value", pattern]})

    assert error.field == "spec.method.lora.targetModules[1]"
    assert (
        f"the pattern '{pattern}' matches no layer that can have an adapter; the nearest that can are " in error.message
    )
    assert near in error.message


def test_what_is_frozen_has_none(folder):
    task, _, adapters = load(folder, {"freeze": {"lowestLayers": 1, "modules": ["*.pooler.*"]}})

    assert adapters.targets and all(name.startswith("bert.encoder.layer.1.") for name in adapters.targets)
    assert not any("layer.0" in name or "pooler" in name for name in moving(task))
    error = refused(folder, {}, frozen={"modules": ["bert.*"]})
    assert error.field == "spec.method.freeze" and "keeps all linear layers" in error.message


def test_a_pattern_for_what_is_frozen_matches_nothing(folder):
    assert "matches no layer" in refused(folder, {"targetModules": ["layer.0.*"]}, {"lowestLayers": 1}).message


def test_all_that_the_head_has_is_trained_whole_but_what_is_frozen(folder):
    task, _, adapters = load(folder, {"freeze": {"modules": ["classifier.bias"]}})

    assert "classifier.modules_to_save.default.weight" in moving(task)
    assert "classifier.modules_to_save.default.bias" not in moving(task)
    assert "classifier" in str(adapters)


def test_a_head_that_was_tuned_before_is_trained_whole_too(folder, tmp_path):
    before = task_for(folder, TRAIN, LABELS)
    before.save(tmp_path)

    task, _, adapters = load(tmp_path)

    assert not task.new_parameters and adapters.whole == ["classifier"]
    assert "bert.pooler.dense" in adapters.targets


def test_a_model_without_linear_layers_says_so_and_takes_named_ones(tmp_path):
    task = images.task_of(save_tiny_images(tmp_path / "model", "resnet"))
    features = features_of(task, images.rows())

    with pytest.raises(JobError) as caught:
        Adapters.of(task, Lora())
    assert "ResNetForImageClassification has no linear layer besides its head" in caught.value.message
    assert "such as convolution; or set" in caught.value.remedy
    adapters = Adapters.of(task, Lora(targetModules=["convolution"], rank=2))
    adapters.put(features)
    assert adapters.targets and all(
        isinstance(task.model.get_submodule(f"{n}.base_layer"), nn.Conv2d) for n in adapters.targets
    )


def test_counts_are_those_of_the_model_and_its_adapters(folder):
    plain = task_for(folder, TRAIN, LABELS).model
    task, _, adapters = load(folder, {"lora": {"rank": 4}})

    count = ParameterCount.of(task.model)

    own = sum(4 * sum(plain.get_submodule(name).weight.shape) for name in adapters.targets)
    head = sum(plain.get_parameter(plain_name(name)).numel() for name in task.new_parameters)
    assert count.trained == own + head
    assert count.trained + count.frozen == sum(p.numel() for p in plain.parameters()) + own


# what they learn


@pytest.mark.parametrize(
    ("lora", "training"),
    [
        ({}, {}),
        ({"rank": 4, "alpha": 4, "dropout": 0.2}, {"weightDecay": 0.1, "warmupRatio": 0.2}),
        ({"rslora": True}, {"microBatchSize": 3}),
        ({"dora": True}, {"learningRateSchedule": "cosine"}),
    ],
)
def test_adapters_are_those_of_peft_and_transformers_trainer_bit_for_bit(folder, lora, training, tmp_path):
    task, features, _ = load(folder, {"lora": lora}, **training)
    first = {name: p.clone() for name, p in task.model.named_parameters()}
    steps_of(task, features, exact=True).run()

    torch.manual_seed(0)
    theirs = task_for(folder, TRAIN, LABELS)
    theirs.spec = task.spec
    said = Lora.model_validate(lora)
    config = peft.LoraConfig(
        r=said.rank,
        lora_alpha=said.alpha,
        lora_dropout=said.dropout,
        use_rslora=said.rslora,
        use_dora=said.dora,
        target_modules=["query", "key", "value", "intermediate.dense", "output.dense", "pooler.dense"],
        modules_to_save=["classifier"],
    )
    peft.get_peft_model(theirs.model, config)
    for name, parameter in theirs.model.named_parameters():
        assert torch.equal(parameter, first[name]), f"{name} is drawn otherwise"
    TheirTrainer(theirs, features, task.spec.training, tmp_path, total_steps=STEPS).train()

    wanted = dict(theirs.model.named_parameters())
    found = dict(task.model.named_parameters())
    assert found.keys() == wanted.keys()
    for name in found:
        assert torch.equal(found[name], wanted[name]), name
    assert not any(torch.equal(found[name], first[name]) for name in moving(task))


def test_the_gradient_is_the_same_whatever_the_micro_batch(tmp_path):
    folder = save_tiny_bert(tmp_path, TEXTS, dropout=0.0)
    task, features, _ = load(folder)
    steps_of(task, features, total=3).run()  # B is no longer zero

    def gradient(micro):
        task.model.zero_grad()
        task.spec = spec_of({"type": "lora"}, microBatchSize=micro)
        steps_of(task, features).gradient(np.arange(8))
        return {name: p.grad.clone() for name, p in task.model.named_parameters() if p.grad is not None}

    whole = gradient(8)
    assert whole.keys() == moving(task)
    for micro in (1, 3):
        torch.testing.assert_close(gradient(micro), whole, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("lora", [{}, {"dora": True}], ids=str)
def test_the_gradient_beside_layers_in_bf16_is_that_beside_layers_in_fp32_but_for_rounding(lora, tmp_path):
    folder = save_tiny_bert(tmp_path, TEXTS, dropout=0.0)
    task, features, adapters = load(folder, {"lora": lora}, learningRate=1e-3)
    steps_of(task, features, total=3).run()  # B is no longer zero

    def gradient(arithmetic):
        task.model.zero_grad()
        alike = np.flatnonzero(np.asarray([label == "sky" for _, label in ROWS]))[:8]  # whose gradients do not cancel
        steps_of(task, features, arithmetic=arithmetic).gradient(alike)
        found = {name: p.grad for name, p in task.model.named_parameters() if p.grad is not None}
        assert found.keys() == moving(task) and {values.dtype for values in found.values()} == {torch.float32}
        return torch.cat([values.flatten() for values in found.values()])

    whole = gradient(CPU)
    adapters.hold(torch.bfloat16)
    rounded = gradient(Arithmetic(torch.device("cpu"), bf16=True))
    assert (rounded - whole).norm() < 0.03 * whole.norm()
    assert not torch.equal(rounded, whole)


def test_no_step_waits_for_the_device(folder, monkeypatch):
    task, features, _ = load(folder, {"lora": {"dropout": 0.1, "dora": True}})

    assert steps_done(task, features, task.spec.training, monkeypatch) == [1, 2]


def test_interrupted_anywhere_they_end_the_same_and_a_checkpoint_holds_only_them(folder, tmp_path):
    method = {"lora": {"rank": 4, "dropout": 0.2}, "layerDecay": 0.8, "headLearningRate": 0.01}
    task, features, _ = load(folder, method)
    tuning = Tuning.of(task.model, task.spec, task.new_parameters)
    quicken(task, features, CPU)
    steps_of(task, features, tuning=tuning).run()
    wanted = {name: p.clone() for name, p in task.model.named_parameters()}

    for stop in (3, 6, 8):
        saved = tmp_path / str(stop)
        saved.mkdir()
        task, features, _ = load(folder, method)
        quicken(task, features, CPU)
        first = steps_of(
            task,
            features,
            tuning=Tuning.of(task.model, task.spec, task.new_parameters),
            after_step=lambda step, stop=stop: step == stop,
        )
        first.run()
        first.save(saved)
        names = load_file(saved / MOVED).keys()
        assert {name for name in names if not name.endswith(("position_ids", "token_type_ids"))} == moving(task)

        torch.rand(7)
        task, features, _ = load(folder, method)
        quicken(task, features, CPU)
        with torch.no_grad():
            for name, parameter in task.model.named_parameters():
                parameter.add_(1.0 if name in moving(task) else 0.0)  # whatever they were drawn as
        load_weights(task.model, saved)
        steps_of(task, features, tuning=Tuning.of(task.model, task.spec, task.new_parameters)).run(stop, saved)
        for name, parameter in task.model.named_parameters():
            assert torch.equal(parameter, wanted[name]), (stop, name)


def test_each_has_the_rate_of_its_layer_at_each_step_and_the_head_one_of_its_own(folder):
    method = {"layerDecay": 0.5, "headLearningRate": 0.02}
    task, features, _ = load(folder, method, weightDecay=0.1, warmupRatio=0.3, learningRateSchedule="cosine")
    tuning = Tuning.of(task.model, task.spec, task.new_parameters)
    rate = task.spec.training.learning_rate

    def wanted(name):
        if "modules_to_save" in name:
            return 0.02
        return rate * {"layer.1": 0.5, "layer.0": 0.25}.get(name[len("bert.encoder.") :][:7], 1.0)

    assert {name: pytest.approx(wanted(name)) for name in moving(task)} == tuning.rates
    seen = []
    steps = steps_of(task, features, tuning=tuning, after_step=lambda step: seen.append(at(steps)) or False)

    def at(steps):
        return [group["lr"] for group in steps.optimizer.param_groups if group["params"]]

    highest = [group["initial_lr"] for group in steps.optimizer.param_groups if group["params"]]
    begin = at(steps)
    steps.run()
    names = {id(p): name for name, p in task.model.named_parameters()}
    groups = [group for group in steps.optimizer.param_groups if group["params"]]
    for group, most in zip(groups, highest, strict=True):
        assert {wanted(names[id(p)]) for p in group["params"]} == {most}
    lone = adamw(nn.Linear(2, 2), Training.model_validate({"learningRate": rate}))
    schedule = learning_rates(lone, task.spec.training, STEPS)
    for rates in [begin, *seen]:
        part = lone.param_groups[0]["lr"] / rate
        assert rates == pytest.approx([most * part for most in highest])
        lone.step()
        schedule.step()


# what is left of them


@pytest.mark.parametrize("lora", [{}, {"dora": True}, {"rslora": True, "dropout": 0.1}], ids=str)
def test_merged_the_model_is_plain_and_answers_as_before_and_so_does_the_adapter_on_its_base(folder, lora, tmp_path):
    task, features, adapters = load(folder, {"lora": lora}, learningRate=0.01)
    steps_of(task, features).run()
    before = {name: p.clone() for name, p in task.model.named_parameters()}
    wanted = said(task, features)
    adapters.save(tmp_path / "adapter", str(folder), None)
    adapters.merge(None)
    task.save(tmp_path / "model")

    plain = AutoModelForSequenceClassification.from_pretrained(tmp_path / "model")
    assert {name for name, _ in plain.named_parameters()} == {name for name, _ in task.model.named_parameters()}
    again = task_for(tmp_path / "model", TRAIN, LABELS)
    assert not again.new_parameters
    np.testing.assert_allclose(said(again, features), wanted, atol=1e-6)
    untouched = {
        plain_name(name)
        for name in before
        if ".base_layer.weight" not in name and ".modules_to_save." not in name and ".lora_" not in name
    }
    for name, parameter in plain.named_parameters():
        kept = [key for key in before if plain_name(key) == name and ".original_module." not in key]
        assert torch.equal(parameter, before[kept[0]]) == (name in untouched or ".modules_to_save." in kept[0]), name

    torch.manual_seed(5)
    base = AutoModelForSequenceClassification.from_pretrained(folder)
    theirs = task_for(folder, TRAIN, LABELS)
    theirs.model = peft.PeftModel.from_pretrained(base, str(tmp_path / "adapter")).base_model.model
    np.testing.assert_allclose(said(theirs, features), wanted, atol=1e-6)
    assert not (tmp_path / "adapter/README.md").exists()


def test_in_bf16_all_but_what_moves_is_held_so_and_comes_back_as_it_was(folder, tmp_path):
    torch.manual_seed(0)
    task = task_for(folder, TRAIN, LABELS)
    task.spec = spec_of({"type": "lora"})
    plain = {name: p.clone() for name, p in task.model.named_parameters()}
    features = features_of(task, TRAIN, 64)
    freeze(task.model, None, task.new_parameters)
    adapters = Adapters.of(task, Lora(rank=2))
    adapters.put(features)
    adapters.hold(torch.bfloat16)

    types = {name: p.dtype for name, p in task.model.named_parameters()}
    assert {types[name] for name in moving(task)} == {torch.float32}
    assert {kind for name, kind in types.items() if name not in moving(task)} == {torch.bfloat16}
    adapters.merge(plain)
    assert {p.dtype for p in task.model.parameters()} == {torch.float32}
    for name, parameter in task.model.named_parameters():
        assert torch.equal(parameter, plain[name]), name  # B is still zero


def test_layers_whose_weights_the_code_reads_itself_have_none_as_it_would_do_nothing(tmp_path):
    """WavLM gives the weights of its attention to a function of torch's."""
    task = sounds.task_of(save_tiny_sounds(tmp_path / "model", "wavlm"))
    features = features_of(task, sounds.rows())

    adapters = Adapters.of(task, Lora())
    adapters.put(features)

    assert any(name.endswith("attention.q_proj") for name in adapters.unreached)
    assert any(name.endswith("intermediate_dense.lora_A.default.weight") for name in moving(task))
    assert not any("q_proj" in name for name in moving(task))
    assert "none beside" in str(adapters)
    again = sounds.task_of(tmp_path / "model")
    with pytest.raises(JobError, match="would do nothing: what comes out there has no part in the answers") as caught:
        Adapters.of(again, Lora(targetModules=["q_proj"])).put(features_of(again, sounds.rows()))
    assert caught.value.field == "spec.method.lora.targetModules"


@pytest.mark.parametrize("architecture", ["gpt2", "llama", "albert", "deberta-v2", "bart"])
def test_whatever_the_layers_are_merged_they_say_the_same(architecture, tmp_path):
    """GPT-2's hold their matrices turned over, ALBERT's are one layer called several times, BART's head reads a decoder."""
    task, features, adapters = load(save(architecture, tmp_path / "base"), learningRate=0.01)
    steps_of(task, features, total=4).run()
    wanted = said(task, features)
    adapters.merge(None)
    task.save(tmp_path / "model")

    again = task_for(tmp_path / "model", TRAIN, LABELS)

    np.testing.assert_allclose(said(again, features), wanted, atol=1e-5)
    assert np.abs(wanted - said(task_for(tmp_path / "base", TRAIN, LABELS), features)).max() > 1e-3


def test_what_reads_the_first_token_only_is_still_computed_for_that_one(folder):
    """As of a model without adapters, and those of the layer learn from it."""
    task, features, _ = load(folder)
    quicken(task, features, CPU)
    last = task.model.bert.encoder.layer[-1]

    assert "forward" in last.__dict__, "the layer is computed for all tokens"
    steps_of(task, features, total=2).run()
    moved = [p for name, p in last.named_parameters() if ".lora_B." in name]
    assert moved and all(p.any() for p in moved)


def test_a_parameter_that_no_adapter_can_hold_is_refused(folder):
    task = task_for(folder, TRAIN, LABELS)
    task.model.register_parameter("weights_of_layers", nn.Parameter(torch.zeros(3)))
    task.new_parameters |= {"weights_of_layers"}

    with pytest.raises(
        JobError, match="weights_of_layers of BertForSequenceClassification is to be trained whole"
    ) as caught:
        Adapters.of(task, Lora())
    assert caught.value.field == "spec.method.type" and caught.value.remedy == "Set spec.method.type to full."
