"""Labs: with one operator for all tests of a module, or with none yet."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.control_plane import ControlPlane
from tests.integration.operator.lab import Account, Lab, Site, operating


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


class SharedOperator:
    """Runs for all namespaces, from one test to the next that wants it: it would also work where a test has its own."""

    def __init__(self, account: Account, folder: Path) -> None:
        self.account = account
        self._folder = folder
        self._running = contextlib.ExitStack()
        self._is_running = False

    def start(self) -> None:
        if not self._is_running:
            self._running.enter_context(operating(self.account, self._folder))
            self._is_running = True

    def stop(self) -> None:
        self._is_running = False
        self._running.close()
