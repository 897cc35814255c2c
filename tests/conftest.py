"""Fixtures for all tests: the real servers of tests/cluster."""

import os

import pytest

# For torch in each of several workers, and in what they start: equal numbers need equal threads, and two of one worker, which wait for
# each other actively, would wait for a core that another has. Read once, when torch is imported.
os.environ["OMP_NUM_THREADS"] = "1"

pytest_plugins = ["tests.cluster.fixtures"]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Refuse parameters that have no order: each worker would collect the tests in another one, and none would run."""
    for marker in metafunc.definition.iter_markers("parametrize"):
        names, values = marker.args[:2]
        if isinstance(values, (set, frozenset)):
            raise pytest.UsageError(
                f"{metafunc.definition.nodeid}: {names} come from a set, which has no order. Take a list."
            )
