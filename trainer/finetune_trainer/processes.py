"""How many processes an attempt consists of, and the place that each has among them.

There is one for each GPU that the run asks for. Who tries that without GPUs asks for as many as he likes by FINETUNE_PROCESSES.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from finetune_api.failures import FailureReason, JobError
from finetune_api.run import PROCESSES_ENV, RUN_ENV, Run

PARENT_ENV = "FINETUNE_PARENT"
"""In the environment of one of several: the process id of their parent."""
_PR_SET_PDEATHSIG = 1


def how_many(environment: Mapping[str, str]) -> int:
    """Processes that an attempt consists of. Where the environment cannot be obeyed it is one, which says so."""
    try:
        asked = asked_for(environment)
        return asked if asked == 1 or PROCESSES_ENV in environment else min(asked, max(1, visible_gpus()))
    except JobError:
        return 1


def asked_for(environment: Mapping[str, str]) -> int:
    """Processes that are asked for, at least one. Raises JobError InvalidSpec."""
    given = environment.get(PROCESSES_ENV)
    if given is None:
        return max(1, Run.from_env(environment.get(RUN_ENV, "")).spec.resources.gpus)
    if not given.isascii() or not given.isdigit() or not int(given):
        raise JobError(
            FailureReason.INVALID_SPEC,
            f"{PROCESSES_ENV} is how many processes train together, 1 or more, not {given!r}",
            remedy=f"Correct {PROCESSES_ENV} in the environment of the trainer, or leave it out: there is one for each GPU then.",
        )
    return int(given)


def visible_gpus() -> int:
    """Those that this process may use."""
    import torch

    return torch.cuda.device_count()


@dataclass(frozen=True)
class Place:
    """Which of several processes one is, as torchrun has it. A machine has all of them, or some."""

    rank: int
    """From 0; the first alone writes to the run's folder."""
    world: int
    local_rank: int
    """Among those of this machine, of which the first fetches what they work on."""
    local_world: int

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> Place:
        return cls(*(int(environment[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")))

    def environment(self) -> dict[str, str]:
        names = {"RANK": self.rank, "WORLD_SIZE": self.world}
        names |= {"LOCAL_RANK": self.local_rank, "LOCAL_WORLD_SIZE": self.local_world}
        return {name: str(value) for name, value in names.items()}

    @property
    def is_first(self) -> bool:
        """Whether it claims, stores and reports."""
        return self.rank == 0

    @property
    def leads(self) -> bool:
        """Whether it fetches what those of its machine work on."""
        return self.local_rank == 0

    @property
    def here(self) -> range:
        """The ranks of those of its machine, whose first leads."""
        first = self.rank - self.local_rank
        return range(first, first + self.local_world)


THE_ONLY_ONE = Place(rank=0, world=1, local_rank=0, local_world=1)


def scratch_of(workspace: Path, place: Place) -> Path:
    """A folder for what this process alone needs."""
    return workspace / ("scratch" if place.is_first else f"scratch-{place.rank}")


def name_of(rank: int, world: int) -> str:
    """For people, who count from 1: `process 2 of 4`."""
    return f"process {rank + 1} of {world}"


def end_with(parent: int) -> None:
    """End at once when the process `parent`, which started this one, does: nobody would say what became of this one, and the next attempt
    may have begun."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it ended before that was asked for
        os.kill(os.getpid(), signal.SIGKILL)
