"""The GPUs that people have, whole and in slices, and how much of their memory a training may take.

Memory is what CUDA says of a device; of a MIG slice, whose name counts in gigabytes, what NVIDIA's guide says of its profile.
https://docs.nvidia.com/datacenter/tesla/mig-user-guide/supported-mig-profiles.html
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Literal

from finetune_api.base import amount
from finetune_api.placement import Resources

GIB = 2**30
FP32 = 4
"""Bytes."""
STATE = 4 * FP32
"""Of a parameter that is trained: itself, its gradient and its two moments."""
ROOM = 0.9
"""The part of a GPU's memory that tensors may take: the rest is CUDA's own, that of its libraries, and what lies between tensors."""
PROCESS = GIB
"""Bytes that a process on a CPU takes beside its tensors: its libraries, the data's parts in memory, and what they work with."""
_PROFILE = re.compile(r"\b\d+g\.(\d+)gb\b")
_SLICE = re.compile(rf"\bmig-{_PROFILE.pattern[2:]}")


@dataclass(frozen=True)
class Where:
    """On what it is computed."""

    device: Literal["cpu", "cuda"]
    bf16: bool
    gpus: int = 1
    """That take a share of each batch."""
    sharded: bool = False
    """Whether they hold a part each of weights, gradients and moments."""

    @property
    def alone(self) -> Where:
        """One of them, with all of it."""
        return replace(self, gpus=1, sharded=False)

    @property
    def size(self) -> int:
        """Bytes of a number that is computed with."""
        return 2 if self.bf16 else FP32

    def __str__(self) -> str:
        gpu = "a GPU" if self.gpus == 1 else f"each of {self.gpus} GPUs"
        how = ", sharded" if self.sharded else ""
        return f"{gpu if self.device == 'cuda' else 'a CPU'}, in {'bf16' if self.bf16 else 'fp32'}{how}"


@dataclass(frozen=True)
class Device:
    name: str
    gib: float
    bf16: bool = True
    """Whether it computes in bf16, as GPUs do since Ampere."""

    @property
    def is_a_slice(self) -> bool:
        """Which works with no other one."""
        return _PROFILE.search(self.name) is not None

    @property
    def memory(self) -> int:
        """Bytes."""
        return int(self.gib * GIB)

    @property
    def room(self) -> int:
        """Bytes that tensors may take."""
        return int(ROOM * self.memory)


TOGETHER = (2, 4, 8)
"""GPUs that nodes have."""
DEVICES = tuple(
    sorted(
        (
            Device("A100 1g.5gb", 4.75),
            Device("A100 2g.10gb", 9.75),
            Device("A100 3g.20gb", 19.5),
            Device("H100 1g.10gb", 9.75),
            Device("H100 1g.20gb", 19.5),
            Device("H100 3g.40gb", 39.25),
            Device("H200 1g.18gb", 16.0),
            Device("H200 2g.35gb", 32.5),
            Device("H200 3g.71gb", 69.0),
            Device("T4 16 GB", 14.5, bf16=False),
            Device("L4 24 GB", 22.0),
            Device("RTX 4090 24 GB", 23.5),
            Device("L40S 48 GB", 44.0),
            Device("A100 40 GB", 39.4),
            Device("A100 80 GB", 79.1),
            Device("H100 80 GB", 79.1),
            Device("H200 141 GB", 139.8),
            Device("B200 180 GB", 178.0),
        ),
        key=lambda device: device.gib,
    )
)


def on_a_gpu(resources: Resources) -> bool:
    """Whether a job asks for a GPU."""
    return resources.have_a_device


def host_limit(resources: Resources) -> int | None:
    """Bytes of the machine's memory that a pod with a GPU may have, where its resources say so."""
    limits = resources.limits or {}
    return int(amount(limits["memory"])) if on_a_gpu(resources) and "memory" in limits else None


def limit(resources: Resources) -> int | None:
    """Bytes that the tensors of a training may take, where the resources of its job say so: of a slice of a GPU, whose name says its
    memory, or of a pod without a GPU."""
    limits = resources.limits or {}
    for name in limits:
        if said := _SLICE.search(name):
            return int(ROOM * int(said[1]) * Fraction(10**9))
    if on_a_gpu(resources) or "memory" not in limits:
        return None
    return max(0, int(amount(limits["memory"])) - PROCESS)
