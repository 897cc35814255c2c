"""The processes that train one model together, a *rank* each, and all that they tell one another.

A batch is the manifest's however many there are: each rank takes a share, and the gradients are summed once a step. There is no wrapper
around the model: those of torch lose count where one rank runs out of memory and does its part once more (pytorch/pytorch#18853).
Numbers and objects go through gloo, from one processor to the other, so that nobody waits for a device; tensors of a GPU through NCCL.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Protocol, TypeVar

import torch
import torch.distributed as dist
from torch import nn

from finetune_api.failures import JobError
from finetune_trainer.engine.memory import is_out_of_memory
from finetune_trainer.room import Room
from finetune_trainer.stop import Preempted

T = TypeVar("T")


class Sliced(Protocol):
    """A list, an array or a tensor."""

    def __getitem__(self, part: slice, /) -> Any:
        """Of the same type."""


S = TypeVar("S", bound=Sliced)

PATIENCE = timedelta(minutes=30)
"""For a rank that says nothing, such as the first while it writes a large checkpoint."""
BUCKET = 64 << 20
"""Bytes of gradients that are summed at once: what this takes of memory is twice as much."""


class Gone(Exception):
    """Another process does not answer any more. Why, it or whoever started it knows."""


class Untold(Exception):
    """Memory ran out in this process while others waited for what it has to say. It may neither try again nor say so: they would take that
    for what they wait for. So it ends, and they notice."""


class Ranks(Protocol):
    """One of them. All ranks call the same methods, but `share`, in the same order."""

    @property
    def rank(self) -> int:
        """This one, counted from 0. The first writes, uploads and reports."""

    @property
    def world(self) -> int:
        """How many there are."""

    @property
    def local_world(self) -> int:
        """How many of them share this machine."""

    @property
    def in_step(self) -> bool:
        """Whether each pass is one of all ranks: they all do as many then, and what ends one of them there ends it for all."""

    @property
    def room(self) -> Room:
        """What is known to fit where passes are those of all ranks."""

    def reading(self, work: Callable[[], T]) -> T:
        """What `work`, which reads the parameters of the model, gives."""

    def backward(self, losses: Sequence[torch.Tensor], gradients: Sequence[torch.Tensor] | None = None) -> None:
        """Add the gradients of what `reading` gave to those of the parameters, as `torch.autograd.backward` does."""

    def reached(self, parameters: Sequence[nn.Parameter]) -> tuple[bool, ...]:
        """Which of these have a gradient of this rank's own. It is asked once a step, before `add`."""

    def share(self, of: S) -> S:
        """This rank's part of what there is to do: neighbours go to different ones, so that what is sorted is evenly shared."""

    def gathered(self, value: T) -> list[T]:
        """What all ranks say, in their order."""

    def add(self, tensors: Sequence[torch.Tensor]) -> None:
        """Let each be the sum of those of all ranks, whose shapes are the same."""

    def spread(self, tensors: Sequence[torch.Tensor]) -> None:
        """Let each be as the first rank has it."""

    def interleaved(self, part: torch.Tensor, rows: int) -> torch.Tensor:
        """The `rows` of which each rank has its `share`, in their order; the first axis is theirs."""


class _Whole:
    """With all of the model in each process."""

    in_step = False
    room = Room()

    def reading(self, work: Callable[[], T]) -> T:
        return work()

    def backward(self, losses: Sequence[torch.Tensor], gradients: Sequence[torch.Tensor] | None = None) -> None:
        torch.autograd.backward(losses, gradients)

    def reached(self, parameters: Sequence[nn.Parameter]) -> tuple[bool, ...]:
        return tuple(one.grad is not None for one in parameters)


class Alone(_Whole):
    """One process, which tells nobody anything."""

    rank = 0
    world = local_world = 1

    def share(self, of: S) -> S:
        return of

    def gathered(self, value: T) -> list[T]:
        return [value]

    def add(self, tensors: Sequence[torch.Tensor]) -> None:
        pass

    def spread(self, tensors: Sequence[torch.Tensor]) -> None:
        pass

    def interleaved(self, part: torch.Tensor, rows: int) -> torch.Tensor:
        return part


ALONE = Alone()


