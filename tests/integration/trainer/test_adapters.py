"""Runs with adapters, from spec to results: killed, in bf16, on less memory than merging takes, and from where an earlier run ended."""

from __future__ import annotations

import json
import re
import shutil
import signal
import sys

import numpy as np
import pytest
import torch
from huggingface_hub import metadata_load
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSequenceClassification, AutoTokenizer, GenerationConfig

from finetune_api.generate import REPOSITORY
from finetune_trainer.engine import preparation, saved
from finetune_trainer.engine.adapters import peft_library
from finetune_trainer.engine.weights import MOVED
from tests.training.absent import as_in_the_image
from tests.training.attempts import Job
from tests.training.cases import CASES
from tests.training.chatters import CHATML, save_chatter
from tests.training.images import tiny_image_inputs
from tests.training.inside import at_step, attempt_inside, complete_inside
from tests.training.interruptions import assert_equal_ends
from tests.training.models import save_tiny_bert
from tests.training.sentences import ROWS
from tests.training.tiny import write_rows
from tests.training.writers import change, save_writer

LORA = {"type": "lora", "lora": {"rank": 4, "dropout": 0.1}}
TRAINING = {"epochs": 2, "batchSize": 8, "learningRate": 1e-2, "precision": "fp32", "seed": 3}
PER_EPOCH = 5


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inputs")
    save_tiny_bert(folder / "model", [text for text, _ in ROWS])
    (folder / "model/README.md").write_text("---\nlicense: mit\nbase_model: owner/bert\n---\n")
    (folder / "data").mkdir()
    write_rows(folder / "data/train.tsv", ROWS[:40])
    write_rows(folder / "data/validation.tsv", ROWS[40:])
    splits = {"train": "train.tsv", "validation": "validation.tsv"}
    return {
        "model": {"uri": f"file://{folder}/model"},
        "dataset": {"uri": f"file://{folder}/data", "splits": splits, "labels": ["cooking", "sky"]},
    }


@pytest.fixture(scope="module")
def tuned(inputs, tmp_path_factory):
    """A run with adapters that are merged."""
    job = Job(tmp_path_factory.mktemp("tuned"), method=LORA, training=TRAINING, **inputs)
    complete_inside(job)
    return job


