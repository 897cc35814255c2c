"""The store on a real S3 server: what holds in memory and on a disk holds there, and its refusals read well."""

from __future__ import annotations

import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from finetune_api.failures import FailureReason, JobError
from finetune_api.job import Storage
from finetune_api.result import Result
from finetune_api.run import RunIdentity
from finetune_trainer.store.checkpoints import Checkpoints
from finetune_trainer.store.claim import Claim
from finetune_trainer.store.folder import CHUNK, Folder, open_folder
from finetune_trainer.store.run_folder import RunFolder
from tests.cluster.s3 import S3Server
from tests.integration.store.gateway import Answer, Gateway, Rule
from tests.integration.store.proxy import Proxy
from tests.storage.saves import FINGERPRINT, checkpoints_of, make, save, step_in


def test_a_run_goes_from_nothing_to_its_result_and_is_found_finished(folder: Folder, tmp_path: Path) -> None:
    run_folder = RunFolder(folder, RunIdentity(id="run one", uri=folder.uri, fingerprint=FINGERPRINT))
    assert run_folder.finished() is None
    with Claim.take(folder, owner="team/job/1", holder="pod-1") as claim:
        number = run_folder.begin_attempt("pod-1")
        with Checkpoints(folder, fingerprint=FINGERPRINT, keep=2, may_write=claim.check) as checkpoints:
            assert checkpoints.resume(tmp_path / "state", tmp_path / "best") is None
            for step, best in {10: True, 20: False, 30: False}.items():
                save(checkpoints, tmp_path, step, best=best, size=2 * CHUNK + 8)
                checkpoints.flush()
    with Claim.take(folder, owner="team/job/1", holder="pod-2") as claim:
        assert run_folder.begin_attempt("pod-2") == number + 1
        with checkpoints_of(folder) as checkpoints:
            assert checkpoints.resume(tmp_path / "state", tmp_path / "best").step == 30  # type: ignore[union-attr]
        assert (step_in(tmp_path / "state"), step_in(tmp_path / "best")) == (30, 10)
        run_folder.save_attempt(2, {"log.txt": b"a line"})
        written = run_folder.promote(
            make(tmp_path / "results", 30),
            Result(outcome="succeeded", run_id="run one", uri=folder.uri, owner="team/job/1", fingerprint=FINGERPRINT),
            may_write=claim.check,
        )
    assert run_folder.finished() == written
    kept = {"/".join(name.split("/")[:2]) for name in folder.list("checkpoints")}
    assert kept == {"checkpoints/step-20-attempt-1", "checkpoints/step-30-attempt-1"}
    run_folder.clean()
    kept = {name.split("/")[0] for name in folder.list()}
    assert kept == {"attempts", "claim.json", "deep", "result.json", "weights.bin"}


def test_of_many_who_create_or_replace_a_file_at_once_exactly_one_wins(folder: Folder) -> None:
    with ThreadPoolExecutor(8) as pool:
        for round_ in range(5):
            won = [v for v in pool.map(lambda who, n=round_: folder.create(f"{n}", b"%d" % who), range(8)) if v]
            assert len(won) == 1
            version = won[0]
            won = [
                v
                for v in pool.map(lambda who, n=round_, v=version: folder.replace(f"{n}", b"r%d" % who, v), range(8))
                if v
            ]
            assert len(won) == 1
            assert folder.replace(f"{round_}", b"late", version) is None


@pytest.mark.parametrize("name", ["with space é.txt", "100%25.csv", "a+b=c&d.txt", "[x]#y.json"])
def test_any_name_is_read_listed_and_deleted_as_written(folder: Folder, name: str) -> None:
    folder.write(name, b"content")
    assert folder.read(name).data == b"content"  # type: ignore[union-attr]
    assert list(folder.list()) == [name]
    folder.delete([name, "absent"])
    assert folder.list() == {}


def test_more_files_than_one_page_or_one_request_holds_are_listed_and_deleted(folder: Folder) -> None:
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda n: folder.write(f"many/{n}", b""), range(1100)))
    assert len(folder.list("many")) == 1100
    folder.delete(folder.list("many"))
    assert folder.list() == {}


def refusal(uri: str, storage: Storage, patience: float = 1) -> JobError:
    with pytest.raises(JobError) as caught:
        open_folder(uri, storage, patience=patience).read("claim.json")
    assert uri in caught.value.message
    return caught.value


def test_wrong_keys_are_told_apart(
    storage: Storage, s3_server: S3Server, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = f"s3://{bucket}/run"
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "not-the-secret")
    wrong_secret = refusal(uri, storage)
    assert wrong_secret.reason is FailureReason.STORAGE_DENIED
    assert "the secret key does not fit the access key" in wrong_secret.message
    assert "not-the-secret" not in wrong_secret.message
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "nobody")
    wrong_key = refusal(uri, storage)
    assert wrong_key.reason is FailureReason.STORAGE_DENIED
    assert "it does not know the access key" in wrong_key.message
    assert "spec.storage.secretRef" in wrong_key.remedy


