"""The images of the end-to-end test: built when something in them has changed, and not where they would not fit."""

from __future__ import annotations

import os
import shutil
from collections import namedtuple
from pathlib import Path

import pytest

from tests.cluster import images, node

Usage = namedtuple("Usage", "total used free")


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of what goes into the images, to change."""
    for name in (*images.SOURCES, *images.PACKAGES, "images"):
        source, target = images.REPOSITORY / name, tmp_path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target)
        else:
            shutil.copy(source, target)
    monkeypatch.setattr(images, "REPOSITORY", tmp_path)
    return tmp_path


def test_too_little_disk_is_said_before_anything_is_installed_or_built(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    monkeypatch.setenv("FINETUNE_CACHE", str(tmp_path))
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    for step in ("ensure_packages", "provide", "build_images", "ensure_images"):
        monkeypatch.setattr(node, step, lambda *_, step=step: done.append(step))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(100e9, 80e9, 20e9))
    with pytest.raises(SystemExit, match=r"takes up to 25 GB and .* has 20 GB free"):
        node.run_with_node(["true"])
    assert done == []


def test_an_unchanged_tree_has_the_same_images(tree: Path) -> None:
    assert images.wanted_images() == images.wanted_images()


def test_a_change_of_the_code_makes_both_images_anew_and_not_the_pause_image(tree: Path) -> None:
    before = images.wanted_images()
    (tree / "crds/finetune_api/__init__.py").write_text("changed = True\n")
    after = images.wanted_images()
    assert (before.operator != after.operator, before.trainer != after.trainer, before.pause == after.pause) == (
        True,
    ) * 3


def test_a_change_of_a_dockerfile_makes_its_image_anew(tree: Path) -> None:
    before = images.wanted_images()
    (tree / "images/trainer/Dockerfile").write_text("FROM scratch\n")
    after = images.wanted_images()
    assert (before.operator == after.operator, before.trainer != after.trainer) == (True, True)


def test_compiled_python_does_not_count(tree: Path) -> None:
    before = images.wanted_images()
    (tree / "crds/finetune_api/__pycache__").mkdir(exist_ok=True)
    (tree / "crds/finetune_api/__pycache__/x.pyc").write_bytes(b"\0\xff")
    assert images.wanted_images() == before
