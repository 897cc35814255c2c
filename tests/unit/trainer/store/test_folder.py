"""A folder in a store behaves the same in memory and on a disk. (On S3: tests/integration/store.)"""

from __future__ import annotations

import errno
import hashlib
import os
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import quote

import pytest

from finetune_api.failures import FailureReason, JobError
from finetune_api.job import Storage
from finetune_trainer.store.folder import CHUNK, Folder, open_folder
from tests.storage.saves import memory_folder
from tests.storage.waiting import Interrupted, interrupted


@pytest.fixture(params=["memory", "file"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Folder:
    return memory_folder() if request.param == "memory" else disk_folder(tmp_path)


def disk_folder(directory: Path) -> Folder:
    return open_folder(f"{(directory / 'runs').as_uri()}/one run", Storage())


@pytest.mark.parametrize(
    "name", ["a.txt", "deep/er/a.txt", "with space é.txt", "100%25.csv", "a+b=c&d.txt", "[x].json"]
)
def test_a_file_is_read_as_it_was_written_whatever_its_name(folder: Folder, name: str) -> None:
    folder.write(name, b"first")
    folder.write(name, b"second")
    content = folder.read(name)
    assert content is not None
    assert content.data == b"second"
    assert list(folder.list()) == [name]


def test_what_does_not_exist_is_none_or_file_not_found(folder: Folder, tmp_path: Path) -> None:
    assert folder.read("absent") is None
    assert folder.list() == {}
    assert folder.list("absent") == {}
    with pytest.raises(FileNotFoundError, match="absent"):
        folder.download("absent", tmp_path / "copy")


def test_a_file_is_created_only_once(folder: Folder) -> None:
    assert folder.create("claim.json", b"first") is not None
    assert folder.create("claim.json", b"second") is None
    assert folder.read("claim.json").data == b"first"  # type: ignore[union-attr]


def test_of_many_who_create_a_file_at_once_exactly_one_wins(folder: Folder) -> None:
    with ThreadPoolExecutor(8) as pool:
        for round_ in range(20):
            won = list(pool.map(lambda who, n=round_: folder.create(f"{n}.json", b"%d" % who), range(8)))
            winners = [who for who, version in enumerate(won) if version]
            assert len(winners) == 1
            assert folder.read(f"{round_}.json").data == b"%d" % winners[0]  # type: ignore[union-attr]


def test_a_file_is_replaced_only_as_it_was_read(folder: Folder) -> None:
    first = folder.create("claim.json", b"first")
    assert first is not None
    second = folder.replace("claim.json", b"second", first)
    assert second is not None
    assert folder.replace("claim.json", b"late", first) is None
    assert folder.replace("claim.json", b"third", second) is not None
    assert folder.read("claim.json").data == b"third"  # type: ignore[union-attr]


def test_a_deleted_file_is_not_replaced(folder: Folder) -> None:
    version = folder.create("claim.json", b"first")
    assert version is not None
    folder.delete(["claim.json"])
    assert folder.replace("claim.json", b"second", version) is None
    assert folder.read("claim.json") is None


def test_of_many_who_replace_a_file_at_once_exactly_one_wins(folder: Folder) -> None:
    version = folder.create("claim.json", b"start")
    with ThreadPoolExecutor(8) as pool:
        for _ in range(20):
            assert version is not None
            won = [
                v for v in pool.map(lambda who, v=version: folder.replace("claim.json", b"%d" % who, v), range(8)) if v
            ]
            assert len(won) == 1
            version = won[0]


def test_a_listing_holds_the_files_below_a_folder_with_sizes_and_no_others(folder: Folder) -> None:
    for name in ("b/2", "b/1", "bb/3", "c"):
        folder.write(name, name.encode())
    folder.replace("c", b"changed", folder.read("c").version)  # type: ignore[union-attr]  # leaves a lock file on a disk
    assert list(folder.list()) == ["b/1", "b/2", "bb/3", "c"]
    assert {name: file.size for name, file in folder.list("b").items()} == {"b/1": 3, "b/2": 3}
    assert list(folder.below("b").list()) == ["1", "2"]


def test_deleting_takes_what_is_there_and_forgives_what_is_not(folder: Folder) -> None:
    for name in ("a", "b", "c"):
        folder.write(name, b"")
    folder.delete(["absent", "a", "also/absent", "b"])
    folder.delete([])
    assert list(folder.list()) == ["c"]


def test_deleting_the_last_file_of_a_directory_on_a_disk_deletes_the_directory(tmp_path: Path) -> None:
    folder = disk_folder(tmp_path)
    folder.write("best/step-1/weights", b"")
    folder.delete(["best/step-1/weights"])
    assert list((tmp_path / "runs" / "one run").iterdir()) == []


@pytest.mark.parametrize("size", [0, 1, CHUNK, CHUNK + 1, 3 * CHUNK + 7])
def test_a_file_of_any_size_comes_back_with_its_hash(folder: Folder, tmp_path: Path, size: int) -> None:
    source = tmp_path / "source"
    source.write_bytes(hashlib.sha256(b"seed").digest() * (size // 32 + 1))
    with source.open("r+b") as file:
        file.truncate(size)
    sent = folder.upload(source, "deep/weights")
    received = folder.download("deep/weights", tmp_path / "far" / "copy")
    assert sent == received
    assert sent.size == size
    assert sent.sha256 == hashlib.sha256(source.read_bytes()).hexdigest()
    assert (tmp_path / "far" / "copy").read_bytes() == source.read_bytes()


def test_on_one_disk_a_file_is_linked_again_and_again_and_outlives_its_source(tmp_path: Path) -> None:
    folder = disk_folder(tmp_path)
    source = tmp_path / "source"
    source.write_bytes(b"weights")
    for _ in range(2):
        folder.upload(source, "deep/weights")
    stored = tmp_path / "runs" / "one run" / "deep" / "weights"
    assert stored.samefile(source)
    assert list(stored.parent.iterdir()) == [stored]
    source.unlink()
    assert folder.read("deep/weights").data == b"weights"  # type: ignore[union-attr]


def test_from_another_disk_a_file_is_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(source: Path, target: Path) -> None:
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))

    monkeypatch.setattr(os, "link", refuse)
    folder = disk_folder(tmp_path)
    (tmp_path / "source").write_bytes(b"weights")
    digest = folder.upload(tmp_path / "source", "weights")
    assert digest == folder.download("weights", tmp_path / "copy")
    assert not (tmp_path / "runs" / "one run" / "weights").samefile(tmp_path / "source")


def test_a_directory_comes_back_as_it_was(folder: Folder, tmp_path: Path) -> None:
    for name in ("a", "deep/b", "deep/er/c"):
        (tmp_path / "out" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "out" / name).write_text(name)
    sent = folder.upload_all(tmp_path / "out", "model")
    assert list(sent) == ["a", "deep/b", "deep/er/c"]
    assert folder.below("model").download_all(sent, tmp_path / "in") == sent
    assert (tmp_path / "in" / "deep" / "er" / "c").read_text() == "deep/er/c"


def test_what_a_killed_writer_left_on_a_disk_is_hidden_and_swept(tmp_path: Path) -> None:
    folder = disk_folder(tmp_path)
    folder.write("checkpoints/a/weights", b"whole")
    torn = tmp_path / "runs" / "one run" / "checkpoints" / "b" / "weights#1"
    torn.parent.mkdir()
    torn.write_bytes(b"half")
    assert list(folder.list()) == ["checkpoints/a/weights"]
    folder.sweep("checkpoints")
    assert not torn.parent.exists()
    assert list(folder.list()) == ["checkpoints/a/weights"]


def test_half_a_file_is_swept_by_the_name_of_the_whole_and_nothing_beside_it(tmp_path: Path) -> None:
    directory = tmp_path / "runs" / "one run"
    directory.mkdir(parents=True)
    for name in ("report.html", "report.html#12", "report.html#1x", "other.html#12"):
        (directory / name).write_bytes(b"")
    disk_folder(tmp_path).sweep("report.html")
    assert sorted(path.name for path in directory.iterdir()) == ["other.html#12", "report.html", "report.html#1x"]


@pytest.mark.parametrize("name", ["weights#1", "deep/weights#123"])
def test_a_name_that_a_disk_would_take_for_half_a_file_is_refused(tmp_path: Path, name: str) -> None:
    folder = disk_folder(tmp_path)
    (tmp_path / "source").write_bytes(b"weights")
    for write in (lambda: folder.upload(tmp_path / "source", name), lambda: folder.write(name, b"weights")):
        with pytest.raises(JobError, match="half-written") as caught:
            write()
        assert caught.value.remedy == "Give the file another name."


def test_a_key_of_a_bucket_is_taken_as_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    assert open_folder("s3://bucket/run#1/a?b", Storage())._at.path == "run#1/a?b"


def test_folders_in_memory_are_shared_by_name() -> None:
    open_folder("memory://shared-by-name/run", Storage()).write("a", b"1")
    assert list(open_folder("memory://shared-by-name", Storage()).list()) == ["run/a"]
    assert open_folder("memory://another-name", Storage()).list() == {}


@pytest.mark.parametrize(
    "uri",
    [
        "runs/one",
        "ftp://host/x",
        "s3://",
        "file://",
        "s3://user:secret@bucket/x",
        "hf://a/b",
        "file:///runs/one#two",
        "file:///runs/one?two",
        "s3://bucket?versioned",
        "s3://bucket#x/runs",
    ],
)
def test_what_is_no_folder_in_a_store_is_refused(uri: str) -> None:
    with pytest.raises(JobError) as caught:
        open_folder(uri, Storage())
    assert caught.value.reason is FailureReason.INVALID_SPEC


def test_a_signal_is_served_while_a_silent_store_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}"
        folder = open_folder("s3://bucket/run", Storage(endpoint=endpoint), patience=100)
        begin = time.monotonic()
        with interrupted(0.3), pytest.raises(Interrupted):
            folder.read("claim.json")
        assert time.monotonic() - begin < 30


PATHS = {
    "a way up": "a/../b",
    "a dot": "./a",
    "an empty part": "a//b",
    "an empty part at the end": "a//",
    "an empty part at the begin": "/a",
    "a line break": "a\nb",
    "a control character": "a\x01b",
    "a deletion": "a\x7f",
}


@pytest.mark.parametrize("place", ["s3://bucket", "gs://bucket", "az://container", "memory://name", "file://"])
@pytest.mark.parametrize("what", PATHS)
def test_a_path_that_stores_cannot_address_is_refused_by_name_before_anything_is_asked(place: str, what: str) -> None:
    for path in (PATHS[what], quote(PATHS[what], safe="") if place == "file://" else PATHS[what]):
        with pytest.raises(JobError) as caught:
            open_folder(f"{place}/{path}", Storage())
        assert caught.value.reason is FailureReason.INVALID_SPEC
        assert repr(f"{place}/{path}") in caught.value.message


@pytest.mark.parametrize(
    "uri", ["file:///", "file://host/a", "file:///a?b", "file:///a#b", "file:///%FF", "s3://", "a/b"]
)
def test_what_is_no_uri_of_a_folder_is_refused(uri: str) -> None:
    with pytest.raises(JobError) as caught:
        open_folder(uri, Storage())
    assert caught.value.reason is FailureReason.INVALID_SPEC


def test_empty_objects_that_show_a_folder_are_no_files(folder: Folder) -> None:
    if folder.uri.startswith("file:"):
        pytest.skip("a disk has folders")
    for name in ("data", "data/deep", "data/deep/er/rows.csv", "data/empty.csv"):
        folder.write(name, b"row" if name.endswith("rows.csv") else b"")
    assert list(folder.list()) == ["data/deep/er/rows.csv", "data/empty.csv"]
    assert list(folder.below("data").list()) == ["deep/er/rows.csv", "empty.csv"]
