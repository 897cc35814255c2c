"""The real hub client libraries against a hub on a loopback port, and against none."""

from __future__ import annotations

import errno
import json
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from huggingface_hub.errors import LocalEntryNotFoundError

from finetune_api.dataset import Dataset
from finetune_api.failures import JobError
from finetune_trainer.data import hub
from tests.unit.trainer.data.folders import reviews
from tests.unit.trainer.data.hub_client import Answers, fetched
from tests.unit.trainer.data.loopback_hub import COMMIT, Repository, hub_of

pytestmark = pytest.mark.slow

MODEL_FILES = {"config.json": b"{}", "model.safetensors": b"weights", "tokenizer.json": b"{}", "vocab.txt": b"a\n"}
CARD = b"""---
configs:
- config_name: plain
  data_files:
  - {split: train, path: train.csv}
  - {split: validation, path: dev.csv}
- config_name: other
  data_files:
  - {split: train, path: dev.csv}
---
"""
DISLIKED = b"".join(
    json.dumps(
        {"messages": [{"role": "user", "content": f"a {row}"}, {"role": "assistant", "content": "b"}], "label": row > 2}
    ).encode()
    + b"\n"
    for row in range(20)
)
DATASET = Repository({"README.md": CARD, "train.csv": reviews(20).encode(), "dev.csv": reviews(6).encode()})

HUB = {
    "models/good/model": Repository(
        {**MODEL_FILES, "pytorch_model.bin": b"pickle", "onnx/model.onnx": b"", "code.py": b""}
    ),
    "models/pickled/model": Repository({"config.json": b"{}", "pytorch_model.bin": b"pickle"}),
    "models/bare/model": Repository({"model.safetensors": b"weights"}),
    "models/gated/model": Repository(refuses=403, error_code="GatedRepo"),
    "models/private/model": Repository(refuses=401, error_code="RepoNotFound"),
    "models/broken/model": Repository(refuses=500),
    "datasets/good/reviews": DATASET,
    "datasets/good/disliked": Repository({"train.jsonl": DISLIKED}),
    "datasets/gated/reviews": Repository(refuses=403, error_code="GatedRepo"),
    "datasets/private/reviews": Repository(refuses=401, error_code="RepoNotFound"),
    "datasets/odd/pictures": Repository({"README.md": b"", "a.xyz": b"?"}),
}

MODELS: list[tuple[dict[str, Any], str, str, str]] = [
    ({"uri": "hf://no/model"}, "ModelNotFound", "the hub has no model no/model", "spec.model.uri"),
    ({"uri": "hf://good/model", "revision": "v9"}, "ModelNotFound", '"v9"', "spec.model.revision"),
    ({"uri": "hf://a--b/c"}, "ModelNotFound", "no name of a hub repository", "spec.model.uri"),
    ({"uri": "hf://gated/model"}, "ModelAccessDenied", "is gated: an anonymous reader", "spec.model.uri"),
    ({"uri": "hf://private/model"}, "ModelAccessDenied", "private, gated, or does not exist", "spec.model.uri"),
    ({"uri": "hf://broken/model"}, "HubUnreachable", "answered HTTP 500", "spec.model.uri"),
    ({"uri": "hf://pickled/model"}, "ModelInvalid", '"pytorch_model.bin", which can run code', "spec.model.uri"),
    ({"uri": "hf://bare/model"}, "ModelInvalid", "no config.json", "spec.model.uri"),
]

DATASETS: list[tuple[dict[str, Any], str, str, str]] = [
    ({"uri": "hf://no/reviews"}, "DatasetNotFound", "the hub has no dataset no/reviews", "spec.dataset.uri"),
    ({"uri": "hf://gated/reviews"}, "DatasetAccessDenied", "is gated", "spec.dataset.uri"),
    ({"uri": "hf://private/reviews"}, "DatasetAccessDenied", "HTTP 401", "spec.dataset.uri"),
    ({"uri": "hf://good/reviews"}, "DatasetNotFound", 'named: "plain", "other"', "spec.dataset.subset"),
    (
        {"uri": "hf://good/reviews", "subset": "plan"},
        "DatasetNotFound",
        'no subset "plan". Did you mean "plain"?',
        "spec.dataset.subset",
    ),
    (
        {"uri": "hf://good/reviews", "subset": "plain", "splits": {"test": "tset"}},
        "DatasetNotFound",
        'no split "tset". Its splits are "train", "validation"',
        "spec.dataset.splits.test",
    ),
    (
        {"uri": "hf://good/reviews", "subset": "plain", "columns": {"text": "sentence"}},
        "ColumnMissing",
        'split "train" of good/reviews has no column "sentence"',
        "spec.dataset.columns.text",
    ),
    (
        {"uri": "hf://good/disliked", "task": "text-generation"},
        "DataInvalid",
        "answers are marked as not liked, and all of them would be learnt, in 3 of 20 training rows",
        "spec.textGeneration.objective",
    ),
    ({"uri": "hf://odd/pictures"}, "DatasetNotFound", "cannot be loaded", "spec.dataset.uri"),
]

