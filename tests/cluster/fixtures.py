"""The real servers as pytest fixtures, loaded by tests/conftest.py.

Each starts at its first use, once a test process, or once a folder: with pytest-xdist each worker has its own, so tests need no
order. What they are made of is imported only then, so that unit tests neither wait for it nor need it installed.
"""

from __future__ import annotations

import contextlib
import os
import uuid
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.cluster.azure import AzureServer
    from tests.cluster.control_plane import ControlPlane
    from tests.cluster.s3 import S3Server

REPOSITORY = Path(__file__).parents[2]


def running_control_plane() -> Iterator[ControlPlane]:
    """A real API server with the project's CRDs, the controllers that Jobs need, and an audit log of who asked for what.

    It takes a part of a core even where nobody asks it anything. So each folder whose tests do makes it a fixture of that folder,
    `control_plane`, which ends with its tests; `tests/conftest.py` gives these to one worker.
    """
    from tests.cluster.control_plane import CONTROLLERS, ControlPlane

    require_program("kube-controller-manager")
    manifests = sorted((REPOSITORY / "crds").glob("*.yaml"))
    with ControlPlane(controllers=CONTROLLERS, manifests=manifests, audit="Metadata") as cluster:
        yield cluster


@pytest.fixture
def namespace(control_plane: ControlPlane) -> Iterator[str]:
    with namespace_of_its_own(control_plane) as name:
        yield name


@contextlib.contextmanager
def namespace_of_its_own(cluster: ControlPlane) -> Iterator[str]:
    """A new namespace, under restricted Pod Security. Deleted afterwards without waiting for it."""
    name = f"test-{uuid.uuid4().hex[:10]}"
    cluster.make_namespace(name, {"pod-security.kubernetes.io/enforce": "restricted"})
    yield name
    cluster.api.delete(f"/api/v1/namespaces/{name}")


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3Server]:
    """A real S3 server; make buckets of your own in it."""
    from tests.cluster.s3 import S3Server

    with S3Server() as server:
        yield server


@pytest.fixture(scope="session")
def azure_server() -> Iterator[AzureServer]:
    """A real server of Azure's blob storage; make containers of your own in it."""
    from tests.cluster.azure import AzureServer
    from tests.cluster.npm_packages import provide_package

    _or_skip(lambda: provide_package("azurite"))
    with AzureServer() as server:
        yield server


def require_program(name: str) -> Path:
    """The program's path. Where it can be neither found nor built, the test is skipped with the reason; under CI it fails."""
    from tests.cluster.binaries import provide

    return _or_skip(lambda: provide(name)[name])


def _or_skip(provide: Callable[[], Path]) -> Path:
    from tests.cluster.binaries import BinaryUnavailable

    try:
        return provide()
    except BinaryUnavailable as error:
        if os.environ.get("CI", "").lower() in ("1", "true"):
            raise
        warnings.warn(f"Skipped, so not shown by this run: {error}", stacklevel=2)
        pytest.skip(str(error))