def probabilities(model, folder, rows=ROWS[40:]):
    """What a model of transformers says of texts, with the tokenizer in a folder."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    given = tokenizer([text for text, _ in rows], padding=True, return_tensors="pt")
    with torch.no_grad():
        return model.eval()(**given).logits.softmax(-1).numpy()


def plain(folder):
    return AutoModelForSequenceClassification.from_pretrained(folder)


def result_of(job):
    return json.loads((job.results / "result.json").read_text())


def test_killed_at_some_step_it_ends_as_if_it_had_not_been(inputs, tuned, tmp_path):
    job = Job(tmp_path, method=LORA, training=TRAINING, checkpoints={"everySteps": 1}, **inputs)
    attempt = job.start_from_nothing(**as_in_the_image(tmp_path))  # where transformers takes peft for absent
    assert attempt.wait_until(lambda: job.saved_step() >= 2, "step 2 is saved"), attempt.log
    assert attempt.signal(signal.SIGKILL) == -signal.SIGKILL
    kept = max(job.results.glob(f"checkpoints/*/{MOVED}"))
    names = {name for name in load_file(kept) if not name.endswith("_ids")}
    assert names and all(".lora_" in name or ".modules_to_save." in name for name in names)
    log = complete_inside(job).log

    assert "Going on from step" in log
    assert_equal_ends(job, tuned)
    one, other = ((run.results / "adapter/adapter_model.safetensors").read_bytes() for run in (job, tuned))
    assert one == other


def test_the_adapter_on_its_base_and_the_model_say_the_same_and_only_adapted_weights_differ(inputs, tuned):
    base = inputs["model"]["uri"].removeprefix("file://")
    model = tuned.results / "model"

    torch.manual_seed(9)
    adapted = peft_library().PeftModel.from_pretrained(plain(base), str(tuned.results / "adapter"))

    np.testing.assert_allclose(probabilities(adapted, model), probabilities(plain(model), model), atol=1e-6)
    said = json.loads((tuned.results / "adapter/adapter_config.json").read_text())
    assert (said["base_model_name_or_path"], said["r"], said["lora_alpha"]) == (base, 4, 32)
    before, after = load_file(f"{base}/model.safetensors"), load_file(model / "model.safetensors")
    same = {name for name, values in before.items() if torch.equal(values, after[f"bert.{name}"])}
    assert {name for name in before if "embeddings" in name or "LayerNorm" in name} <= same
    assert not any(name.endswith(("query.weight", "dense.weight")) for name in same)
    assert result_of(tuned)["model"] == {"folder": "model", "adapter": "adapter"}
    run = json.loads((tuned.results / "run.json").read_text())
    assert "Adapters of rank 4, alpha 32, beside 13 layers" in run["adapters"]
    assert run["parameters"]["trained"] < run["parameters"]["frozen"]


def test_in_bf16_the_model_says_what_was_measured_but_for_rounding(inputs, tmp_path):
    job = Job(tmp_path, method=LORA, training=TRAINING | {"precision": "bf16"}, **inputs)
    attempt_inside(job, told_at=at_step(PER_EPOCH - 2))
    complete_inside(job)
    other = Job(tmp_path / "other", method=LORA, training=TRAINING | {"precision": "bf16"}, **inputs)
    complete_inside(other)
    assert_equal_ends(job, other)

    model = job.results / "model"
    said = probabilities(plain(model), model)
    truth = np.array([int(label == "sky") for _, label in ROWS[40:]])
    loss = float(-np.log(said[np.arange(len(truth)), truth]).mean())
    measured = {metric["name"]: metric["value"] for metric in result_of(job)["metrics"]}
    assert measured["loss"] == pytest.approx(loss, abs=0.02)
    after = load_file(model / "model.safetensors")
    assert {values.dtype for values in after.values()} == {torch.float32}
    before = load_file(f"{inputs['model']['uri'].removeprefix('file://')}/model.safetensors")
    for name, values in before.items():
        if "embeddings" in name or "LayerNorm" in name:
            assert torch.equal(values, after[f"bert.{name}"]), f"{name} lost bits"


def test_adapters_begin_to_move_one_after_another_at_rates_of_their_own_and_resume(inputs, tmp_path):
    method = LORA | {
        "layerDecay": 0.5,
        "headLearningRate": 0.02,
        "unfreeze": {"layersPerEpoch": 1},
        "freeze": {"embeddings": True, "modules": ["*.attention.*"]},
    }
    stopped, undisturbed = (Job(tmp_path / name, method=method, training=TRAINING, **inputs) for name in ("a", "b"))
    attempt_inside(stopped, told_at=at_step(PER_EPOCH + 2))
    complete_inside(stopped)
    log = complete_inside(undisturbed).log

    assert_equal_ends(stopped, undisturbed)
    assert (
        "Highest learning rates: the head 0.02, above the layers 0.01, layer 1 from the top 0.005 from epoch 2" in log
    )
    values = load_file(undisturbed.results / "adapter/adapter_model.safetensors")
    moved = {name for name, tensor in values.items() if ".lora_B." in name and tensor.any()}
    assert moved and all("layer.1" in name or "pooler" in name for name in moved)
    assert not any(".attention." in name for name in values)


def test_convolutions_in_bf16_with_channels_last_resume_and_say_what_was_measured(tmp_path):
    inputs = tiny_image_inputs(tmp_path / "inputs", each=16)
    method = {"type": "lora", "lora": {"rank": 2, "targetModules": ["convolution"]}}
    training = {"epochs": 2, "batchSize": 8, "learningRate": 1e-2, "precision": "bf16"}
    stopped, undisturbed = (Job(tmp_path / name, method=method, training=training, **inputs) for name in ("a", "b"))
    attempt_inside(stopped, told_at=at_step(3))
    complete_inside(stopped)
    complete_inside(undisturbed)

    assert_equal_ends(stopped, undisturbed)
    again = Job(
        tmp_path / "c",
        training={"maxSteps": 1, "precision": "fp32", "learningRate": 1e-9},
        **{**inputs, "model": {"uri": f"file://{undisturbed.results}/model"}},
    )
    complete_inside(again)
    measured = {metric["name"]: metric["value"] for metric in result_of(undisturbed)["metrics"]}
    baseline = {metric["name"]: metric["baseline"] for metric in result_of(again)["metrics"]}
    assert baseline["loss"] == pytest.approx(measured["loss"], abs=0.03)


def test_where_merging_takes_more_memory_than_there_is_the_adapter_is_left_alone_and_that_is_said(
    inputs, tmp_path, monkeypatch
):
    monkeypatch.setattr(saved, "free_memory", lambda: 1000)
    job = Job(tmp_path, method=LORA, training=TRAINING | {"precision": "bf16", "epochs": 1}, **inputs)
    log = complete_inside(job).log

    assert "The adapters were not added to the model, which takes" in log
    assert not (job.results / "model").exists() and (job.results / "adapter/adapter_model.safetensors").exists()
    assert result_of(job)["model"] == {"adapter": "adapter", "base": inputs["model"]["uri"]}
    card = (job.results / "README.md").read_text()
    assert "The adapters were not added to the model" in card and "PeftModel.from_pretrained" in card


def test_merged_by_hand_as_the_page_says_they_are_the_model(inputs, tuned, tmp_path, monkeypatch):
    [said] = re.findall(r"^```python\n(.*?)^```$", (REPOSITORY / "docs/serving.md").read_text("utf-8"), re.M | re.S)
    base = inputs["model"]["uri"].removeprefix("file://")
    said = said.replace("meta-llama/Llama-3.1-8B-Instruct", base)
    said = said.replace("AutoModelForCausalLM", "AutoModelForSequenceClassification")
    shutil.copytree(tuned.results / "adapter", tmp_path / "adapter")
    monkeypatch.chdir(tmp_path)

    exec(said, {})

    one, other = (load_file(folder / "model.safetensors") for folder in (tmp_path / "merged", tuned.results / "model"))
    torch.testing.assert_close(one, other, rtol=0, atol=1e-6)
    assert np.allclose(*(probabilities(plain(f), f) for f in (tmp_path / "merged", tuned.results / "model")), atol=1e-6)


@pytest.mark.parametrize("method", [{}, {"type": "lora", "lora": {"rank": 2}}], ids=["full", "lora"])
@pytest.mark.parametrize("start", ["model", "adapter"])
def test_a_run_starts_from_what_an_earlier_one_left(inputs, tuned, start, method, tmp_path):
    before = result_of(tuned)
    job = Job(
        tmp_path,
        method=method,
        training=TRAINING | {"epochs": 1},
        model={"uri": f"file://{tuned.results}/{start}"},
        dataset=inputs["dataset"],
    )
    log = complete_inside(job).log

    after = result_of(job)
    for was, now in zip(before["metrics"], after["metrics"], strict=True):
        assert now["baseline"] == pytest.approx(was["value"], rel=1e-5, abs=1e-5), now["name"]
    assert ("Adding the adapters" in log) == (start == "adapter")
    assert after["model"].get("adapter") == ("adapter" if method and start == "model" else None)
    model = job.results / "model"
    assert not np.allclose(probabilities(plain(model), model), probabilities(plain(tuned.results / "model"), model))
    for card in map(metadata_load, (job.results / "README.md", model / "README.md")):
        assert (card["license"], card["base_model"]) == ("mit", "owner/bert"), (
            "as of the model that the first began with"
        )


def test_adapters_on_adapters_that_stay_apart_are_refused(inputs, tuned, tmp_path):
    job = Job(
        tmp_path,
        method=LORA | {"merge": False},
        training=TRAINING,
        model={"uri": f"file://{tuned.results}/adapter"},
        dataset=inputs["dataset"],
    )
    error = attempt_inside(job).result.error

    assert (error.reason, error.field) == ("InvalidSpec", "spec.method.merge")


@pytest.mark.parametrize(("case", "kept"), [("text-generation", True), ("text2text-generation", False)])
def test_a_base_that_is_stored_in_bf16_is_trained_beside_as_if_it_were_stored_in_fp32(
    case, kept, tmp_path, monkeypatch
):
    given = dict(CASES[case].inputs(tmp_path, 0.0))
    if not kept:  # its layers' types are asked for by what is around them
        save_writer("t5", tmp_path / "model", dropout=0.0)
    given |= {
        "task": CASES[case].task,
        "training": TRAINING | {"precision": "bf16", "learningRate": 1e-3},
        "method": LORA,
    }
    held = []
    monkeypatch.setattr(preparation, "freeze", lambda model, *_: held.append({p.dtype for p in model.parameters()}))

    before_and_after = []
    for dtype in (torch.bfloat16, torch.float32):  # the same numbers
        weights = {
            name: tensor.to(torch.bfloat16) for name, tensor in load_file(tmp_path / "model/model.safetensors").items()
        }
        save_file(
            {name: tensor.to(dtype) for name, tensor in weights.items()},
            tmp_path / "model/model.safetensors",
            {"format": "pt"},
        )
        job = Job(tmp_path / str(dtype), **given)
        complete_inside(job)
        before_and_after.append({one["name"]: (one["baseline"], one["value"]) for one in result_of(job)["metrics"]})

    assert held == [{torch.bfloat16 if kept else torch.float32}, {torch.float32}]
    stored, whole = before_and_after
    assert stored.keys() == whole.keys()
    for name, (before, _) in whole.items():
        assert stored[name][0] == before, name
    # Adapters begin with numbers that peft rounds as the weights beside them are.
    assert stored["loss"][1] == pytest.approx(whole["loss"][1], rel=0.02) and stored["loss"][1] < stored["loss"][0]


MOVING = TRAINING | {"epochs": 1}
ANOTHER = CHATML.replace("assistant\\n", "assistant>").replace("message.role +", "message.role + ' says' +")


@pytest.fixture(scope="module")
def chatting(tmp_path_factory):
    """A run with adapters by which a model learns to answer in the way of a template; that of its base is the same."""
    folder = tmp_path_factory.mktemp("chatting")
    given = {**CASES["text-generation"].inputs(folder, 0.0), "task": "text-generation"}
    job = Job(folder / "job", method=LORA, training=MOVING, **given)
    complete_inside(job)
    return job, given


@pytest.mark.parametrize("page", ["docs/serving.md", "examples/serving/vllm-adapter.yaml"])
def test_what_a_server_of_adapters_is_told_to_read_lies_beside_them(page, chatting):
    """How a chat is written, and what ends an answer."""
    named = re.findall(
        r"--(chat-template|generation-config)[ =]\S*/(?:adapter|support)\b/?(\S*)",
        (REPOSITORY / page).read_text("utf-8"),
    )
    files = {option: chatting[0].results / "adapter" / file for option, file in named}
    assert files["chat-template"].read_text() == CHATML
    said = GenerationConfig.from_pretrained(files["generation-config"])
    ends = AutoTokenizer.from_pretrained(chatting[0].results / "adapter").convert_tokens_to_ids(["<|im_end|>"])
    assert np.ravel(said.eos_token_id).tolist() == ends


def template_as_ever(adapter, base):
    """Files as they were left."""


def template_of_the_base_in_a_file(adapter, base):
    """Beside adapters that have theirs within tokenizer_config.json, as older versions of transformers save it."""
    (adapter / "chat_template.jinja").unlink()
    change(adapter, "tokenizer_config.json", chat_template=CHATML)
    (base / "chat_template.jinja").write_text(ANOTHER)


def other_special_tokens(adapter, base):
    """Of the base, in files that the adapters have none of."""
    (base / "special_tokens_map.json").write_text(json.dumps({"eos_token": "<|endoftext|>"}))
    (base / "added_tokens.json").write_text(json.dumps({"<|new|>": 999}))
    (base / "vocab.json").write_text("{}")
    change(base, "tokenizer_config.json", eos_token="<|endoftext|>", model_max_length=7)


def no_tokenizer(adapter, base):
    """Beside the adapters, as peft alone leaves them: the base's is taken."""
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        (adapter / name).unlink()


