"""Sounds whose label is heard, and files of sounds."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import soundfile
from numpy.typing import NDArray

RATE = 8000
"""Of tiny models and of the tones."""

TONES = {"low": 300.0, "high": 1100.0}
"""What is heard of a label, in Hz."""


def tone(label: str, number: int, rate: int = RATE) -> NDArray[np.float32]:
    """A tone of its label, of some length and loudness, with noise on it."""
    draw = np.random.default_rng([number, int(TONES[label])])
    samples = int(rate * draw.uniform(0.1, 0.25))
    wave = np.sin(2 * np.pi * TONES[label] * draw.uniform(0.9, 1.1) * np.arange(samples) / rate + draw.uniform(0, 6))
    loud = draw.uniform(0.1, 0.6)
    return (loud * wave + draw.normal(0, loud / 10, samples)).astype(np.float32)


def sound_file(wave: NDArray[Any], rate: int = RATE, format: str = "WAV", subtype: str | None = None) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, wave, rate, format=format, subtype=subtype)
    return file.getvalue()
