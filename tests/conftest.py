"""Fixtures for all tests: the real servers of tests/cluster."""

import os
import re
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from finetune_trainer.imports import nothing_collected

# For torch in each of several workers, and in what they start: equal numbers need equal threads, and two of one worker, which wait for
# each other actively, would wait for a core that another has. Read once, when torch is imported.
os.environ["OMP_NUM_THREADS"] = "1"

# The same examples each time, however long a busy machine takes for one.
settings.register_profile("tests", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("tests")

pytest_plugins = ["tests.cluster.fixtures"]


WITH_A_CONTROL_PLANE = tuple(f"tests/integration/{folder}/" for folder in ("operator", "api", "chart", "cluster"))
"""The one that takes the longest first."""


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """Let garbage be looked for neither while all tests are collected nor, later, among them and the libraries that they import: that took a
    quarter of the processor time of tests that train."""
    with nothing_collected():
        return (yield)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what takes the longest and mostly waits, so that all workers end together. Refuse names that hold an address: each worker
    would know the tests by others, and none would run."""
    if unnamed := [item.nodeid for item in items if re.search(r"\bat 0x[0-9a-f]+", item.nodeid)]:
        raise pytest.UsageError(f"{unnamed[0]}: its name is another in each process. Give its parameters ids.")
    items.sort(key=lambda item: not item.nodeid.startswith(WITH_A_CONTROL_PLANE[0]))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """With `--dist loadfile`, a folder with a control plane goes to one worker, as a file does: several would each have to start one."""
    from xdist.scheduler import LoadFileScheduling

    class ByFileOrFolder(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            folders = (folder for folder in WITH_A_CONTROL_PLANE if nodeid.startswith(folder))
            return next(folders, super()._split_scope(nodeid))

    return ByFileOrFolder(config, log) if config.getvalue("dist") == "loadfile" else None


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Refuse parameters that have no order: each worker would collect the tests in another one, and none would run."""
    for marker in metafunc.definition.iter_markers("parametrize"):
        names, values = marker.args[:2]
        if isinstance(values, (set, frozenset)):
            raise pytest.UsageError(
                f"{metafunc.definition.nodeid}: {names} come from a set, which has no order. Take a list."
            )
