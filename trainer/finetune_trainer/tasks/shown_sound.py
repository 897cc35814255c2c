"""A sound for a report: to be heard, and as a picture of which tones are heard when, and below how loud it is."""

from __future__ import annotations

import io
from itertools import pairwise

import numpy as np
from PIL import Image as Pictures

from finetune_trainer.data.kinds.waves import Wave
from finetune_trainer.report.blocks import Image, Sound
from finetune_trainer.report.pictures import SIDE, thumbnail

TONES = 96
"""Pixels of the tones, from 0 Hz at the bottom to half of the rate; what is left shows the wave."""
SEEN = 60.0
"""Decibels below the loudest tone that are white."""
LONGEST = 512
"""Samples of a spectrum."""
PLAYED = 8
"""Seconds that are to be heard, so that a page has room for many sounds."""
PLAYED_RATE = 16_000
"""At which they are, which is enough for speech."""
TIGHT = 0.9
"""How far libsndfile presses: to 24 kbit/s of MP3, which every browser plays."""


def shown(wave: Wave, rate: int, alt: str) -> Sound:
    """Shape of `wave`: (samples,). `alt` says what it is."""
    seconds = len(wave) / rate
    alt = f"{alt}: {seconds:.2f} s, its tones and its wave"
    heard = f"the first {PLAYED} s" if seconds > PLAYED else ""
    return Sound(_pressed(wave[: PLAYED * rate], rate), _pictured(wave, alt), heard)


def _pressed(wave: Wave, rate: int) -> bytes:
    """As MP3; what is beyond full scale is made quieter, as MP3 holds no more."""
    import soundfile
    import soxr

    loudest = float(np.abs(wave).max(initial=1))
    played = soxr.resample(wave / np.float32(loudest), rate, PLAYED_RATE)
    file = io.BytesIO()
    soundfile.write(
        file,
        np.clip(played, -1, 1),
        PLAYED_RATE,
        format="MP3",
        subtype="MPEG_LAYER_III",
        bitrate_mode="CONSTANT",
        compression_level=TIGHT,
    )
    return file.getvalue()


def _pictured(wave: Wave, alt: str) -> Image:
    """Time goes from left to right."""
    return thumbnail(Pictures.fromarray(np.concatenate([_tones(wave), _outline(wave)]), "L"), alt)


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
