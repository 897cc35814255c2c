"""Which files of a model are taken, from a folder and from object storage."""

from __future__ import annotations

from pathlib import Path

import pytest

from finetune_api.failures import FailureReason, JobError
from finetune_api.job import Base, Storage
from finetune_trainer.data import FetchedModel, fetch_model
from finetune_trainer.data.load import load
from finetune_trainer.data.places import open_place
from finetune_trainer.store.folder import open_folder
from tests.unit.trainer.data.folders import go_on, reviews, written

FILES = {
    "config.json": "{}",
    "model-00001-of-00002.safetensors": "a",
    "model-00002-of-00002.safetensors": "b",
    "model.safetensors.index.json": "{}",
    "tokenizer.json": "{}",
    "pytorch_model.bin": "pickle",
    "modeling.py": "print()",
    "onnx/model.onnx": "",
    ".git/config": "",
}


def fetch(uri: str, workspace: Path, *, trust: bool = False) -> FetchedModel:
    model = Base.model_construct(uri=uri, revision=None, trust_remote_code=trust)
    return fetch_model(model, storage=Storage(), workspace=workspace, stop=go_on)


def test_a_local_model_is_used_in_place(tmp_path: Path) -> None:
    folder = written(tmp_path / "model", FILES)
    model = fetch(folder.as_uri(), tmp_path / "work")
    assert model.path == folder
    assert model.revision is None
    assert not (tmp_path / "work").exists()


def test_of_a_stored_model_only_what_loads_it_is_downloaded(tmp_path: Path) -> None:
    store = open_folder("memory://fetch-model/base", Storage())
    for name, content in FILES.items():
        store.write(name, content.encode())
    model = fetch("memory://fetch-model/base", tmp_path)
    taken = sorted(path.name for path in model.path.rglob("*") if path.is_file())
    assert taken == sorted(name for name in FILES if name.endswith((".json", ".safetensors")) and "/" not in name)
    assert model.fingerprint == fetch(written(tmp_path / "same", FILES).as_uri(), tmp_path).fingerprint


def test_python_files_are_fetched_only_where_they_are_trusted(tmp_path: Path) -> None:
    store = open_folder("memory://fetch-code/base", Storage())
    for name, content in FILES.items():
        store.write(name, content.encode())
    assert not (fetch("memory://fetch-code/base", tmp_path / "no").path / "modeling.py").exists()
    assert (fetch("memory://fetch-code/base", tmp_path / "yes", trust=True).path / "modeling.py").exists()


def test_the_fingerprint_changes_with_the_weights(tmp_path: Path) -> None:
    folder = written(tmp_path, FILES)
    before = fetch(folder.as_uri(), tmp_path).fingerprint
    (folder / "model-00002-of-00002.safetensors").write_text("c")
    assert fetch(folder.as_uri(), tmp_path).fingerprint != before


@pytest.mark.parametrize(
    ("files", "reason", "says"),
    [
        ({}, FailureReason.MODEL_NOT_FOUND, "there is no file at file:///"),
        ({"model.safetensors": ""}, FailureReason.MODEL_INVALID, "no config.json at file:///"),
        ({"config.json": "{}"}, FailureReason.MODEL_INVALID, "no safetensors weights"),
        ({"config.json": "{}", "pytorch_model.bin": ""}, FailureReason.MODEL_INVALID, 'only "pytorch_model.bin"'),
    ],
)
def test_a_folder_that_is_no_model_is_refused(
    files: dict[str, str], reason: FailureReason, says: str, tmp_path: Path
) -> None:
    with pytest.raises(JobError) as caught:
        fetch(written(tmp_path, files).as_uri(), tmp_path)
    assert caught.value.reason is reason
    assert says in caught.value.message
    assert caught.value.field == "spec.model.uri"


def test_data_in_object_storage_is_a_folder_or_a_file(tmp_path: Path) -> None:
    from finetune_api.dataset import Dataset

    store = open_folder("memory://some-data/reviews", Storage())
    store.write("train.csv", reviews(20).encode())
    store.write("other/big.csv", b"never downloaded")
    for number, uri in enumerate(("memory://some-data/reviews", "memory://some-data/reviews/train.csv")):
        workspace = tmp_path / str(number)
        dataset = Dataset.model_validate({"uri": "s3://bucket"}).model_copy(update={"uri": uri})
        data = load(dataset, storage=Storage(), workspace=workspace, seed=1, stop=go_on)
        assert len(data.train) == 18
        assert [path.name for path in workspace.rglob("*.csv")] == ["train.csv"]
    assert open_place("memory://some-data/nothing", storage=Storage(), workspace=tmp_path).names() == []
