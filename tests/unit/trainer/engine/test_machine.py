"""How much memory there is, and how much of it is left."""

from __future__ import annotations

from pathlib import Path

import pytest

from finetune_trainer.engine.machine import all_memory, free_memory
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
