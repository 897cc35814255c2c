"""run.json of a real run says what it takes to run again and get the same."""

from __future__ import annotations

import json
import subprocess

import pytest

from tests.training.attempts import Job
from tests.training.tiny import VALIDATION, tiny_inputs, write_rows


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """run.json of a finished run, its folder and that of its inputs."""
    folder = tmp_path_factory.mktemp("run")
    made = tiny_inputs(folder / "inputs")
    write_rows(folder / "inputs/data/test.tsv", VALIDATION)
    made["dataset"]["splits"]["test"] = "test.tsv"
    training = {"epochs": 3, "batchSize": 8, "microBatchSize": 4, "precision": "fp32"}
    job = Job(folder, **made, training=training, image="registry.example/trainer:1.0")
    job.complete()
    return json.loads((job.results / "run.json").read_text()), job, folder / "inputs"


@pytest.mark.parametrize(
    ("part", "files"),
    [("data", "data/test.tsv data/train.tsv data/validation.tsv"), ("model", "model/*.json model/*.safetensors")],
)
def test_the_fingerprints_are_those_of_sha256sum(run, part, files):
    said, _, inputs = run
    names = files.replace(f"{part}/", "")
    printed = subprocess.check_output(
        f"sha256sum $(ls {names} | LC_ALL=C sort) | sha256sum", shell=True, cwd=inputs / part
    )

    assert said["fingerprints"][part] == printed.decode().split()[0]


def test_the_combined_fingerprint_stays_with_the_result(run):
    said, job, _ = run
    result = json.loads((job.results / "result.json").read_text())

    assert result["dataFingerprint"] not in said["fingerprints"].values()
    assert len(result["inputsListing"]) == 64


def test_what_was_decided_here_and_what_it_ran_on_is_said(run):
    said, _, _ = run

    assert said["image"] == "registry.example/trainer:1.0"
    assert (said["precision"], said["microBatchSize"], said["totalSteps"], said["threads"]) == ("fp32", 4, 15, 1)
    assert said["processes"] == 1
    assert set(said["hardware"]) >= {"cpu", "memory"}
    assert set(said["versions"]) >= {"python", "torch", "transformers", "tokenizers", "datasets", "numpy"}
    assert set(said["durations"]) == {"fetch", "baseline", "train", "save", "evaluate", "suspects"}
    assert all(seconds > 0 for seconds in said["durations"].values())


def test_what_was_stored_on_the_way_is_said(run):
    said, job, _ = run
    least = (
        2 * (job.results / "model/model.safetensors").stat().st_size
    )  # a best model, and a checkpoint with moments beside it

    assert said["storedBytes"] > least
    assert "Stored on the way" in (job.results / "report.html").read_text()


def test_the_metrics_go_by_split_and_the_choosing_one_leads(run):
    said, job, _ = run
    names = ["f1", "accuracy", "macro_f1", "loss"]
    expected = [(name, split) for split in ("validation", "test") for name in names]

    assert [(metric["name"], metric["split"]) for metric in said["metrics"]] == expected
    page = (job.results / "report.html").read_text()
    assert page.index("<td>F1</td><td>test") < page.index("<td>F1</td><td>validation")
