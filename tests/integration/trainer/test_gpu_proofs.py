"""What is proved on a GPU runs on a CPU too, on small shapes: so it is known to run before a GPU is at hand."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.gpu import proofs
from tests.gpu.__main__ import NAMES
from tests.gpu.proofs import Here

BY_COMMAND = "packs"


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Here:
    return Here(tiny=True, scratch=tmp_path_factory.mktemp("proofs"))


@pytest.mark.parametrize("name", [name for name in NAMES if name != BY_COMMAND])
def test_it_holds(name: str, here: Here) -> None:
    assert not list(getattr(proofs, name)(here))


def test_the_command_runs_a_proof() -> None:
    command = [sys.executable, "-m", "tests.gpu", BY_COMMAND, "--tiny"]
    done = subprocess.run(command, check=False, capture_output=True, text=True, cwd=Path(__file__).parents[3])
    assert done.returncode == 0, done.stderr
    assert "all of it holds" in done.stderr
    assert '"proof packs"' in done.stdout


def test_what_does_not_hold_is_said(
    here: Here, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    from tests.gpu.__main__ import alone

    monkeypatch.setattr(proofs, BY_COMMAND, lambda here: iter(["a loss is off"]))
    assert alone(BY_COMMAND, here.scratch, tiny=True) == 1
    assert "packs: a loss is off" in capfd.readouterr().err
