"""How many CPU threads this process should use: what its cgroup lets it use, not what the machine has.

More threads than the quota allows make every OpenMP barrier wait for the next period of the scheduler.
"""

from __future__ import annotations

import os
from pathlib import Path

from finetune_trainer.cgroups import Group, groups


def available_threads(root: Path = Path("/"), affinity: int | None = None, processes: int = 1) -> int:
    """Threads to use, at least 1: the least of the affinity mask and of every CPU quota above this process, shared among so many processes.

    `root` holds `proc` and `sys`. OMP_NUM_THREADS, where set, is the user's own choice for each process and wins.
    """
    chosen = os.environ.get("OMP_NUM_THREADS", "")
    if chosen.isdigit() and int(chosen) > 0:
        return int(chosen)
    cpus = affinity if affinity is not None else len(os.sched_getaffinity(0))
    quotas = (_quota(group) for group in groups("cpu", root))
    return max(1, int(min([cpus, *(quota for quota in quotas if quota is not None)]) // processes))


def _quota(group: Group) -> float | None:
    """In CPUs; None where there is none."""
    if group.version == 2:
        quota, _, period = group.read("cpu.max").partition(" ")
        return int(quota) / int(period) if quota.isdigit() and period.isdigit() else None
    of, in_all = group.number("cpu.cfs_quota_us"), group.number("cpu.cfs_period_us")
    return of / in_all if of is not None and in_all else None
