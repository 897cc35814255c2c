"""How many bytes the tensors of a computation take at most, and what they are: each storage is counted once, from when it is made until
nobody has it any more, autograd included.

Of tensors without numbers (`FakeTensorMode`) as of real ones: what is counted are sizes.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakIdKeyDictionary

WEIGHTS, COPIES, GRADIENTS, MOMENTS = "weights", "weights in bf16", "gradients", "optimiser"
ACTIVATIONS, LOGITS = "activations", "logits"
SUMS = "gradients' sums"
"""What the gradients of several GPUs are added up in."""
GATHERED = "layers gathered"
"""What of a model that several GPUs divide is put together on each at a time, and the gradients of that."""
PARTS = (WEIGHTS, COPIES, GRADIENTS, MOMENTS, ACTIVATIONS, LOGITS, SUMS, GATHERED)
WHOLE: Mapping[str, float] = {}


@dataclass(frozen=True)
class Peak:
    """What is alive when most is."""

    total: int
    """Bytes."""
    parts: Mapping[str, int]
    """Of these, by what they are."""


class Made:
    """A storage, of so many bytes, which stands for so many like it."""

    __slots__ = ("born", "died", "kind", "size", "times")

    def __init__(self, kind: str, size: int, born: int) -> None:
        self.kind, self.size, self.born = kind, size, born
        self.died: int | None = None
        self.times = 1


class LiveBytes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """While it is entered, every tensor that an operation makes is counted. `wide` is a size that only logits have: the vocabulary."""

    def __init__(self, wide: int | None = None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._wide = wide
        self._known: Any = WeakIdKeyDictionary()
        self._all: list[Made] = []
        self._now = 0
        self._uncounted: list[tuple[int, int]] = []
        """Stretches in which nothing is looked for."""
        self._stopped: int | None = None

    @property
    def now(self) -> int:
        """The present moment."""
        return self._now

    def stop_counting(self) -> None:
        """From here on it is not looked at how much is alive, until it goes on."""
        self._now += 1
        self._stopped = self._now

    def go_on_counting(self) -> None:
        if self._stopped is not None:
            self._now += 1
            self._uncounted.append((self._stopped, self._now))
            self._stopped = None

    def between(self, begin: int, end: int) -> Iterator[Made]:
        """What was made between these moments, the latest first."""
        for made in reversed(self._all):
            if made.born <= begin:
                return
            if made.born <= end:
                yield made

    def made(self, tensor: torch.Tensor) -> Made:
        """The storage of a tensor."""
        return self._see(tensor)

    def hold(self, tensors: Iterable[torch.Tensor], kind: str) -> None:
        """Count these, or call what is counted already so."""
        for tensor in tensors:
            self._see(tensor).kind = kind

    def spend(self, size: int, kind: str) -> None:
        """Count so many bytes for a moment."""
        self._now += 1
        made = Made(kind, size, self._now)
        self._all.append(made)
        self._forget(made)

    def most(self, share: Mapping[str, float] = WHOLE) -> Peak:
        """Of each kind only that `share`, where it names one."""
        sizes = [made.times * round(made.size * share.get(made.kind, 1)) for made in self._all]
        changes = [(made.born, size) for made, size in zip(self._all, sizes, strict=True)]
        changes += [(made.died, -size) for made, size in zip(self._all, sizes, strict=True) if made.died is not None]
        live = peak = at = 0
        uncounted = iter([*self._uncounted, (self._now + 1, self._now + 1)])
        begin, end = next(uncounted)
        for moment, change in sorted(changes):
            live += change
            while moment > end:
                begin, end = next(uncounted)
            if live > peak and moment < begin:
                peak, at = live, moment
        parts = dict.fromkeys(PARTS, 0)
        for made, size in zip(self._all, sizes, strict=True):
            if made.born <= at and (made.died is None or made.died > at):
                parts[made.kind] += size
        return Peak(peak, parts)

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = function(*args, **(kwargs or {}))
        of_weights = function is torch.ops.aten._to_copy.default and self._kind(args[0]) == WEIGHTS
        for tensor in tree_leaves(made):
            if isinstance(tensor, torch.Tensor):
                self._see(tensor, COPIES if of_weights else None)
        return made

    def _kind(self, tensor: torch.Tensor) -> str | None:
        made = self._known.get(tensor.untyped_storage())
        return made.kind if made is not None else None

    def _see(self, tensor: torch.Tensor, kind: str | None = None) -> Made:
        storage = tensor.untyped_storage()
        known: Made | None = self._known.get(storage)
        if known is not None:
            return known
        self._now += 1
        kind = kind or (LOGITS if self._wide in tensor.shape[1:] else ACTIVATIONS)
        made = self._known[storage] = Made(kind, storage.nbytes(), self._now)
        self._all.append(made)
        weakref.finalize(storage, self._forget, made).atexit = False
        return made

    def _forget(self, made: Made) -> None:
        self._now += 1
        made.died = self._now
