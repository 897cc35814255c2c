"""`finetune run` with the real trainer and a tiny model, in folders whose names hold spaces."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
from transformers import pipeline

from finetune_api.job import FineTuneJob, Storage
from finetune_api.manifest import load, resolve_paths
from finetune_api.run import identify
from finetune_operator.worlds.local.identity import identity
from finetune_trainer.store.claim import Claim
from finetune_trainer.store.folder import open_folder
from tests.cluster.waiting import eventually
from tests.training.tiny import tiny_inputs

MANIFEST = """\
apiVersion: finetune.dev/v1alpha1
kind: FineTuneJob
metadata: {name: tiny}
spec:
  task: text-classification
  model: {uri: my data/model}
  dataset:
    uri: my data/data
    splits: {train: train.tsv, validation: validation.tsv}
    labels: [cooking, sky]
  training: {epochs: 30, batchSize: 4, learningRate: 1e-3, precision: fp32}
  output: {uri: my results}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "my data").mkdir()
    tiny_inputs(tmp_path / "my data")
    (tmp_path / "my job.yaml").write_text(MANIFEST)
    return tmp_path


def finetune(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [Path(sys.executable).with_name("finetune"), "run", "my job.yaml", *arguments],
        cwd=folder,
        env={**os.environ, "XDG_STATE_HOME": str(folder / "my state")},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def first_checkpoint(folder: Path) -> Path:
    until = time.monotonic() + 120
    while time.monotonic() < until:
        for manifest in (folder / "my results").glob("*/checkpoints/*/manifest.json"):
            return manifest
        time.sleep(0.05)
    raise AssertionError("there was no checkpoint")


def test_an_interrupted_run_goes_on_and_its_model_predicts(folder: Path) -> None:
    first = finetune(folder)
    first_checkpoint(folder)
    first.send_signal(signal.SIGINT)
    said, _ = first.communicate(timeout=120)
    assert first.returncode == 130, said
    assert "tiny is suspended; what it has learned is saved. To go on: " in said

    second = finetune(folder)
    said, _ = second.communicate(timeout=240)
    assert second.returncode == 0, said
    assert "Going on from step " in said
    assert "from step 0." not in said
    [model] = (folder / "my results").glob("*/model")
    assert pipeline("text-classification", str(model))("soup")[0]["label"] in ("cooking", "sky")
    assert {file.name for file in (folder / "my state").rglob("*") if file.is_file()} == {"identity", "lock"}


def test_a_run_from_another_state_folder_is_refused_while_the_first_lives_with_its_name_and_what_to_do(
    folder: Path,
) -> None:
    [document] = load(folder / "my job.yaml")
    uri = identify(FineTuneJob.model_validate(resolve_paths(document, folder)).spec).uri
    owner = f"local/tiny/{identity(folder / 'state of another')}"
    with Claim.take(open_folder(uri, Storage()), owner=owner, holder="tiny-1@this-machine", lease=3) as first:
        second = finetune(folder)
        said, _ = second.communicate(timeout=120)
        assert second.returncode == 1, said
        assert "✗ tiny failed: OutputConflict" in said
        assert f"is being written by tiny-1@this-machine of {owner}" in " ".join(said.split())
        assert "What to do: Wait until that job ends" in said
        assert said.count("waiting up to") == 1, "it was tried again"
        first.check()


def test_broken_data_is_told_with_file_row_and_column_and_never_tried_again(folder: Path) -> None:
    with (folder / "my data/data/train.tsv").open("a") as file:
        file.write("no label here\t\n")
    run = finetune(folder)
    said, _ = run.communicate(timeout=120)
    assert run.returncode == 1, said
    assert said.count("Attempt 1 of run") == 1
    assert "✗ tiny failed: " in said
    assert "train.tsv" in said[said.index("✗") :]
    assert "What to do: " in said


def trainers_of(folder: Path) -> list[int]:
    """The processes, parents of others among them, that train what is in the folder."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if f"FINETUNE_WORKSPACE={folder}".encode() in (process / "environ").read_bytes():
                found.append(int(process.name))
    return found


@pytest.mark.soak
def test_a_run_of_several_processes_is_interrupted_killed_and_finished_as_one(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FINETUNE_PROCESSES", "2")
    first = finetune(folder)
    first_checkpoint(folder)
    assert len(trainers_of(folder)) == 3
    first.send_signal(signal.SIGINT)
    said, _ = first.communicate(timeout=120)
    assert first.returncode == 130, said
    assert "tiny is suspended; what it has learned is saved. To go on: " in said
    assert trainers_of(folder) == []

    second = finetune(folder)
    eventually(lambda: len(trainers_of(folder)) == 3, seconds=120)
    second.kill()
    second.wait()
    eventually(lambda: not trainers_of(folder), seconds=60)

    last = finetune(folder)
    said, _ = last.communicate(timeout=240)
    assert last.returncode == 0, said
    assert "shared by 2 processes" in said
    assert "from step 0." not in said
    assert trainers_of(folder) == []