def template_alone(adapter, base):
    """Beside the adapters there is nothing but the template; the rest is of the base."""
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (adapter / name).unlink()
    (base / "chat_template.jinja").write_text(ANOTHER)


@pytest.mark.parametrize(
    ("start", "lay"),
    [
        ("model", template_as_ever),
        ("adapter", template_as_ever),
        ("adapter", template_of_the_base_in_a_file),
        ("adapter", other_special_tokens),
        ("adapter", no_tokenizer),
        ("adapter", template_alone),
    ],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_a_run_goes_on_with_the_template_and_the_ends_that_an_earlier_one_answered_with(chatting, start, lay, tmp_path):
    earlier, given = chatting
    shutil.copytree(earlier.results / start, tmp_path / "start")
    if start == "adapter":
        shutil.copytree(given["model"]["uri"].removeprefix("file://"), tmp_path / "base")
        changed({"base_model_name_or_path": str(tmp_path / "base")})(tmp_path / "start")
    lay(tmp_path / "start", tmp_path / "base")
    job = Job(tmp_path / "job", training=MOVING, **{**given, "model": {"uri": f"file://{tmp_path}/start"}})
    complete_inside(job)

    for was, now in zip(result_of(earlier)["metrics"], result_of(job)["metrics"], strict=True):
        assert now["baseline"] == pytest.approx(was["value"], rel=1e-5, abs=1e-5), now["name"]
    one, other = (AutoTokenizer.from_pretrained(run.results / "model") for run in (earlier, job))
    assert (other.chat_template, other.eos_token, len(other)) == (CHATML, "<|im_end|>", len(one))
    ends = [GenerationConfig.from_pretrained(run.results / "model").eos_token_id for run in (earlier, job)]
    assert ends == [one.eos_token_id] * 2 or ends == [[one.eos_token_id]] * 2


@pytest.mark.parametrize("case", ["text2text-generation", "text-generation"])
def test_a_model_with_experts_learns_by_adapters_and_what_they_leave_out_is_said(case, tmp_path):
    given = {**CASES[case].inputs(tmp_path, 0.0), "task": CASES[case].task}
    if apart := case == "text2text-generation":
        save_writer("switch", tmp_path / "model", std=0.2)
    else:
        save_chatter(tmp_path / "model", architecture="qwen3_moe")
    job = Job(tmp_path / "job", method=LORA, training=MOVING, **given)
    log = complete_inside(job).log

    kept = load_file(job.results / "adapter/adapter_model.safetensors")
    assert any(".experts." in name for name in kept) == apart
    told = "each is several matrices in one, such as all experts of a layer"
    places = [log, (job.results / "report.html").read_text(), (job.results / "README.md").read_text()]
    assert [told in place for place in places] == [not apart] * 3
    again = Job(tmp_path / "again", training=MOVING, **{**given, "model": {"uri": f"file://{job.results}/adapter"}})
    complete_inside(again)
    for was, now in zip(result_of(job)["metrics"], result_of(again)["metrics"], strict=True):
        assert now["baseline"] == pytest.approx(was["value"], abs=1e-4), now["name"]


def changed(config):
    def change(folder):
        file = folder / "adapter_config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | config))

    return change


def without_a_tensor(folder):
    file = folder / "adapter_model.safetensors"
    values = load_file(file)
    values.pop(next(name for name in values if "lora_B" in name))
    save_file(values, file, {"format": "pt"})


def without_labels(folder):
    (folder / "config.json").unlink()
    values = load_file(folder / "adapter_model.safetensors")
    name = next(name for name in values if name.endswith("classifier.weight"))
    values |= {name: values[name].repeat(2, 1), name.replace("weight", "bias"): torch.zeros(4)}
    save_file(values, folder / "adapter_model.safetensors", {"format": "pt"})


def on_a_quantised_base(folder):
    """Whose weights are of the right shapes, as those of FP8 are; beside the adapters lies a config that knows nothing of it."""
    base = folder.parent / "quantised"
    shutil.copytree(json.loads((folder / "adapter_config.json").read_text())["base_model_name_or_path"], base)
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps(config | {"quantization_config": {"quant_method": "fp8"}}))
    changed({"base_model_name_or_path": str(base)})(folder)


