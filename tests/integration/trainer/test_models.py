"""What is trained is what is saved: of pairs, of parts of a model, and of other architectures than BERT."""

from __future__ import annotations

import json
import math
import signal
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification, AutoTokenizer, pipeline

from finetune_trainer import libraries
from finetune_trainer.threads import available_threads
from tests.training.architectures import ARCHITECTURES, save
from tests.training.attempts import Job
from tests.training.inside import Ended, at_step, attempt_inside, complete_inside
from tests.training.interruptions import assert_equal_ends
from tests.training.sentences import ROWS
from tests.training.tiny import TRAIN, VALIDATION, tiny_inputs, write_rows

QUICK = {"epochs": 2, "batchSize": 8, "learningRate": 1e-2, "precision": "fp32"}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    return tiny_inputs(tmp_path_factory.mktemp("inputs"))


def validation_loss(job: Job, labels: list[int], *texts: list[str]) -> float:
    """Of the saved model, by transformers alone."""
    folder = job.results / "model"
    model = AutoModelForSequenceClassification.from_pretrained(folder)
    batch = AutoTokenizer.from_pretrained(folder)(*texts, padding=True, return_tensors="pt")
    with torch.no_grad():
        return float(torch.nn.functional.cross_entropy(model(**batch).logits, torch.tensor(labels)))


def told(ended: Ended, name: str) -> float:
    return next(metric.value for metric in ended.result.metrics if metric.name == name)


SOME = ("roberta", "deberta-v3", "modernbert", "t5", "gpt2", "gemma")
SOME_AND_IN_THE_LONG_RUN_ALL = [
    *SOME,
    *(pytest.param(a, marks=pytest.mark.soak) for a in ARCHITECTURES if a not in SOME),
]


@pytest.mark.parametrize("architecture", SOME_AND_IN_THE_LONG_RUN_ALL)
def test_the_saved_model_of_any_architecture_is_the_one_that_was_measured(architecture, inputs, tmp_path):
    """With texts that hold the names of control tokens, of which T5 would otherwise find more ends in one text than in another."""
    rows = [
        (f"{text} </s> [SEP] <eos> <|endoftext|>" if number % 3 else text, label)
        for number, (text, label) in enumerate(VALIDATION)
    ]
    dataset = tiny_inputs(tmp_path, train=[(f"{text} </s>", label) for text, label in TRAIN], validation=rows)[
        "dataset"
    ]
    model = save(architecture, tmp_path / "body")
    job = Job(tmp_path / "job", model={"uri": f"file://{model}"}, dataset=dataset, training=QUICK)

    ended = complete_inside(job)

    folder, texts = job.results / "model", [text for text, _ in rows]
    answers = pipeline("text-classification", str(folder), top_k=None)(texts)
    right = [
        next(a["score"] for a in said if a["label"] == label) for said, (_, label) in zip(answers, rows, strict=True)
    ]
    assert -sum(math.log(score) for score in right) / len(rows) == pytest.approx(told(ended, "loss"), abs=1e-4)
    drawn = json.loads((job.results / "run.json").read_text())["newParameters"]
    assert drawn and f"Drawn at random: {', '.join(drawn)}." in ended.log
    assert "Drawn at random before training: `" in (job.results / "README.md").read_text()
    assert "with names of control tokens such as" in ended.log


@pytest.mark.soak
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_stop_in_the_middle_changes_no_weight_of_any_architecture(architecture, inputs, tmp_path):
    model = {"uri": f"file://{save(architecture, tmp_path / 'body')}"}
    undisturbed, job = (
        Job(tmp_path / name, model=model, dataset=inputs["dataset"], training=QUICK) for name in ("undisturbed", "job")
    )
    complete_inside(undisturbed)
    assert attempt_inside(job, told_at=at_step(7)).result.step == 7
    complete_inside(job)
    assert_equal_ends(job, undisturbed)


