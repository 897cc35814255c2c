"""Equal listings mean equal inputs: whatever changes in data or model changes what a listing tells."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from finetune_api.job import FineTuneJobSpec, Storage
from finetune_trainer.data import list_inputs
from finetune_trainer.store.folder import open_folder

FILES = {"data/train.csv": "text,label\na,b\n", "model/config.json": "{}", "model/model.safetensors": "weights"}


class Inputs:
    """Data and model in memory or on a disk, and what their listing is."""

    def __init__(self, uri: str, directory: Path | None) -> None:
        self._uri = uri
        self._folder = open_folder(uri, Storage())
        self._directory = directory
        for name, text in FILES.items():
            self.write(name, text)

    def write(self, name: str, text: str) -> None:
        if self._directory is None:
            self._folder.write(name, text.encode())
        else:
            (self._directory / name).parent.mkdir(parents=True, exist_ok=True)
            (self._directory / name).write_text(text)

    def listing(self, dataset: str = "data") -> str:
        parts = {"model": {"uri": "hf://a/b"}, "dataset": {"uri": "hf://a/b"}, "output": {"uri": "file:///out"}}
        spec = FineTuneJobSpec.model_validate({"task": "text-classification", **parts})
        # Folders in memory are none that users may name.
        model = spec.model.model_copy(update={"uri": f"{self._uri}/model"})
        return list_inputs(
            spec.model_copy(
                update={
                    "model": model,
                    "dataset": spec.dataset.model_copy(update={"uri": f"{self._uri}/{dataset}"}),
                }
            )
        )


@pytest.fixture(params=["memory", "file"])
def inputs(request: pytest.FixtureRequest, tmp_path: Path) -> Inputs:
    if request.param == "memory":
        return Inputs(f"memory://{tmp_path.name}{os.getpid()}/inputs", None)
    return Inputs(tmp_path.as_uri(), tmp_path)


def test_inputs_that_nobody_touched_list_alike(inputs: Inputs) -> None:
    assert inputs.listing() == inputs.listing()


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("data/train.csv", "text,label\na,c\n"),
        ("data/test.csv", "text,label\na,b\n"),
        ("model/model.safetensors", "WEIGHTS"),
    ],
    ids=["another row of the same size", "one more file", "other weights of the same size"],
)
def test_any_change_of_data_or_model_shows(inputs: Inputs, name: str, text: str) -> None:
    before = inputs.listing()
    inputs.write(name, text)
    assert inputs.listing() != before


def test_a_date_that_was_set_back_hides_no_change(tmp_path: Path) -> None:
    inputs = Inputs(tmp_path.as_uri(), tmp_path)
    before, file = inputs.listing(), tmp_path / "data/train.csv"
    dates = file.stat().st_atime_ns, file.stat().st_mtime_ns
    inputs.write("data/train.csv", "text,label\na,c\n")
    os.utime(file, ns=dates)
    assert inputs.listing() != before


def test_a_single_file_is_listed_too_and_not_fetched(inputs: Inputs) -> None:
    before = inputs.listing("data/train.csv")
    inputs.write("data/other.csv", "")
    assert inputs.listing("data/train.csv") == before
    inputs.write("data/train.csv", "text,label\na,c\n")
    assert inputs.listing("data/train.csv") != before
