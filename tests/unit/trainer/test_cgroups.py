"""Whether the kernel has killed for memory, as control groups count it."""

from __future__ import annotations

from pathlib import Path

import pytest

from finetune_trainer.cgroups import out_of_memory_kills
from tests.unit.trainer.groups import machine

EVENTS = "low 0\nhigh 0\nmax 31\noom 3\noom_kill {}\noom_group_kill 0\n"
CONTROL = "oom_kill_disable 0\nunder_oom 0\noom_kill {}\n"


@pytest.mark.parametrize(
    ("membership", "files", "kills"),
    [
        ("0::/\n", {"memory.events": EVENTS.format(2)}, 2),
        ("0::/pods/a\n", {"pods/a/memory.events": EVENTS.format(0), "pods/memory.events": EVENTS.format(5)}, 0),
        ("4:memory:/docker/abc\n", {"memory/memory.oom_control": CONTROL.format(1)}, 1),
        ("4:memory:/x\n", {"memory/memory.oom_control": "oom_kill_disable 0\nunder_oom 0\n"}, 0),
        ("0::/\n", {}, 0),
    ],
    ids=["version 2", "of others above", "version 1", "an old kernel", "no memory group"],
)
def test_those_of_this_process_s_own_group_count(
    tmp_path: Path, membership: str, files: dict[str, str], kills: int
) -> None:
    assert out_of_memory_kills(machine(tmp_path, membership, **files)) == kills