def test_missing_keys_are_named_at_once(storage: Storage, bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    error = refusal(f"s3://{bucket}/run", storage, patience=60)
    assert error.reason is FailureReason.STORAGE_DENIED
    assert "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY" in error.message
    assert error.field == "spec.storage.secretRef"


@pytest.mark.parametrize("operation", ["read", "write", "create", "list", "upload", "delete"])
def test_a_missing_bucket_is_named_whatever_is_asked_of_it(storage: Storage, tmp_path: Path, operation: str) -> None:
    folder = open_folder("s3://absent-bucket/run", storage, patience=1)
    (tmp_path / "file").write_bytes(b"1")
    ask = {
        "read": lambda: folder.read("a"),
        "write": lambda: folder.write("a", b""),
        "create": lambda: folder.create("a", b""),
        "list": lambda: folder.list(),
        "upload": lambda: folder.upload(tmp_path / "file", "a"),
        "delete": lambda: folder.delete(["a"]),
    }[operation]
    with pytest.raises(JobError) as caught:
        ask()
    assert caught.value.reason is FailureReason.STORAGE_DENIED
    assert f"there is no bucket absent-bucket at {storage.endpoint}" in caught.value.message
    assert "Create the bucket" in caught.value.remedy


def test_a_wrong_region_names_the_right_one(storage: Storage, bucket: str) -> None:
    error = refusal(f"s3://{bucket}/run", storage.model_copy(update={"region": "eu-west-1"}))
    assert (error.reason, error.field) == (FailureReason.STORAGE_DENIED, "spec.storage.region")
    assert error.remedy == "Set spec.storage.region to us-east-1."


def test_an_endpoint_that_refuses_is_given_up_after_the_patience(storage: Storage, bucket: str) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{nobody.getsockname()[1]}"
        begin = time.monotonic()
        error = refusal(f"s3://{bucket}/run", storage.model_copy(update={"endpoint": endpoint}), patience=1.5)
    assert 1 < time.monotonic() - begin < 60
    assert error.reason is FailureReason.STORAGE_UNAVAILABLE
    assert error.message == f"s3://{bucket}/run/claim.json at {endpoint} cannot be reached: the connection was refused"


def test_an_endpoint_that_is_silent_is_given_up_after_the_patience(storage: Storage, bucket: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}"
        begin = time.monotonic()
        error = refusal(f"s3://{bucket}/run", storage.model_copy(update={"endpoint": endpoint}), patience=1.5)
    assert time.monotonic() - begin < 60
    assert "it did not answer in time" in error.message


def test_a_host_without_an_address_is_named(storage: Storage, bucket: str) -> None:
    error = refusal(f"s3://{bucket}/run", storage.model_copy(update={"endpoint": "http://no-such-host.invalid:9000"}))
    assert error.reason is FailureReason.STORAGE_UNAVAILABLE
    assert "http://no-such-host.invalid:9000 cannot be reached: the host's name is unknown" in error.message


def test_https_to_a_server_without_it_is_said_without_trying_for_long(storage: Storage, bucket: str) -> None:
    endpoint = str(storage.endpoint).replace("http://", "https://")
    begin = time.monotonic()
    error = refusal(f"s3://{bucket}/run", storage.model_copy(update={"endpoint": endpoint}), patience=600)
    assert time.monotonic() - begin < 60
    assert "it does not speak https at this port" in error.message


def test_an_outage_in_the_middle_of_a_commit_is_outlasted(
    s3_server: S3Server, storage: Storage, bucket: str, tmp_path: Path
) -> None:
    with Proxy(s3_server.endpoint) as proxy:
        folder = open_folder(f"s3://{bucket}/run", storage.model_copy(update={"endpoint": proxy.endpoint}))
        checkpoints = checkpoints_of(folder)
        under_way = proxy.hold(r"^(PUT|POST) .*/checkpoints/step-")
        save(checkpoints, tmp_path, 10, size=40 * CHUNK)
        assert under_way.wait(60)
        proxy.cut()
        proxy.let_go()
        mended = threading.Timer(3, proxy.mend)
        begin = time.monotonic()
        mended.start()
        checkpoints.close()
        assert time.monotonic() - begin > 2  # the outage was in the middle, not after
        assert checkpoints.saved_step() == 10
        assert checkpoints_of(folder).resume(tmp_path / "state", tmp_path / "best") is not None


def listing(*keys: str) -> Rule:
    """A bucket in which others left these objects."""
    found = "".join(
        f'<Contents><Key>{key}</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified><ETag>"e"</ETag><Size>0</Size></Contents>'
        for key in keys
    )
    body = f"<ListBucketResult><IsTruncated>false</IsTruncated>{found}</ListBucketResult>"
    return lambda asked: Answer(200, body.encode()) if "list-type" in asked.query else None


@pytest.mark.parametrize("key", ["run//a.csv", "run/../a.csv", "run/a\nb.csv", "run/\x7f.csv"])
def test_a_key_of_somebody_else_that_cannot_be_addressed_is_named(
    s3_server: S3Server, storage: Storage, bucket: str, key: str
) -> None:
    with Gateway(s3_server, listing(key)) as gateway:
        folder = open_folder(f"s3://{bucket}/run", storage.model_copy(update={"endpoint": gateway.endpoint}))
        with pytest.raises(JobError) as caught:
            folder.list()
    assert caught.value.reason is FailureReason.STORAGE_DENIED
    assert f"below s3://{bucket}/run lies a file whose name cannot be addressed" in caught.value.message
    assert "Rename or delete it" in caught.value.remedy


def test_the_object_that_a_console_makes_for_a_folder_is_no_file(
    s3_server: S3Server, storage: Storage, bucket: str
) -> None:
    with Gateway(s3_server, listing("run/", "run/a.csv", "run/deep/", "run/deep/b.csv")) as gateway:
        folder = open_folder(f"s3://{bucket}/run", storage.model_copy(update={"endpoint": gateway.endpoint}))
        assert list(folder.list()) == ["a.csv", "deep/b.csv"]
