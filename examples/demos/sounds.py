"""Short sounds of a whistle, made by chance: each labelled with what it does."""

from __future__ import annotations

import csv
import random
import wave
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

RATE = 8000
"""Samples a second."""
SECONDS = 0.6
LABELS = ("rises", "falls", "stays", "wavers", "beeps twice", "beeps three times")


def make(folder: Path) -> None:
    """`whistles/<split>/<number>.wav` and `whistles/<split>.csv` with the columns `audio` and `label`."""
    for split, each in (("train", 150), ("validation", 20), ("test", 40)):
        where = folder / "whistles" / split
        where.mkdir(parents=True, exist_ok=True)
        draw = random.Random(f"sounds {split}")
        with (folder / "whistles" / f"{split}.csv").open("w", newline="") as file:
            table = csv.writer(file)
            table.writerow(("audio", "label"))
            for number in range(each * len(LABELS)):
                label = LABELS[number % len(LABELS)]
                with wave.open(str(where / f"{number:03}.wav"), "wb") as sound:
                    sound.setnchannels(1)
                    sound.setsampwidth(2)
                    sound.setframerate(RATE)
                    sound.writeframes(_heard(label, draw).tobytes())
                table.writerow((f"{split}/{number:03}.wav", label))


def _heard(label: str, draw: random.Random) -> NDArray[np.int16]:
    """Samples, shape (RATE · SECONDS,): a tone with noise, sometimes louder than it."""
    time = np.arange(int(RATE * SECONDS)) / (RATE * SECONDS)
    pitch = np.full(len(time), draw.uniform(500, 1800))
    loud = np.ones(len(time))
    bend = draw.uniform(0.15, 0.8)
    match label:
        case "rises":
            pitch *= 1 + bend * time
        case "falls":
            pitch *= 1 + bend * (1 - time)
        case "wavers":
            pitch *= 1 + 0.3 * bend * np.sin(2 * np.pi * draw.uniform(3, 6) * time)
        case "beeps twice" | "beeps three times":
            beeps = {"beeps twice": 2, "beeps three times": 3}[label]
            loud = ((time * beeps + draw.uniform(0, 0.3)) % 1 < draw.uniform(0.4, 0.7)).astype(np.float64)
    tone = loud * np.sin(2 * np.pi * np.cumsum(pitch) / RATE)
    noise = np.random.default_rng(draw.getrandbits(32)).normal(0, draw.uniform(0.1, 0.8), len(time))
    return np.asarray(6000 * draw.uniform(0.3, 1) * (tone + noise)).clip(-32768, 32767).astype(np.int16)
