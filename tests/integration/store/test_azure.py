"""What holds on S3 holds on Azure: who may write, what a kill leaves, and the life of a run. On a real server of its protocol."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from finetune_api.failures import FailureReason, JobError
from finetune_api.job import Storage
from finetune_trainer.store.conditions import STANDARD
from finetune_trainer.store.folder import Folder, open_folder
from finetune_trainer.store.trial import with_its_conditions
from tests.cluster.azure import AzureServer
from tests.integration.store.gateway import Gateway
from tests.integration.store.lives import live_and_die
from tests.integration.store.test_killed import kill_again_and_again
from tests.storage.claims import ClaimSuite


@pytest.fixture
def storage(azure_server: AzureServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[Storage]:
    with Gateway(azure_server.address) as gateway:
        for name, value in {**azure_server.env(), "HTTP_PROXY": gateway.endpoint}.items():
            monkeypatch.setenv(name, value)
        yield Storage(endpoint=azure_server.endpoint)


@pytest.fixture
def container(azure_server: AzureServer) -> str:
    return f"az://{azure_server.make_container(f'models-{uuid.uuid4().hex[:8]}')}"


@pytest.fixture
def folder(storage: Storage, container: str) -> Folder:
    return with_its_conditions(open_folder(f"{container}/team/run one", storage))


@pytest.mark.soak
class TestClaims(ClaimSuite):
    pass


def test_its_conditional_writes_are_found(folder: Folder) -> None:
    assert folder.conditions == STANDARD


@pytest.mark.soak
def test_after_each_kill_the_next_attempt_goes_on_from_the_last_step_that_was_saved(
    storage: Storage, container: str, tmp_path: Path
) -> None:
    kill_again_and_again(f"{container}/run", storage, tmp_path, size=2 << 20)


@pytest.mark.soak
def test_a_run_is_killed_goes_on_is_finished_and_adopted_with_all_it_reads_and_writes_there(
    storage: Storage, container: str, tmp_path: Path
) -> None:
    assert "is ensured by conditional writes." in live_and_die(container, storage, tmp_path)


@pytest.mark.parametrize(
    ("uri", "key", "says"),
    [
        ("az://absent/run", None, "there is no bucket absent"),
        (None, "bm90LXRoZS1rZXk=", "the account refuses this key"),
    ],
)
def test_its_refusals_read_well(
    storage: Storage, container: str, uri: str | None, key: str | None, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if key:
        monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", key)
    with pytest.raises(JobError) as caught:
        open_folder(uri or f"{container}/run", storage, patience=1).write("a", b"")
    assert caught.value.reason is FailureReason.STORAGE_DENIED
    assert says in caught.value.message
