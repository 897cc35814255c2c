"""The losses of steps, added up where they are and read without making the device wait."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Number:
    """A number that the device computes."""

    is_there: Callable[[], bool]
    """Whether `value` would not wait."""
    value: Callable[[], float]


class Window:
    """The sum of the losses since the last row of training."""

    def __init__(self, total: float, steps: int, device: torch.device) -> None:
        self.steps = steps
        self._total = torch.tensor(total, device=device)

    def add(self, loss: torch.Tensor) -> None:
        self._total += loss
        self.steps += 1

    def total(self) -> float:
        """Waits for the device."""
        return self._total.item()

    def close(self) -> Number:
        """The sum so far; the next begins at 0."""
        number = _on_its_way(self._total)
        self._total.zero_()
        self.steps = 0
        return number


def _on_its_way(tensor: torch.Tensor) -> Number:
    """The value that a scalar on a device has by now, copied in the background."""
    if tensor.device.type != "cuda":
        value = tensor.item()
        return Number(lambda: True, lambda: value)
    copy = torch.empty_like(tensor, device="cpu", pin_memory=True)
    copy.copy_(tensor, non_blocking=True)
    copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
    copied.record()

    def wait() -> float:
        copied.synchronize()
        return copy.item()

    return Number(copied.query, wait)
