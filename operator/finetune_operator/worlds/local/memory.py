"""Whether the kernel killed for memory: nothing else tells its SIGKILL from anybody else's."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path


def out_of_memory_kills(root: Path = Path("/")) -> int:
    """How many processes the kernel has killed for memory so far: in this process's cgroup where it counts by cgroup, else on
    the whole machine; 0 where it does not say. Only a difference between two calls means something."""
    for file in _counters(root):
        try:
            lines = file.read_text().splitlines()
        except OSError:
            continue
        for line in lines:
            name, _, count = line.partition(" ")
            if name == "oom_kill":
                return int(count)
    return 0


def _counters(root: Path) -> Iterator[Path]:
    """Where the count may stand, nearest to this process first. The cgroup's is preferred: the machine's also counts the kills
    in other containers."""
    try:
        memberships = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        memberships = []
    for membership in memberships:
        number, controllers, path = membership.split(":", 2)
        if number == "0":
            folder, file = root / "sys/fs/cgroup", "memory.events"
        elif "memory" in controllers.split(","):
            folder, file = root / "sys/fs/cgroup/memory", "memory.oom_control"
        else:
            continue
        yield folder / path.lstrip("/") / file
        yield folder / file  # a container may see its own cgroup as the root, and its path as the host's
    yield root / "proc/vmstat"
