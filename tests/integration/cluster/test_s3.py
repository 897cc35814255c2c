"""The S3 server keeps what it is given, and obeys the conditional writes that claims are built on."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import obstore
import pytest
from obstore.exceptions import AlreadyExistsError, BaseError, PreconditionError
from obstore.store import S3Store

from tests.cluster.s3 import S3Server


@pytest.fixture
def store(s3_server: S3Server, request: pytest.FixtureRequest) -> S3Store:
    bucket = "test-" + str(abs(hash(request.node.nodeid)))
    return s3_server.store(s3_server.make_bucket(bucket), prefix="runs/one")


def content(store: S3Store, key: str) -> bytes:
    return bytes(obstore.get(store, key).bytes())


def test_an_object_reads_back_as_written(store: S3Store) -> None:
    large = bytes(range(256)) * 64 * 1024  # 16 MiB: several parts
    obstore.put(store, "a/large", large, chunk_size=5 * 1024 * 1024)
    assert content(store, "a/large") == large
    assert [entry["path"] for batch in obstore.list(store) for entry in batch] == ["a/large"]
    obstore.delete(store, "a/large")
    with pytest.raises(FileNotFoundError):
        obstore.get(store, "a/large")


def test_creating_an_object_that_exists_is_refused_and_changes_nothing(store: S3Store) -> None:
    obstore.put(store, "claim.json", b"first", mode="create")
    with pytest.raises(AlreadyExistsError):
        obstore.put(store, "claim.json", b"second", mode="create")
    assert content(store, "claim.json") == b"first"


def test_of_many_who_create_at_once_one_wins(store: S3Store) -> None:
    def create(number: int) -> bool:
        try:
            obstore.put(store, "claim.json", str(number).encode(), mode="create")
        except AlreadyExistsError:
            return False
        return True

    with ThreadPoolExecutor(16) as pool:
        winners = [number for number, won in enumerate(pool.map(create, range(64))) if won]
    assert [str(number).encode() for number in winners] == [content(store, "claim.json")]


def test_an_update_succeeds_only_from_the_version_it_names(store: S3Store) -> None:
    first = obstore.put(store, "claim.json", b"first")
    second = obstore.put(store, "claim.json", b"second", mode={"e_tag": first["e_tag"]})
    assert content(store, "claim.json") == b"second"
    with pytest.raises(PreconditionError):
        obstore.put(store, "claim.json", b"late", mode={"e_tag": first["e_tag"]})
    assert content(store, "claim.json") == b"second"
    assert obstore.head(store, "claim.json")["e_tag"] == second["e_tag"]


def test_of_many_who_update_one_version_one_wins(store: S3Store) -> None:
    first = obstore.put(store, "claim.json", b"first")

    def update(number: int) -> bool:
        try:
            obstore.put(store, "claim.json", str(number).encode(), mode={"e_tag": first["e_tag"]})
        except PreconditionError:
            return False
        return True

    with ThreadPoolExecutor(16) as pool:
        winners = [number for number, won in enumerate(pool.map(update, range(64))) if won]
    assert [str(number).encode() for number in winners] == [content(store, "claim.json")]


def test_updating_an_object_that_is_gone_is_refused(store: S3Store) -> None:
    gone = obstore.put(store, "claim.json", b"first")
    obstore.delete(store, "claim.json")
    with pytest.raises(PreconditionError):
        obstore.put(store, "claim.json", b"second", mode={"e_tag": gone["e_tag"]})
    with pytest.raises(FileNotFoundError):
        obstore.head(store, "claim.json")


def test_wrong_credentials_are_refused(s3_server: S3Server, store: S3Store) -> None:
    stranger = S3Store(
        store.config["bucket"],
        endpoint=s3_server.endpoint,
        region=s3_server.region,
        access_key_id=s3_server.access_key,
        secret_access_key="wrong",
        client_options={"allow_http": True},
    )
    with pytest.raises(BaseError, match="403"):
        obstore.put(stranger, "claim.json", b"mine")


def test_the_environment_is_enough_for_a_client(
    s3_server: S3Server, store: S3Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in s3_server.env().items():
        monkeypatch.setenv(name, value)
    obstore.put(store, "seen", b"yes")
    assert content(S3Store(store.config["bucket"], prefix="runs/one"), "seen") == b"yes"
