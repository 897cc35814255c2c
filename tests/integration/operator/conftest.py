"""One lab a test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.control_plane import ControlPlane
from tests.integration.operator.lab import Lab


@pytest.fixture
def empty_lab(control_plane: ControlPlane, namespace: str, tmp_path: Path) -> Lab:
    """Nothing runs in it yet."""
    return Lab(control_plane, namespace, tmp_path)


@pytest.fixture
def lab(empty_lab: Lab) -> Iterator[Lab]:
    """Operator and kubelet run."""
    with empty_lab.kubelet(), empty_lab.operator():
        yield empty_lab
