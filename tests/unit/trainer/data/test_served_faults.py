"""The table of faults as the hub serves them, and login pages in the place of hub and object storage."""

from __future__ import annotations

import gzip
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from finetune_api.exit_codes import EXIT_CODES, NEVER_RETRIED
from finetune_api.failures import FailureReason, JobError
from finetune_api.job import Storage
from finetune_trainer.data.places import open_place
from tests.unit.trainer.data.folders import reviews
from tests.unit.trainer.data.hub_client import Answers, fetched
from tests.unit.trainer.data.loopback_hub import PAGE, Repository, hub_of, portal
from tests.unit.trainer.data.readers import READERS
from tests.unit.trainer.data.test_faults import CONFLICT, FAULTS, FOREIGN, POINTER

pytestmark = pytest.mark.slow

WRITERS = {reader.extension: reader for reader in READERS if reader.extension != "ndjson"}


@dataclass(frozen=True)
class Served:
    files: Mapping[str, bytes]
    reasons: tuple[str, ...]
    says: str
    spec: Mapping[str, Any]


def served() -> Iterator[tuple[str, Served]]:
    for what, content in FOREIGN.items():
        extension = "csv" if content == CONFLICT else "parquet"
        is_page = content.lstrip().startswith((b"<!DOCTYPE", b"<?xml"))
        reason = "HubUnreachable" if is_page else "DataInvalid"
        yield what, Served({f"train.{extension}": content}, (reason,), what, {})
    # What the library makes of the rows is its own: it may name the row, or only the split.
    reasons = ("DataInvalid", "LabelInvalid", "ColumnMissing")
    for name, fault in FAULTS.items():
        extension = "jsonl" if fault.only == ("jsonl", "ndjson") else "parquet"
        if len(fault.columns) < 100 and fault.rows:
            content = WRITERS[extension].write(fault.columns, fault.rows)
            yield f"{name}, {extension}", Served({f"train.{extension}": content}, reasons, "", fault.spec)
    for name in ("a label column twice", "a text column twice"):
        content = WRITERS["csv"].write(FAULTS[name].columns, FAULTS[name].rows)
        yield f"{name}, csv", Served({"train.csv": content}, ("DataInvalid",), FAULTS[name].says, {})
    deep = '{"text": %s, "label": "x"}\n' % ("[" * 1200 + "]" * 1200)
    semicolons = reviews(20).replace(",", ";")
    latin = "text,label\nhübsch,a\nschön,b\n".encode("latin-1")
    for name, file, content, says in (
        ("nesting", "train.jsonl", deep.encode(), "cannot be read"),
        ("semicolons", "train.csv", semicolons.encode(), "does not expect"),
        ("another encoding", "train.csv", latin, "does not expect"),
        ("no bytes", "train.csv", b"", "cannot be read"),
        ("no rows", "train.csv", b"text,label\n", "no rows"),
        ("uneven rows", "train.csv", b"text,label\na,b\nc,d,e\n", "cannot be read"),
        ("a broken archive", "train.csv.gz", gzip.compress(reviews(20).encode())[:50], "cannot be read"),
        ("a pointer under csv", "train.csv", POINTER, "a Git LFS pointer"),
        ("a broken card", "README.md", b"---\nconfigs: [\n---\n", "cannot be"),
    ):
        yield name, Served({file: content}, ("DataInvalid", "DatasetNotFound"), says, {})
    for part in ("train[abc]", "train[5:2]", "train[:200%]", "train+tset"):
        yield (
            f"the part {part}",
            Served(
                {"train.csv": reviews(20).encode()}, ("DatasetNotFound", "DataInvalid"), "", {"splits": {"train": part}}
            ),
        )


SERVED = dict(served())
FINE = {
    "a gzip archive that is read": Served({"train.csv.gz": gzip.compress(reviews(20).encode())}, (), "", {}),
    "a table": Served({"train.csv": reviews(20).encode()}, (), "", {}),
}
MODEL = {"config.json": b"{}", "tokenizer.json": b"{}", "vocab.txt": b"a\n", "model.safetensors": bytes(8) + b"{}"}


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> Answers:
    everything = {**SERVED, **FINE}
    hub = {f"datasets/o/d{n}": Repository(case.files) for n, case in enumerate(everything.values())}
    asked: dict[str, tuple[str, Any]] = {
        name: ("dataset", {"uri": f"hf://o/d{n}", **case.spec}) for n, (name, case) in enumerate(everything.items())
    }
    for what in ("dataset", "model"):
        files = {"train.csv": reviews(20).encode()} if what == "dataset" else MODEL
        hub[f"{what}s/o/page"] = Repository(files, page=PAGE)
        asked[f"{what} page"] = (what, {"uri": "hf://o/page"})
    for name in MODEL:
        for kind, content in (("page", PAGE), ("pointer", POINTER)):
            hub[f"models/o/{kind}-{name}"] = Repository({**MODEL, name: content})
            asked[f"{kind} {name}"] = ("model", {"uri": f"hf://o/{kind}-{name}"})
    with hub_of(hub) as address:
        return fetched(asked, address, tmp_path_factory.mktemp("served"))


@pytest.mark.parametrize("name", SERVED)
def test_a_fault_that_the_hub_serves_is_named_and_never_tried_again(name: str, answers: Answers) -> None:
    case, answer = SERVED[name], answers[name]
    print(answer)
    assert answer["reason"] in case.reasons
    assert case.says in answer["message"]
    assert answer["remedy"]
    if answer["reason"] != "HubUnreachable":
        assert EXIT_CODES[FailureReason(answer["reason"])] in NEVER_RETRIED


@pytest.mark.parametrize("name", FINE)
def test_what_the_hubs_library_reads_is_read(name: str, answers: Answers) -> None:
    assert "reason" not in answers[name]


@pytest.mark.parametrize("name", ["dataset page", "model page", *(f"page {name}" for name in MODEL)])
def test_a_login_page_for_a_file_of_the_hub_is_told_as_that(name: str, answers: Answers) -> None:
    answer = answers[name]
    print(answer)
    assert answer["reason"] == "HubUnreachable"


@pytest.mark.parametrize("name", MODEL)
def test_a_pointer_in_a_model_of_the_hub_is_told_as_that(name: str, answers: Answers) -> None:
    answer = answers[f"pointer {name}"]
    assert answer["reason"] == "ModelInvalid"
    assert f"{name} at hf://" in answer["message"]
    assert "git lfs pull" in answer["remedy"]


def test_a_login_page_in_the_place_of_the_hub_is_told_as_that(tmp_path: Path) -> None:
    asked = {what: (what, {"uri": "hf://o/r"}) for what in ("model", "dataset")}
    with portal() as address:
        found = fetched(asked, address, tmp_path)
    for answer in found.values():
        assert answer["reason"] == "HubUnreachable"
        assert "a login page" in answer["message"]


@pytest.mark.parametrize("uri", ["s3://bucket", "s3://bucket/folder", "s3://bucket/folder/train.csv"])
def test_a_login_page_in_the_place_of_object_storage_is_told_as_that(
    uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    with portal() as address, pytest.raises(JobError, match=r"is no object store: .* a login page") as caught:
        open_place(uri, storage=Storage(endpoint=address), workspace=tmp_path)
    assert caught.value.reason is FailureReason.STORAGE_UNAVAILABLE
