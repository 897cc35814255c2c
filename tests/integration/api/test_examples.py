"""The real API server takes every manifest in examples/."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.unit.examples.manifests import MANIFESTS, in_a_cluster, name_of


@pytest.mark.parametrize("file", MANIFESTS, ids=name_of)
def test_the_api_server_takes_it(server: Any, file: Path) -> None:
    assert server.refusal(in_a_cluster(file)) == ""