def cut_short(folder):
    file = folder / "adapter_model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])


def pickled(folder):
    """Beside safetensors that are none of theirs."""
    torch.save(load_file(folder / "adapter_model.safetensors"), folder / "adapter_model.bin")
    (folder / "adapter_model.safetensors").rename(folder / "optimizer.safetensors")


@pytest.mark.parametrize(
    ("spoil", "reason", "says"),
    [
        (changed({"base_model_name_or_path": "/nowhere/bert"}), "ModelNotFound", "for the model file:///nowhere/bert"),
        (changed({"base_model_name_or_path": "../bert"}), "ModelInvalid", "'../bert' (base_model_name_or_path), which is"),
        (changed({"base_model_name_or_path": None}), "ModelInvalid", "nothing that can be fetched"),
        (changed({"peft_type": "IA3"}), "ModelInvalid", "of the kind IA3"),
        (without_a_tensor, "ModelInvalid", "is not among them"),
        (without_labels, "ModelInvalid", "cannot be added to the model that they are for"),
        (lambda folder: (folder / "adapter_config.json").write_text("{"), "ModelInvalid", "adapter_config.json"),
        (changed({"base_model_name_or_path": 5}), "ModelInvalid", "nothing that can be fetched"),
        (changed({"r": 8}), "ModelInvalid", "size mismatch for"),
        (changed({"use_dora": True}), "ModelInvalid", "is not among them"),
        (cut_short, "ModelInvalid", "adapter_model.safetensors is cut short or damaged"),
        (on_a_quantised_base, "ModelInvalid", "that one is quantised"),
        (pickled, "ModelInvalid", 'only "adapter_model.bin", which can run code'),
    ],
)  # fmt: skip
def test_adapters_whose_model_cannot_be_had_are_refused_with_what_to_do(inputs, tuned, spoil, reason, says, tmp_path):
    adapter = tmp_path / "adapter"
    shutil.copytree(tuned.results / "adapter", adapter)
    spoil(adapter)
    job = Job(tmp_path / "job", training=TRAINING, model={"uri": f"file://{adapter}"}, dataset=inputs["dataset"])

    error = attempt_inside(job).result.error

    assert (error.reason, error.field) == (reason, "spec.model.uri")
    assert says in error.message
    assert error.remedy


