"""Several texts in one feature, none of which sees another: whose tokens are whose, for as long as a forward pass of them lasts.

A model knows positions and a mask; what makes masks and attends (`engine/attention.py`) asks here which texts these are of, so that no
model has to hand that on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cached_property

import torch

Mask = Callable[..., torch.Tensor]
"""As transformers writes masks: indices of feature, head, query and key in, whether that query sees that key out."""


@dataclass(frozen=True)
class Documents:
    """Of a batch of such features."""

    numbers: torch.Tensor
    """Of each token which text of its feature it is of, shape (features, tokens); what fills a feature up is a text of its own."""
    positions: torch.Tensor
    """Of each token within its text, from 0 on, shape (features, tokens)."""
    starts: torch.Tensor
    """Where each text begins among the tokens of all features, one after another, and the end of the last; int32, shape (texts + 1,)."""

    def within(self, mask: Mask) -> Mask:
        """That mask, by positions in a text, within each text."""

        def same(feature: torch.Tensor, head: torch.Tensor, query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
            of_one = self.numbers[feature, query] == self.numbers[feature, key]
            return of_one & mask(feature, head, self.positions[feature, query], self.positions[feature, key])

        return same

    @cached_property
    def causal(self) -> torch.Tensor:
        """Which tokens each one sees, shape (features, 1, tokens, tokens): those of its text up to itself."""
        numbers, place = self.numbers, torch.arange(self.numbers.shape[1], device=self.numbers.device)
        of_one = numbers.unsqueeze(2) == numbers.unsqueeze(1)
        return (of_one & (place.unsqueeze(1) >= place)).unsqueeze(1)


_READ: ContextVar[Documents | None] = ContextVar("documents", default=None)


@contextmanager
def reading(documents: Documents | None) -> Iterator[None]:
    """Within, a model reads these; None: features of one text each."""
    before = _READ.set(documents)
    try:
        yield
    finally:
        _READ.reset(before)


def read_now() -> Documents | None:
    """What the model is reading, if that is features of several texts."""
    return _READ.get()
