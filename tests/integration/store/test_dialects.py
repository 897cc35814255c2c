"""Stores that are not AWS: no conditional writes, buckets in host names. What holds elsewhere holds there."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from finetune_api.failures import FailureReason, JobError
from finetune_api.job import Storage
from finetune_trainer.store.folder import Folder, open_folder
from finetune_trainer.store.register import register
from finetune_trainer.store.trial import with_its_conditions
from tests.cluster.s3 import S3Server
from tests.integration.store.dialects import DIALECTS, SAID
from tests.integration.store.gateway import Gateway
from tests.integration.store.lives import live_and_die
from tests.integration.store.test_killed import kill_again_and_again
from tests.storage.claims import ClaimSuite


@pytest.fixture
def dialect(request: pytest.FixtureRequest) -> str:
    return str(getattr(request, "param", "oss"))


@pytest.fixture
def there(dialect: str, s3_server: S3Server, storage: Storage, monkeypatch: pytest.MonkeyPatch) -> Iterator[Storage]:
    """How the store is reached that speaks `dialect`."""
    speaks = DIALECTS[dialect]
    with Gateway(s3_server, speaks, speaks.answered) as gateway:
        endpoint = gateway.endpoint
        if speaks.host is not None:
            # No resolver knows its names; the gateway takes requests for all of them, as a proxy does.
            monkeypatch.setenv("HTTP_PROXY", gateway.endpoint)
            endpoint = f"http://{speaks.host}"
        yield storage.model_copy(update={"endpoint": endpoint})


@pytest.fixture
def folder(there: Storage, bucket: str) -> Folder:
    return with_its_conditions(open_folder(f"s3://{bucket}/team/run one", there))


ONE_AND_IN_THE_LONG_RUN_ALL = [
    "oss",
    *(pytest.param(name, marks=pytest.mark.soak) for name in DIALECTS if name != "oss"),
]


@pytest.mark.parametrize("dialect", ONE_AND_IN_THE_LONG_RUN_ALL, indirect=True)
class TestClaims(ClaimSuite):
    pass


@pytest.mark.parametrize("dialect", DIALECTS, indirect=True)
def test_what_a_store_can_do_is_found_out_and_said_and_of_many_writers_one_wins(
    dialect: str, there: Storage, bucket: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    folder = with_its_conditions(open_folder(f"s3://{bucket}/run", there))
    assert f"is ensured by {SAID[dialect]}." in caplog.text
    assert ("where they lag, two jobs" in caplog.text) == SAID[dialect].endswith("listings")
    assert ("in the host's name" in caplog.text) <= (DIALECTS[dialect].host is not None)
    writers = [register(folder, "claim.json") for _ in range(4)]
    reader = register(folder, "claim.json")
    with ThreadPoolExecutor(4) as pool:
        for round_ in range(4):
            read = reader.read()

            def write(who: int, read=read, round_=round_):  # type: ignore[no-untyped-def]
                file, text = writers[who], f"{round_} {who}".encode()
                return text if (file.replace(text, read.version) if read else file.create(text)) else None

            won = [text for text in pool.map(write, range(4)) if text is not None]
            found = reader.read()
            if won:
                assert won == [found.data]  # type: ignore[union-attr]
            else:
                assert SAID[dialect].endswith("listings"), "nobody won, where somebody must"
            if read is not None and won:
                assert writers[0].replace(b"late", read.version) is None


def test_old_numbers_are_deleted_and_one_who_comes_late_with_one_of_these_gives_way(folder: Folder) -> None:
    file = register(folder, "claim.json")
    version = file.create(b"1")
    for number in range(2, 6):
        assert version is not None
        version = file.replace(str(number).encode(), version)
    assert list(folder.list("claim.json.d")) == ["claim.json.d/000000000005"]
    assert file._write(3, b"late") is None  # type: ignore[attr-defined]
    assert file.read().data == b"5"  # type: ignore[union-attr]


@pytest.mark.parametrize("dialect", ["oss"], indirect=True)
def test_the_path_style_that_was_asked_for_is_not_changed_behind_ones_back(there: Storage, bucket: str) -> None:
    explicit = there.model_copy(update={"addressing": "path"})
    with pytest.raises(JobError) as caught:
        open_folder(f"s3://{bucket}/run", explicit, patience=1).read("a")
    assert caught.value.reason is FailureReason.STORAGE_DENIED
    assert "cannot be reached with its bucket in the path (SecondLevelDomainForbidden)" in caught.value.message
    assert caught.value.remedy == "Set spec.storage.addressing to virtualHost, or leave it out."
    folder = open_folder(f"s3://{bucket}/run", there.model_copy(update={"addressing": "virtualHost"}))
    folder.write("a", b"1")
    assert list(folder.list()) == ["a"]


@pytest.mark.soak
@pytest.mark.parametrize("dialect", DIALECTS, indirect=True)
def test_after_each_kill_the_next_attempt_goes_on_from_the_last_step_that_was_saved(
    there: Storage, bucket: str, tmp_path: Path
) -> None:
    kill_again_and_again(f"s3://{bucket}/run", there, tmp_path, size=4 << 20)


@pytest.mark.soak
@pytest.mark.parametrize("dialect", DIALECTS, indirect=True)
def test_a_run_is_killed_goes_on_is_finished_and_adopted_with_all_it_reads_and_writes_there(
    dialect: str, there: Storage, bucket: str, tmp_path: Path
) -> None:
    log = live_and_die(f"s3://{bucket}", there, tmp_path)
    assert f"is ensured by {SAID[dialect]}." in log
