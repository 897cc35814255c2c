"""Group normalisation of sounds that does not depend on what fills up their batch.

wav2vec2-base and its kin (HuBERT, WavLM, UniSpeech) normalise each channel of their first layer by its mean and variance over time. Over
silence that only fills up a batch, too: so a sound would be answered otherwise beside a longer one. They were pretrained without an
attention mask, and get none for a sound alone. Here those statistics are taken over the sound itself, so that with a mask a sound in a
batch is answered as it is alone.
"""

from __future__ import annotations

import torch
from torch import nn


class GroupNormOfSounds(nn.GroupNorm):
    """The module, with nothing of its own to save. One group a channel."""

    lengths: torch.Tensor | None = None
    """Of each sound of the next batch how many samples go into the convolution before, shape (sounds,); None: all are equally long."""
    kernel: int
    stride: int
    """Of that convolution."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """`input` has the shape (sounds, channels, steps)."""
        if self.lengths is None:
            return super().forward(input)
        steps = (self.lengths - self.kernel) // self.stride + 1
        inside = (torch.arange(input.shape[-1], device=input.device) < steps[:, None])[:, None]
        values = input.float().masked_fill(~inside, 0)
        count = steps[:, None, None].float()
        centred = values - values.sum(-1, keepdim=True) / count
        variance = centred.masked_fill(~inside, 0).square().sum(-1, keepdim=True) / count
        return centred * torch.rsqrt(variance + self.eps) * self.weight[:, None] + self.bias[:, None]


def norms_of_sounds(model: nn.Module) -> list[GroupNormOfSounds]:
    """The layers of a model that normalise by the length of a sound, which are made such ones."""
    found = []
    for layer in model.modules():
        conv, norm = getattr(layer, "conv", None), getattr(layer, "layer_norm", None)
        if not isinstance(conv, nn.Conv1d) or not isinstance(norm, nn.GroupNorm) or conv.in_channels != 1:
            continue
        if norm.num_groups == norm.num_channels and norm.affine and conv.padding == (0,) and conv.dilation == (1,):
            norm.__class__ = GroupNormOfSounds
            assert isinstance(norm, GroupNormOfSounds)
            norm.kernel, norm.stride = int(conv.kernel_size[0]), int(conv.stride[0])
            found.append(norm)
    return found
