"""How much memory there is, and how much of it is left."""

from __future__ import annotations

from pathlib import Path

import pytest

from finetune_trainer.engine.machine import all_memory, free_memory, hardware, unlike_asked
from tests.unit.trainer.groups import machine

AVAILABLE = 1000 * 1024
FULL = {"memory.max": "9000", "memory.current": "5000", "memory.stat": "anon 4000\ninactive_file 1000"}
NONE = {"memory.max": "max", "memory.current": "5", "memory.stat": "inactive_file 1"}
WIDE = {"memory.max": "9000000", "memory.current": "5000", "memory.stat": "inactive_file 0"}
OLD = {
    "memory.limit_in_bytes": "9000",
    "memory.usage_in_bytes": "5000",
    "memory.stat": "inactive_file 1\ntotal_inactive_file 500",
}


def below(folder: str, files: dict[str, str]) -> dict[str, str]:
    return {f"{folder}/{name}": text for name, text in files.items()}


@pytest.mark.parametrize(
    ("cgroup", "files", "limit", "free"),
    [
        ("", {}, None, AVAILABLE),
        ("0::/\n", NONE, None, AVAILABLE),
        ("0::/\n", FULL, 9000, 5000),
        ("0::/\n", WIDE, 9_000_000, AVAILABLE),
        ("0::/pods/a\n", {**NONE, **below("pods", FULL), **below("pods/a", WIDE)}, 9000, 5000),
        ("0::/host/path\n", FULL, 9000, 5000),
        ("4:cpu:/x\n3:memory:/docker/a\n0::/\n", below("memory/docker/a", OLD), 9000, 4500),
        ("3:memory:/host/path\n", below("memory", OLD), 9000, 4500),
        ("3:memory:/\n", below("memory", {**OLD, "memory.limit_in_bytes": "9223372036854771712"}), None, AVAILABLE),
    ],
    ids=[
        "no groups",
        "no limit",
        "full",
        "wide",
        "one above",
        "host's path",
        "version 1",
        "its host's path",
        "its no limit",
    ],
)
def test_memory_is_what_the_machine_has_or_the_tightest_limit_leaves(
    cgroup: str, files: dict[str, str], limit: int | None, free: int, tmp_path: Path
) -> None:
    root = machine(tmp_path, cgroup, **files)
    (root / "proc/meminfo").write_text("MemTotal: 9999 kB\nMemFree: 5 kB\nMemAvailable: 1000 kB\n")

    assert free_memory(root) == free
    assert all_memory(root) == (limit or all_memory(tmp_path / "nowhere"))


def test_this_machine_has_some() -> None:
    assert 0 < free_memory() <= all_memory()


def test_gpus_of_a_name_are_counted() -> None:
    assert "gpu" not in hardware()
    assert hardware(["NVIDIA H200"])["gpu"] == "NVIDIA H200"
    assert hardware(["NVIDIA H200"] * 4)["gpu"] == "4 × NVIDIA H200"
    assert hardware(["NVIDIA L4", "Tesla T4", "NVIDIA L4"])["gpu"] == "2 × NVIDIA L4, Tesla T4"


@pytest.mark.parametrize(
    ("asked", "visible", "used", "said"),
    [
        (0, 0, 1, ""),
        (0, 1, 1, ""),
        (1, 1, 1, ""),
        (4, 4, 4, ""),
        (0, 0, 2, ""),
        (2, 0, 1, "A GPU was asked for, but no CUDA device is visible: training on the CPU."),
        (4, 1, 1, "4 GPUs were asked for and 1 can be seen by CUDA: training on 1."),
        (4, 2, 2, "4 GPUs were asked for and 2 can be seen by CUDA: training on 2."),
        (0, 4, 1, "4 GPUs can be seen by CUDA: training on 1, as spec.resources.limits asks for no more."),
        (2, 4, 2, "4 GPUs can be seen by CUDA: training on 2, as spec.resources.limits asks for no more."),
    ],
)
def test_fewer_gpus_than_somebody_may_expect_are_said(asked: int, visible: int, used: int, said: str) -> None:
    assert unlike_asked(asked, visible=visible, used=used) == said
