"""What a store can do is found out rightly also when many ask at once, and when its answers get lost."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from finetune_api.job import Storage
from finetune_trainer.store.conditions import STANDARD
from finetune_trainer.store.folder import Folder, Version, open_folder
from finetune_trainer.store.trial import with_its_conditions
from tests.storage.faults import FaultyFolder
from tests.storage.saves import memory_folder


@pytest.mark.parametrize("where", ["memory", "file"])
def test_many_who_ask_at_once_are_all_told_the_same(where: str, tmp_path: Path) -> None:
    folder = memory_folder() if where == "memory" else open_folder((tmp_path / "run").as_uri(), Storage())
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: with_its_conditions(folder).conditions, range(24)))
    assert found == [STANDARD] * 24


class NeverAsRead(FaultyFolder):
    """A proxy changes the ETags on the way, so that none is what it was."""

    def replace(self, name: str, data: bytes, version: Version) -> Version | None:
        return None


class HeedlessOfIfMatch(FaultyFolder):
    def replace(self, name: str, data: bytes, version: Version) -> Version | None:
        self.write(name, data)
        return version


class HeedlessOfAll(HeedlessOfIfMatch):
    def create(self, name: str, data: bytes) -> Version | None:
        self.write(name, data)
        return Version(None, None)


@pytest.mark.parametrize(
    ("store", "problem"),
    [
        (NeverAsRead, "does not replace files as they were read"),
        (HeedlessOfIfMatch, "overwrites files in spite of If-Match"),
        (HeedlessOfAll, "overwrites files in spite of If-None-Match"),
    ],
)
def test_a_store_that_takes_conditions_and_does_as_it_likes_is_not_trusted(
    store: type[FaultyFolder], problem: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    folder: Folder = store(memory_folder())
    assert not with_its_conditions(folder).conditions.standard
    assert f"The store of {folder.uri} {problem}." in caplog.text