@pytest.mark.parametrize("start", ["lora", "adapter"])
def test_an_image_without_peft_is_told_what_it_lacks(inputs, tuned, start, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "peft", None)
    given = inputs | ({"model": {"uri": f"file://{tuned.results}/adapter"}} if start == "adapter" else {})
    job = Job(tmp_path, training=TRAINING, method=LORA if start == "lora" else {}, **given)

    error = attempt_inside(job).result.error

    assert (error.reason, error.field) == ("InvalidSpec", "spec.image")
    assert "cannot load peft" in error.message


def test_a_folder_with_a_model_and_adapters_is_neither(inputs, tuned, tmp_path):
    shutil.copytree(tuned.results / "adapter", tmp_path / "both")
    shutil.copy(tuned.results / "model/model.safetensors", tmp_path / "both")
    job = Job(tmp_path / "job", training=TRAINING, model={"uri": f"file://{tmp_path}/both"}, dataset=inputs["dataset"])

    assert "both a model and adapters" in attempt_inside(job).result.error.message


def test_a_finished_run_is_not_adopted_once_the_model_below_its_adapters_is_another(inputs, tuned, tmp_path):
    base = tmp_path / "base"
    shutil.copytree(inputs["model"]["uri"].removeprefix("file://"), base)
    shutil.copytree(tuned.results / "adapter", tmp_path / "adapter")
    changed({"base_model_name_or_path": str(base)})(tmp_path / "adapter")
    uri = {"uri": f"file://{tmp_path}/adapter"}
    job = Job(tmp_path / "job", training=TRAINING | {"maxSteps": 1}, model=uri, dataset=inputs["dataset"])
    complete_inside(job)
    assert attempt_inside(job).result.adopted

    values = load_file(base / "model.safetensors")
    name = next(iter(values))
    save_file(values | {name: values[name] + 1}, base / "model.safetensors", {"format": "pt"})

    assert attempt_inside(job).result.error.reason == "OutputConflict"