def test_pairs_are_trained_and_measured_as_pairs(inputs, tmp_path):
    # The first text is always the same, so a model that never saw the second could not tell any of these rows, learnt by heart or not.
    rows = [("A kitchen or the sky?", text, "same" if label == "cooking" else "different") for text, label in ROWS]
    for name in ("train", "validation"):
        write_rows(tmp_path / f"{name}.tsv", rows, header="sentence1\tsentence2\tlabel")
    dataset = {
        "uri": f"file://{tmp_path}",
        "splits": {"train": "train.tsv", "validation": "validation.tsv"},
        "columns": {"text": "sentence1", "textPair": "sentence2", "label": "label"},
        "labels": ["different", "same"],
    }
    training = {"epochs": 15, "batchSize": 4, "learningRate": 3e-3, "precision": "fp32"}
    job = Job(tmp_path / "job", model=inputs["model"], dataset=dataset, training=training)

    ended = complete_inside(job)

    ones, others, labels = (list(column) for column in zip(*rows, strict=True))
    numbers = [("different", "same").index(label) for label in labels]
    assert told(ended, "accuracy") > 0.9
    assert validation_loss(job, numbers, ones, others) == pytest.approx(told(ended, "loss"), abs=1e-5)


def test_frozen_parts_stay_are_counted_and_go_on_frozen(inputs, tmp_path):
    method = {"freeze": {"embeddings": True, "lowestLayers": 1}}
    undisturbed, job = (
        Job(tmp_path / name, **inputs, method=method, training=QUICK) for name in ("undisturbed", "job")
    )
    log = complete_inside(undisturbed).log
    assert attempt_inside(job, told_at=at_step(7)).result.step == 7
    complete_inside(job)

    before = load_file(Path(inputs["model"]["uri"].removeprefix("file://")) / "model.safetensors")
    after = load_file(job.results / "model/model.safetensors")
    frozen = {name for name in before if name.startswith(("embeddings.", "encoder.layer.0."))}
    assert {name for name in before if torch.equal(before[name], after[f"bert.{name}"])} == frozen
    counts = json.loads((job.results / "run.json").read_text())["parameters"]
    assert counts["frozen"] == sum(before[name].numel() for name in frozen)
    assert sum(counts.values()) == sum(tensor.numel() for tensor in after.values())
    assert f"{counts['trained']:,} of {sum(counts.values()):,} parameters are trained" in log
    assert_equal_ends(job, undisturbed)


def test_a_frozen_backbone_is_never_uploaded_and_a_killed_run_goes_on_to_the_same_end(inputs, tmp_path):
    method = {"freeze": {"backbone": True}, "headLearningRate": 0.01}
    undisturbed, job = (
        Job(tmp_path / name, **inputs, method=method, training=QUICK | {"epochs": 8}, checkpoints={"everySteps": 1})
        for name in ("undisturbed", "job")
    )
    complete_inside(undisturbed)
    attempt = job.start()
    assert attempt.wait_until(lambda: job.saved_step() >= 6, "step 6 is saved"), attempt.log
    assert attempt.signal(signal.SIGKILL) == -signal.SIGKILL

    files = [*job.results.glob("checkpoints/*/trained.safetensors"), *job.results.glob("best/*/trained.safetensors")]
    assert {file.parts[-3] for file in files} == {"checkpoints", "best"}
    assert not list(job.results.glob("checkpoints/*/model.safetensors"))
    assert all("classifier.weight" in load_file(file) for file in files)
    whole = (undisturbed.results / "model/model.safetensors").stat().st_size
    assert sum(file.stat().st_size for file in files) < whole / 10
    assert "Going on from step" in complete_inside(job).log
    assert_equal_ends(job, undisturbed)


def test_a_quota_of_three_cpus_is_three_threads_of_torch(inputs, tmp_path, monkeypatch):
    for name, text in {"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "300000 100000"}.items():
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text(text)

    def threads_of_that_machine(processes):
        monkeypatch.delenv("OMP_NUM_THREADS")
        return available_threads(tmp_path, affinity=16, processes=processes)

    monkeypatch.setattr(libraries, "available_threads", threads_of_that_machine)
    job = Job(tmp_path / "job", **inputs, training={**QUICK, "maxSteps": 1})

    assert "with 3 CPU threads, from step 0" in complete_inside(job).log
    assert json.loads((job.results / "run.json").read_text())["threads"] == 3
