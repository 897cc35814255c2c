"""How many CPU threads this process should use: what its cgroup lets it use, not what the machine has.

More threads than the quota allows make every OpenMP barrier wait for the next period of the scheduler.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path


def available_threads(root: Path = Path("/"), affinity: int | None = None) -> int:
    """Threads to use, at least 1: the least of the affinity mask and of every CPU quota above this process.

    `root` holds `proc` and `sys`. OMP_NUM_THREADS, where set, is the user's own choice and wins.
    """
    chosen = os.environ.get("OMP_NUM_THREADS", "")
    if chosen.isdigit() and int(chosen) > 0:
        return int(chosen)
    cpus = affinity if affinity is not None else len(os.sched_getaffinity(0))
    return max(1, int(min([cpus, *_quotas(root)])))


def _quotas(root: Path) -> Iterator[float]:
    """The CPU quotas, in CPUs, of this process's cgroup and all above it; version 2 and version 1."""
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            for folder in _upwards(root / "sys/fs/cgroup", path):
                quota, _, period = _text(folder / "cpu.max").partition(" ")
                if quota.isdigit() and period.strip().isdigit():
                    yield int(quota) / int(period)
        elif "cpu" in controllers.split(","):
            for mount in (root / "sys/fs/cgroup/cpu", root / "sys/fs/cgroup/cpu,cpuacct"):
                for folder in _upwards(mount, path):
                    quota, period = _text(folder / "cpu.cfs_quota_us"), _text(folder / "cpu.cfs_period_us")
                    if quota.strip().isdigit() and period.strip().isdigit():
                        yield int(quota) / int(period)


def _upwards(mount: Path, path: str) -> Iterator[Path]:
    # In a container the path may be the host's and not exist below the mount, whose own root then is the container's group.
    folder = mount / path.strip("/")
    while folder != mount:
        yield folder
        folder = folder.parent
    yield mount


def _text(file: Path) -> str:
    try:
        return file.read_text()
    except OSError:
        return ""