class Replicated(_Whole):
    """Each rank has the whole model."""

    def __init__(self) -> None:
        """As a member of torch's default process group."""
        self.rank, self.world = dist.get_rank(), dist.get_world_size()
        self.local_world = int(os.environ["LOCAL_WORLD_SIZE"])

    def share(self, of: S) -> S:
        mine: S = of[self.rank :: self.world]
        return mine

    def gathered(self, value: T) -> list[T]:
        found: list[Any] = [None] * self.world
        with _answered():
            dist.all_gather_object(found, value)
        return found

    @torch.no_grad()
    def add(self, tensors: Sequence[torch.Tensor]) -> None:
        for bucket in buckets(tensors):
            flat = torch.cat([one.reshape(-1) for one in bucket])
            with _answered():
                dist.all_reduce(flat)
            for one, summed in zip(bucket, torch.split(flat, [one.numel() for one in bucket]), strict=True):
                one.copy_(summed.view(one.shape))

    @torch.no_grad()
    def spread(self, tensors: Sequence[torch.Tensor]) -> None:
        for one in tensors:
            whole = one.contiguous()
            with _answered():
                dist.broadcast(whole, src=0)
            one.copy_(whole)

    def interleaved(self, part: torch.Tensor, rows: int) -> torch.Tensor:
        most = -(-rows // self.world)
        try:
            filled = part.new_zeros((most, *part.shape[1:]))
            filled[: len(part)] = part.detach()
            found = [torch.empty_like(filled) for _ in range(self.world)]
            with _answered():
                dist.all_gather(found, filled)
            return torch.stack(found, dim=1).flatten(0, 1)[:rows]
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            raise Untold from error


def join() -> Ranks:
    """Meet the other processes that the environment tells of, as torchrun sets it; alone where it tells of none. Each has a GPU, if any."""
    if int(os.environ.get("WORLD_SIZE", 1)) == 1:
        return ALONE
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    with _answered():
        dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo", timeout=PATIENCE)
    return Replicated()


@dataclass(frozen=True)
class _Ended:
    error: BaseException


def together(ranks: Ranks, work: Callable[[], T]) -> list[T]:
    """What `work`, in which ranks say nothing to one another, gives in each, in their order. Where it ends with JobError or Preempted in
    one, all of them raise that."""
    said: T | _Ended
    try:
        said = work()
    except (Preempted, JobError) as error:
        said = _Ended(error)
    try:
        found = ranks.gathered(said)
    except Gone:
        if isinstance(said, _Ended):  # why the others are gone, perhaps
            raise said.error from None
        raise
    ended = [one.error for one in found if isinstance(one, _Ended)]
    if ended:
        # What failed, rather than that somebody is told to stop.
        raise min(ended, key=lambda one: isinstance(one, Preempted))
    return [one for one in found if not isinstance(one, _Ended)]


def side_by_side(ranks: Ranks, passes: Callable[[], T]) -> list[T]:
    """What these passes give in each rank. What ends one of them is as for `together`; where passes are those of all ranks nobody could tell
    the others but by its end."""
    return ranks.gathered(passes()) if ranks.in_step else together(ranks, passes)


def agreed(ranks: Ranks, check: Callable[[], None]) -> Callable[[], None]:
    """A `check` between passes: where these are those of all ranks, it raises in all what it raises in one."""

    def ask() -> None:
        together(ranks, check)

    return ask if ranks.in_step else check


@contextmanager
def _answered() -> Iterator[None]:
    """Raises Gone where others do not answer."""
    try:
        yield
    except RuntimeError as error:
        if is_out_of_memory(error):
            raise
        raise Gone(f"another process of the attempt does not answer: {error}") from error


@contextmanager
def answered() -> Iterator[None]:
    """The same of work of which talking to others is only a part."""
    try:
        yield
    except RuntimeError as error:
        if not is_out_of_memory(error) and _is_of_others(error):
            raise Gone(f"another process of the attempt does not answer: {error}") from error
        raise


def _is_of_others(error: RuntimeError) -> bool:
    return isinstance(error, dist.DistError) or "gloo" in str(error).lower() or "NCCL" in str(error)


def buckets(tensors: Sequence[torch.Tensor]) -> Iterator[list[torch.Tensor]]:
    """Neighbours of one type, of at most BUCKET bytes, unless one is larger."""
    bucket: list[torch.Tensor] = []
    size = 0
    for one in tensors:
        if bucket and (size + one.nbytes > BUCKET or one.dtype != bucket[0].dtype):
            yield bucket
            bucket, size = [], 0
        bucket.append(one)
        size += one.nbytes
    if bucket:
        yield bucket
