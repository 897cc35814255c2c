"""Labs: with one operator for all tests of a module, or with none yet."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.cluster.control_plane import ControlPlane
from tests.integration.operator.lab import Account, Lab, Site, operating


@pytest.fixture(scope="module")
def site(control_plane: ControlPlane) -> Iterator[Site]:
    site = Site(control_plane)
    with site.kubelet:
        yield site


@pytest.fixture(scope="module")
def operator(site: Site, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Account]:
    """Runs for all namespaces, as this account."""
    account = Account(site.cluster, None)
    with operating(account, tmp_path_factory.mktemp("operator")):
        yield account


@pytest.fixture
def lab(site: Site, operator: Account, namespace: str) -> Lab:
    """A namespace in which an operator works."""
    return Lab(site, namespace, operator)


@pytest.fixture
def own_lab(site: Site, namespace: str) -> Lab:
    """A namespace without an operator: the test starts and stops its own, by `operating(own_lab.account, …)`."""
    return Lab(site, namespace, Account(site.cluster, namespace))
