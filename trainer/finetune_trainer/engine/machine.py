"""What a run says that it ran on: versions and hardware."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from finetune_trainer.cgroups import Group, groups, text_of
from finetune_trainer.report.facts import Hardware

PACKAGES = (
    "torch",
    "transformers",
    "tokenizers",
    "safetensors",
    "datasets",
    "peft",
    "bitsandbytes",
    "numpy",
    "finetune-operator",
)
"""Those that may change a result."""


def versions() -> dict[str, str]:
    """Python's and those of the packages that are installed."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def hardware(gpus: Sequence[str] = ()) -> dict[Hardware, str]:
    """The processor, the memory that this process may use, and the GPUs, by the name of each: `4 × NVIDIA H200`."""
    found: dict[Hardware, str] = {"cpu": _cpu(), "memory": f"{all_memory() / 2**30:.1f} GiB"}
    if gpus:
        found["gpu"] = ", ".join(f"{n} × {name}" if n > 1 else name for name, n in Counter(gpus).items())
    return found


def unlike_asked(asked: int, *, visible: int, used: int) -> str:
    """Where so many GPUs are used as nobody may expect: that, in a sentence. Else nothing."""
    if not visible:
        return "A GPU was asked for, but no CUDA device is visible: training on the CPU." if asked else ""
    if used < asked:
        return f"{asked} GPUs were asked for and {visible} can be seen by CUDA: training on {used}."
    if used < visible:
        return f"{visible} GPUs can be seen by CUDA: training on {used}, as spec.resources.limits asks for no more."
    return ""


def free_memory(root: Path = Path("/")) -> int:
    """Bytes that this process may still take: what the machine has available, or the least that a limit of its control groups leaves.
    `root` holds `proc` and `sys`."""
    lines = text_of(root / "proc/meminfo").splitlines()
    free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    return min([free, *(limit - _taken(group) for group, limit in _limits(root))])


def all_memory(root: Path = Path("/")) -> int:
    """Bytes: the machine's, or the least that a limit of this process's control groups leaves of it."""
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min([machine, *(limit for _, limit in _limits(root))])


def _limits(root: Path) -> Iterator[tuple[Group, int]]:
    """In bytes."""
    for group in groups("memory", root):
        limit = group.number("memory.max" if group.version == 2 else "memory.limit_in_bytes")
        if limit is not None:  # of version 1 no limit is a huge one
            yield group, limit


def _taken(group: Group) -> int:
    """Bytes that do not give way: files that were read do."""
    taken = group.number("memory.current" if group.version == 2 else "memory.usage_in_bytes") or 0
    stat = dict(line.split() for line in group.read("memory.stat").splitlines())
    return taken - int(stat.get("inactive_file" if group.version == 2 else "total_inactive_file", 0))


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())