SUBSET = {"uri": "hf://good/reviews", "subset": "plain", "splits": {"validation": "validation"}}


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> Answers:
    """What one process makes of everything that is asked of this hub."""
    asked: dict[str, tuple[str, Any]] = {
        "model": ("model", {"uri": "hf://good/model"}),
        "same model": ("model", {"uri": "hf://good/model", "revision": "main"}),
        "dataset": ("dataset", SUBSET),
        **{f"model {spec}": ("model", spec) for spec, *_ in MODELS},
        **{f"dataset {spec}": ("dataset", spec) for spec, *_ in DATASETS},
    }
    with hub_of(HUB) as address:
        return fetched(asked, address, tmp_path_factory.mktemp("hub"))


def test_of_a_hub_model_only_what_loads_it_is_fetched_and_its_commit_is_told(answers: Answers) -> None:
    model = answers["model"]
    assert model["files"] == sorted(MODEL_FILES)
    assert model["revision"] == COMMIT
    assert answers["same model"]["fingerprint"] == model["fingerprint"]


@pytest.mark.parametrize(("spec", "reason", "says", "field"), MODELS)
def test_the_hub_refuses_a_model(spec: dict[str, Any], reason: str, says: str, field: str, answers: Answers) -> None:
    error = answers[f"model {spec}"]
    print(error)
    assert (error["reason"], error["field"]) == (reason, field)
    assert says in error["message"]


def test_a_hub_dataset_is_read_by_the_real_library(answers: Answers) -> None:
    assert answers["dataset"] == {
        "train": 20,
        "validation": 6,
        "labels": ["bad", "good"],
        "revision": COMMIT,
        "first": ["this is review 0", "split train, row 1"],
        "sources": ["split train", "split validation"],
    }


@pytest.mark.parametrize(("spec", "reason", "says", "field"), DATASETS)
def test_the_hub_refuses_a_dataset(spec: dict[str, Any], reason: str, says: str, field: str, answers: Answers) -> None:
    error = answers[f"dataset {spec}"]
    print(error)
    assert (error["reason"], error["field"]) == (reason, field)
    assert says in error["message"]


@pytest.mark.parametrize("address", ["http://127.0.0.1:9", "http://hub.invalid"])
def test_a_hub_that_cannot_be_reached_is_told_within_seconds(address: str, tmp_path: Path) -> None:
    start = time.monotonic()
    asked = {what: (what, {"uri": "hf://some/thing"}) for what in ("model", "dataset")}
    for error in fetched(asked, address, tmp_path).values():
        assert error["reason"] == "HubUnreachable"
        assert address in error["message"]
        assert "copy the files to object storage" in error["remedy"]
    assert time.monotonic() - start < 100


FULL = OSError(errno.ENOSPC, "No space left on device")
OVER_QUOTA = OSError(errno.EDQUOT, "Disk quota exceeded")


@pytest.mark.parametrize(
    ("cause", "reason", "says"),
    [
        (FULL, "DiskFull", "the workspace is full"),
        (OVER_QUOTA, "DiskFull", "the workspace is full"),
        (MemoryError(), "OutOfMemory", "memory ran out"),
        (ConnectionResetError("Connection reset by peer"), "HubUnreachable", "Connection reset by peer"),
        (ValueError("the files do not agree"), "DataInvalid", "the files do not agree"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else None,
)
def test_what_the_hub_library_wraps_is_told_apart(
    cause: Exception, reason: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import datasets
    from datasets.exceptions import DatasetGenerationError

    class Builder:
        def download_and_prepare(self) -> None:
            raise DatasetGenerationError("An error occurred while generating the dataset") from cause

    monkeypatch.setattr(hub.HfApi, "dataset_info", lambda *_, **__: SimpleNamespace(sha=COMMIT))
    monkeypatch.setattr(datasets, "load_dataset_builder", lambda *_, **__: Builder())
    with pytest.raises(JobError) as caught:
        hub.read_dataset(Dataset(uri="hf://good/reviews"), [{}], {}, cache=tmp_path, stop=lambda: None)
    assert caught.value.reason == reason
    assert says in caught.value.message


def no_answer() -> LocalEntryNotFoundError:
    """What the client says when the hub falls silent in the middle of a download."""
    error = LocalEntryNotFoundError("Cannot find the requested files in the cache and the hub cannot be reached")
    error.__cause__ = ConnectionError("Connection refused")
    return error


@pytest.mark.parametrize(
    ("error", "reason"),
    [(FULL, "DiskFull"), (MemoryError(), "OutOfMemory"), (no_answer(), "HubUnreachable")],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else None,
)
def test_a_download_that_breaks_off_says_why(
    error: Exception, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken_off(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(hub, "snapshot_download", broken_off)
    with pytest.raises(JobError) as caught:
        hub.download_model("good/model", COMMIT, ["config.json"], tmp_path)
    assert caught.value.reason == reason


def test_another_error_of_the_disk_is_not_blamed_on_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken_disk(*_: object, **__: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(hub, "snapshot_download", broken_disk)
    with pytest.raises(OSError, match="Input/output error"):
        hub.download_model("good/model", COMMIT, ["config.json"], tmp_path)
