"""Parts of a sound are hidden in training, other ones each epoch, so that none is relied on alone: SpecAugment (Park et al. 2019).

wav2vec2 and its kin hide spans of steps, behind a vector that is learnt, and spans of channels, behind zeros, as config.json asks
(`mask_time_prob`, `mask_feature_prob`). transformers draws them within a step for all of its batch, from lengths for which it waits for
the device, so that what is hidden of a sound depends on those beside it. Here they are drawn of each sound's own draw when it is made, by
the law that transformers has for a sound alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from finetune_trainer.tasks.base import Batch
from finetune_trainer.tasks.hearing import Hearing, noise

STEPS, CHANNELS = "mask_time_indices", "mask_feature_indices"
"""What transformers calls which steps, and which channels, are hidden."""


@dataclass(frozen=True)
class Spans:
    """What is hidden along one axis."""

    share: float
    """Of the axis, if no two spans overlapped; 0: nothing is hidden."""
    length: int
    """Of each span."""
    least: int
    """Spans, where so many fit beside one another."""

    @classmethod
    def of(cls, config: Any, axis: str, size: int) -> Spans:
        """Along an axis that has `size` places at most. Raises ValueError where no span would ever fit."""
        spans = cls(*(getattr(config, f"mask_{axis}_{name}", 0) for name in ("prob", "length", "min_masks")))
        if spans.share > 0 and not 1 <= spans.length <= size:
            raise ValueError(
                f"in training spans of {spans.length:,} are to be masked (mask_{axis}_length) of {size:,} at most"
            )
        return spans

    def drawn(self, size: int, draw: np.random.Generator) -> NDArray[np.bool_]:
        """Which of `size` places are hidden; what transformers' `_compute_mask_indices` makes of the same random numbers."""
        wanted = int(self.share * size / self.length + draw.random())  # as many in the mean as the share says
        count = min(max(wanted, self.least), size // self.length)
        hidden = np.zeros(size, dtype=bool)
        if count:
            starts = draw.choice(size - self.length + 1, count, replace=False)
            hidden[starts[:, None] + np.arange(self.length)] = True
        return hidden


class SpecAugment:
    """Lets a model hide in training what it is told to, and nothing by itself."""

    hidden: Batch
    """`STEPS` and `CHANNELS` of the next batch, if it has them; shape (sounds, steps) and (sounds, channels)."""

    def __init__(self, body: Any, hearing: Hearing) -> None:
        self._body = body
        longest = hearing.values(noise(int(hearing.seconds * hearing.rate)))
        self._steps = Spans.of(body.config, "time", self._steps_of(len(longest[hearing.input])))
        self._channels = Spans.of(body.config, "feature", body.config.hidden_size)
        self.hidden = {}
        body._mask_hidden_states = self._hide

    @classmethod
    def of(cls, model: Any, hearing: Hearing) -> SpecAugment | None:
        """None for a model that hides nothing: all but wav2vec2 and its kin, and those whose config tells them not to."""
        body = model.base_model
        hides = hasattr(body, "_mask_hidden_states") and getattr(body.config, "apply_spec_augment", True)
        return cls(body, hearing) if hides else None

    def drawn(self, values: int, heard: int, draw: np.random.Generator) -> Mapping[str, NDArray[np.bool_]]:
        """What is hidden of a sound of so many values, of which the first `heard` are the sound and the rest fills up."""
        found = {}
        if self._steps.share > 0:
            found[STEPS] = np.zeros(self._steps_of(values), dtype=bool)
            steps = self._steps_of(heard)
            found[STEPS][:steps] = self._steps.drawn(steps, draw)
        if self._channels.share > 0:
            found[CHANNELS] = self._channels.drawn(self._body.config.hidden_size, draw)
        return found

    def _steps_of(self, values: int) -> int:
        """What is left of so many values by convolutions; wav2vec2-bert has none."""
        config = self._body.config
        for kernel, stride in zip(getattr(config, "conv_kernel", ()), getattr(config, "conv_stride", ()), strict=True):
            values = (values - kernel) // stride + 1
        return values

    def _hide(self, hidden_states: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
        """As `_mask_hidden_states` of the model does, without looking at a value; shape (sounds, steps, channels)."""
        if not self._body.training:
            return hidden_states
        if (steps := self.hidden.get(STEPS)) is not None:
            instead = self._body.masked_spec_embed.to(hidden_states.dtype)
            hidden_states = torch.where(steps[..., None], instead, hidden_states)
        if (channels := self.hidden.get(CHANNELS)) is not None:
            hidden_states = hidden_states.masked_fill(channels[:, None], 0)
        return hidden_states
