"""The owner of a local run: the same each time, and another wherever a second run could be under way at the same moment."""

from __future__ import annotations

import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest

from finetune_operator.worlds.local.identity import identity


def machine(root: Path, number: str, file: str = "etc/machine-id") -> Path:
    (root / file).parent.mkdir(parents=True)
    (root / file).write_text(f"{number}\n")
    return root


def test_it_is_the_same_each_time_however_the_machine_is_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = machine(tmp_path / "root", "5eaf00d")
    first = identity(tmp_path / "state", root)
    monkeypatch.setattr(os, "uname", lambda: SimpleNamespace(nodename="renamed"))
    assert identity(tmp_path / "state", root) == first
    assert identity(tmp_path / "root/../state", root) == first


def test_it_is_another_for_each_state_folder_user_and_machine_though_they_have_one_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, other = (
        machine(tmp_path / "root", "5eaf00d"),
        machine(tmp_path / "other", "ca11ab1e", "var/lib/dbus/machine-id"),
    )
    found = [identity(tmp_path / "one", root), identity(tmp_path / "two", root), identity(tmp_path / "one", other)]
    # in another container of the same image, at the same path
    shutil.rmtree(tmp_path / "one")
    found.append(identity(tmp_path / "one", root))
    monkeypatch.setattr(os, "getuid", lambda: 4711)
    found.append(identity(tmp_path / "one", root))
    # over a network, on a machine without an id
    found.append(identity(tmp_path / "one", tmp_path / "none"))
    monkeypatch.setattr(os, "uname", lambda: SimpleNamespace(nodename="another"))
    found.append(identity(tmp_path / "one", tmp_path / "none"))
    assert len(set(found)) == 7


def test_of_many_at_once_in_a_new_state_folder_all_find_the_same(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(lambda _: identity(tmp_path / "state"), range(32)))) == 1
    assert [file.name for file in (tmp_path / "state").iterdir()] == ["identity"]


def test_where_nothing_can_be_kept_it_is_still_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert identity(tmp_path / "file/state") == identity(tmp_path / "file/state")
