"""Threads from what the machine says about itself."""

import subprocess
import sys

import pytest

from finetune_trainer.threads import available_threads
from tests.unit.trainer.groups import machine


@pytest.fixture(autouse=True)
def no_choice(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)


@pytest.mark.parametrize(
    ("quota", "threads"), [("200000 100000", 2), ("350000 100000", 3), ("50000 100000", 1), ("max 100000", 16)]
)
def test_the_quota_of_a_version_2_cgroup_is_obeyed(tmp_path, quota, threads):
    root = machine(tmp_path, "0::/\n", **{"cpu.max": quota})

    assert available_threads(root, affinity=16) == threads


def test_the_tightest_quota_on_the_way_up_counts(tmp_path):
    files = {"cpu.max": "max 100000", "pods/cpu.max": "400000 100000", "pods/a/cpu.max": "600000 100000"}

    assert available_threads(machine(tmp_path, "0::/pods/a\n", **files), affinity=16) == 4


@pytest.mark.parametrize("mount", ["cpu", "cpu,cpuacct"])
def test_the_quota_of_a_version_1_cgroup_is_obeyed(tmp_path, mount):
    files = {f"{mount}/cpu.cfs_quota_us": "300000\n", f"{mount}/cpu.cfs_period_us": "100000\n"}
    root = machine(tmp_path, "4:memory:/x\n3:cpu,cpuacct:/docker/abc\n", **files)

    assert available_threads(root, affinity=16) == 3


def test_no_version_1_quota_is_no_limit(tmp_path):
    files = {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}

    assert available_threads(machine(tmp_path, "3:cpu:/\n", **files), affinity=5) == 5


def test_affinity_limits_below_the_quota(tmp_path):
    root = machine(tmp_path, "0::/\n", **{"cpu.max": "800000 100000"})

    assert available_threads(root, affinity=2) == 2


def test_a_machine_without_cgroups_uses_its_cpus(tmp_path):
    assert available_threads(tmp_path, affinity=7) == 7


@pytest.mark.parametrize(("processes", "threads"), [(1, 8), (2, 4), (3, 2), (16, 1)])
def test_processes_share_them(tmp_path, processes, threads):
    root = machine(tmp_path, "0::/\n", **{"cpu.max": "850000 100000"})

    assert available_threads(root, affinity=16, processes=processes) == threads


def test_the_users_own_choice_wins(tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")

    root = machine(tmp_path, "0::/\n", **{"cpu.max": "100000 100000"})
    assert available_threads(root, affinity=16) == available_threads(root, affinity=16, processes=4) == 3


def test_memory_that_was_freed_is_not_cleared_by_the_kernel_again():
    script = """
import resource, sys
from finetune_trainer.engine.allocator import keep_freed_memory
if sys.argv[1] == "keep":
    keep_freed_memory()
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
def touch():
    block = bytearray(2**26)
    del block
touch()
before = faults()
for _ in range(10):
    touch()
print(faults() - before)
"""
    kept, given_back = (
        int(subprocess.run([sys.executable, "-c", script, mode], check=True, capture_output=True).stdout)
        for mode in ("keep", "default")
    )

    assert given_back > 10_000
    assert kept < 100
