"""A cluster for the tests of releases: the kind is one for all namespaces, and comes and goes there."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.cluster.control_plane import ControlPlane
from tests.cluster.fixtures import require_program, running_control_plane
from tests.integration.chart.site import Site

control_plane = pytest.fixture(scope="package")(running_control_plane)


@pytest.fixture(scope="module")
def kindless() -> Iterator[ControlPlane]:
    require_program("kube-apiserver")
    with ControlPlane() as cluster:
        yield cluster


@pytest.fixture
def site(kindless: ControlPlane) -> Iterator[Site]:
    site = Site(kindless)
    yield site
    site.clean()
