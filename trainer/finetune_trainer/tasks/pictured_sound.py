"""A sound as a picture: when which tones are heard, and below how loud it is."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from PIL import Image as Pictures

from finetune_trainer.data.kinds.waves import Wave
from finetune_trainer.report.blocks import Image
from finetune_trainer.report.pictures import SIDE, thumbnail

TONES = 96
"""Pixels of the tones, from 0 Hz at the bottom to half of the rate; what is left shows the wave."""
SEEN = 60.0
"""Decibels below the loudest tone that are white."""
LONGEST = 512
"""Samples of a spectrum."""


def pictured(wave: Wave, rate: int, alt: str) -> Image:
    """Time goes from left to right. Shape of `wave`: (samples,)."""
    picture = np.concatenate([_tones(wave), _outline(wave)])
    return thumbnail(Pictures.fromarray(picture, "L"), f"{alt}: {len(wave) / rate:.2f} s, its tones and its wave")


def _tones(wave: Wave) -> np.ndarray[tuple[int, int], np.dtype[np.uint8]]:
    """The spectrum of each of `SIDE` moments, black where it is loudest; shape (TONES, SIDE)."""
    size = min(LONGEST, max(2, len(wave)))
    padded = np.pad(wave, (0, max(0, size - len(wave))))
    starts = np.linspace(0, len(padded) - size, SIDE).astype(int)
    parts = padded[starts[:, None] + np.arange(size)] * np.hanning(size)
    power = np.abs(np.fft.rfft(parts, n=LONGEST)) ** 2
    bands = np.add.reduceat(power, np.arange(TONES) * power.shape[1] // TONES, axis=1)
    level = 10 * np.log10(np.maximum(bands / max(float(bands.max()), 1e-12), 1e-12))
    grey = 255 * np.clip(-level / SEEN, 0, 1)
    return grey.astype(np.uint8).T[::-1]


def _outline(wave: Wave) -> np.ndarray[tuple[int, int], np.dtype[np.uint8]]:
    """How far the wave goes up and down in each part of it; ±1 is all of the height. Shape (SIDE - TONES, SIDE)."""
    height = SIDE - TONES
    ends = np.linspace(0, len(wave), SIDE + 1).astype(int)
    parts = [wave[begin : max(end, begin + 1)] for begin, end in pairwise(ends.tolist())]
    low, high = (np.array([float(of(part)) if len(part) else 0.0 for part in parts]) for of in (np.min, np.max))
    rows = np.arange(height)[:, None]
    top, bottom = ((1 - np.clip(value, -1, 1)) / 2 * (height - 1) for value in (high, low))
    black = (rows >= np.floor(top)) & (rows <= np.ceil(bottom))
    return np.where(black, np.uint8(0), np.uint8(255))
