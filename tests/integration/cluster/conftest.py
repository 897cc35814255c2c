from __future__ import annotations

import pytest

from tests.cluster.fixtures import running_control_plane

control_plane = pytest.fixture(scope="package")(running_control_plane)
