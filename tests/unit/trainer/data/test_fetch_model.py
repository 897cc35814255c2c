"""Which files of a model are taken, from a folder and from object storage."""

from __future__ import annotations

import errno
import json
import os
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest

from finetune_api.dataset import Dataset
from finetune_api.exit_codes import EXIT_CODES, NEVER_RETRIED
from finetune_api.failures import FailureReason, JobError
from finetune_api.job import Base, Storage
from finetune_trainer.data import FetchedModel, fetch_model, hub
from finetune_trainer.data.load import load
from finetune_trainer.data.places import open_place
from finetune_trainer.store.folder import open_folder
from tests.unit.trainer.data.folders import FORMS, go_on, reviews, written

FILES = {
    "config.json": "{}",
    "model-00001-of-00002.safetensors": "a",
    "model-00002-of-00002.safetensors": "b",
    "model.safetensors.index.json": '{"metadata": {}, "weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}',
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


@pytest.mark.parametrize(
    ("card", "licence", "bases"),
    [
        ("---\nlicense: apache-2.0\n---\n# A model\n", "apache-2.0", ()),
        ("---\nlicense: llama3.1\nbase_model: owner/name\n---\n", "llama3.1", ("owner/name",)),
        ("---\nbase_model: [owner/name, owner/other]\n---\n", None, ("owner/name", "owner/other")),
        ("---\nbase_model: /mnt/models/name\n---\n", None, ()),
        ("---\nbase_model: {name: 5}\n---\n", None, ()),
        ("# A model\n", None, ()),
        ("---\nlicense: [a, b]\n---\n", None, ()),
        ("---\n{{ no yaml\n---\n", None, ()),
        ("---\n- a list\n---\n", None, ()),
        (None, None, ()),
    ],
)
@pytest.mark.parametrize("where", ["file", "memory"])
def test_licence_and_base_are_what_the_card_says_and_no_part_of_the_model(
    where: str, card: str | None, licence: str | None, bases: tuple[str, ...], tmp_path: Path
) -> None:
    files = FILES if card is None else {**FILES, "README.md": card}
    uri = f"memory://{uuid.uuid4().hex}/base"
    if where == "file":
        uri = written(tmp_path / "model", files).as_uri()
    else:
        for name, content in files.items():
            open_folder(uri, Storage()).write(name, content.encode())
    model = fetch(uri, tmp_path / "work")
    assert (model.licence, model.bases) == (licence, bases)
    assert model.fingerprint == fetch(written(tmp_path / "bare", FILES).as_uri(), tmp_path).fingerprint


def test_of_a_licence_without_a_name_on_hubs_its_own_and_its_place_are_read(tmp_path: Path) -> None:
    card = "---\nlicense: other\nlicense_name: own\nlicense_link: https://example.org/own\n---\n"
    model = fetch(written(tmp_path / "model", {**FILES, "README.md": card}).as_uri(), tmp_path / "work")
    assert (model.licence, model.terms) == (
        "other",
        {"license_name": "own", "license_link": "https://example.org/own"},
    )


def test_a_file_below_is_fetched_where_a_task_reads_it_and_only_then_part_of_the_model(tmp_path: Path) -> None:
    pooling = "1_Pooling/config.json"
    store = open_folder("memory://fetch-more/base", Storage())
    for name, content in {**FILES, pooling: "{}"}.items():
        store.write(name, content.encode())

    def fetch_more(*more: str) -> FetchedModel:
        model = Base.model_construct(uri="memory://fetch-more/base", revision=None, trust_remote_code=False)
        return fetch_model(model, storage=Storage(), workspace=tmp_path / f"{more}", stop=go_on, more=more)

    without, asked = fetch_more(), fetch_more(pooling, "2_Absent/config.json")
    assert not (without.path / pooling).exists() and (asked.path / pooling).read_text() == "{}"
    assert without.fingerprint == fetch(written(tmp_path / "same", FILES).as_uri(), tmp_path).fingerprint
    assert asked.fingerprint != without.fingerprint


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


def by_another(file: Path) -> None:
    new = file.with_name("new")
    new.write_text("c")
    new.replace(file)


def of_the_same_length_and_date(file: Path) -> None:
    found = file.stat()
    file.write_text("c")
    os.utime(file, ns=(found.st_atime_ns, found.st_mtime_ns))


@pytest.mark.parametrize("change", [by_another, of_the_same_length_and_date, Path.unlink])
def test_a_file_that_is_replaced_while_the_model_is_used_is_named(
    change: Callable[[Path], None], tmp_path: Path
) -> None:
    model = fetch(written(tmp_path, FILES).as_uri(), tmp_path)
    file = tmp_path / "model-00002-of-00002.safetensors"

    change(file)

    with pytest.raises(JobError) as caught:
        model.refuse_changed(go_on)
    assert caught.value.reason is FailureReason.STORAGE_UNAVAILABLE
    assert caught.value.message.startswith(f"{file}, a file of the model, was changed")


def test_files_that_hold_the_same_are_the_same_whoever_has_touched_them(tmp_path: Path) -> None:
    model = fetch(written(tmp_path, FILES).as_uri(), tmp_path)

    for file in tmp_path.iterdir():
        file.touch()
    (tmp_path / "config.json").write_text(FILES["config.json"])
    (tmp_path / "notes.md").write_text("is no file of it")

    model.refuse_changed(go_on)


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


def index_of(*shards: object) -> str:
    return json.dumps({"metadata": {}, "weight_map": {str(number): shard for number, shard in enumerate(shards)}})


@pytest.mark.parametrize("where", ["file", "memory", "hf"])
@pytest.mark.parametrize(
    ("index", "says"),
    [
        (index_of("../other/model.safetensors"), "'../other/model.safetensors', which lies outside its folder"),
        (index_of("/model.safetensors"), "'/model.safetensors', which lies outside"),
        (index_of("deep/model.safetensors"), "'deep/model.safetensors', which lies outside"),
        (index_of("..\\\\model.safetensors"), "which lies outside"),
        (index_of("model-00003-of-00002.safetensors"), "'model-00003-of-00002.safetensors', which is not beside it"),
        (index_of(None), "is no index of weights"),
        (index_of(["model.safetensors"]), "is no index of weights"),
        ('{"weight_map": []}', "is no index of weights"),
        ("{}", "is no index of weights"),
        ("[" * 100_000, "is no index of weights"),
        ("\x00", "is no index of weights"),
    ],
)
def test_an_index_of_weights_that_does_not_name_the_files_beside_it_is_refused_wherever_it_comes_from(
    index: str, says: str, where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {**FILES, "model.safetensors.index.json": index}
    uri = f"{where}://owner/{uuid.uuid4().hex}"
    if where == "file":
        uri = written(tmp_path / "model", files).as_uri()
    elif where == "memory":
        for name, content in files.items():
            open_folder(uri, Storage()).write(name, content.encode())
    else:
        monkeypatch.setattr(hub, "model_files", lambda repo, revision: ("c" * 40, list(files)))
        monkeypatch.setattr(
            hub, "download_model", lambda repo, revision, names, cache: written(tmp_path / "hub", files)
        )
    with pytest.raises(JobError) as caught:
        fetch(uri, tmp_path / "work")
    assert (caught.value.reason, caught.value.field) == (FailureReason.MODEL_INVALID, "spec.model.uri")
    assert says in caught.value.message


def test_an_index_that_is_left_over_beside_weights_in_one_file_does_no_harm(tmp_path: Path) -> None:
    index = index_of("model-00001-of-00009.safetensors")
    files = {"config.json": "{}", "model.safetensors": "a", "model.safetensors.index.json": index}
    fetch(written(tmp_path, files).as_uri(), tmp_path)


def test_data_in_object_storage_is_a_folder_or_a_file(tmp_path: Path) -> None:
    store = open_folder("memory://some-data/reviews", Storage())
    store.write("train.csv", reviews(20).encode())
    store.write("other/big.csv", b"never downloaded")
    for number, uri in enumerate(("memory://some-data/reviews", "memory://some-data/reviews/train.csv")):
        workspace = tmp_path / str(number)
        dataset = Dataset.model_validate({"uri": "s3://bucket"}).model_copy(update={"uri": uri})
        data = load(dataset, FORMS, storage=Storage(), workspace=workspace, seed=1, stop=go_on)
        assert len(data.train) == 18
        assert [path.name for path in workspace.rglob("*.csv")] == ["train.csv"]
    assert open_place("memory://some-data/nothing", storage=Storage(), workspace=tmp_path).names() == []


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (PermissionError(errno.EACCES, "Permission denied", "train.csv"), "AccessDenied"),
        (FileNotFoundError(errno.ENOENT, "No such file or directory", "train.csv"), "NotFound"),
    ],
    ids=["that may not be read", "that vanishes"],
)
def test_a_file_is_named_with_its_owner_or_its_absence(
    error: OSError, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = written(tmp_path, {**FILES, "train.csv": reviews(20)})
    dataset = Dataset(uri=folder.as_uri())

    def refused(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(Path, "open", refused)
    for kind, read in (
        ("Model", lambda: fetch(folder.as_uri(), tmp_path)),
        ("Dataset", lambda: load(dataset, FORMS, storage=Storage(), workspace=tmp_path, seed=1, stop=go_on)),
    ):
        with pytest.raises(JobError, match=r"train\.csv") as caught:
            read()
        assert caught.value.reason == f"{kind}{reason}"
        assert EXIT_CODES[caught.value.reason] in NEVER_RETRIED


def test_a_folder_that_may_not_be_read_is_not_told_as_empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(path: Path) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr("finetune_trainer.data.places.os.scandir", refused)
    with pytest.raises(JobError, match="may not be read by the user") as caught:
        fetch(written(tmp_path, FILES).as_uri(), tmp_path)
    assert caught.value.reason is FailureReason.MODEL_ACCESS_DENIED


def test_a_file_that_changes_while_it_is_downloaded_is_not_used(tmp_path: Path) -> None:
    store = open_folder("memory://changing/base", Storage())
    store.write("train.csv", b"text,label\n")
    place = open_place("memory://changing/base", storage=Storage(), workspace=tmp_path)
    store.write("train.csv", b"<html>Log in</html>\n")
    with pytest.raises(JobError, match=r"has 11 bytes by the listing, and 20 were answered") as caught:
        place.local(["train.csv"], go_on)
    assert caught.value.reason is FailureReason.STORAGE_UNAVAILABLE
