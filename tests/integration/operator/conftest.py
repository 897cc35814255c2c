"""Labs: with one operator for all tests of a module, or with none yet."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.cluster.control_plane import ControlPlane
from tests.cluster.fixtures import running_control_plane
from tests.integration.operator.lab import Account, Lab, SharedOperator, Site

control_plane = pytest.fixture(scope="package")(running_control_plane)


@pytest.fixture(scope="module")
def site(control_plane: ControlPlane) -> Iterator[Site]:
    site = Site(control_plane)
    with site.kubelet:
        yield site


@pytest.fixture(scope="module")
def shared_operator(site: Site, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SharedOperator]:
    shared = SharedOperator(Account(site.cluster, None), tmp_path_factory.mktemp("operator"))
    yield shared
    shared.stop()


@pytest.fixture
def lab(site: Site, shared_operator: SharedOperator, namespace: str) -> Lab:
    """A namespace in which an operator works."""
    shared_operator.start()
    return Lab(site, namespace, shared_operator.account)


@pytest.fixture
def own_lab(site: Site, shared_operator: SharedOperator, namespace: str) -> Lab:
    """A namespace without an operator: the test starts and stops its own, by `operating(own_lab.account, …)`."""
    shared_operator.stop()
    return Lab(site, namespace, Account(site.cluster, namespace))
