"""Images as they might have been: what training alters at random so that a model learns what does not matter.

Each takes its chances from the generator that it is given, which depends on seed, epoch and image alone: a run that goes on from a
checkpoint sees the same images as one that was never stopped. The names and the ranges are torchvision's, as most recipes have them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

Box = tuple[float, float, float, float]
"""Left, top, right, bottom."""

CROP = "crop"
"""The one that decides what of an image is seen at all, in place of what the model's image processor would cut."""
AREA = 0.08, 1.0
"""What part of an image a crop shows."""
RATIO = 3 / 4, 4 / 3
"""How wide a crop is for its height, before it is made square."""
STRENGTH = 0.4
"""How much brighter or darker, and so on, a colour becomes at most."""
DEGREES = 15.0
ERASED = 0.02, 0.33
ERASED_RATIO = 0.3, 3.3


def crop(height: int, width: int, draw: np.random.Generator) -> Box:
    """Any part of an image, as RandomResizedCrop (Szegedy et al. 2015, Going Deeper with Convolutions) draws it."""
    for _ in range(10):
        area = height * width * draw.uniform(*AREA)
        ratio = math.exp(draw.uniform(math.log(RATIO[0]), math.log(RATIO[1])))
        wide, high = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < wide <= width and 0 < high <= height:
            left, top = int(draw.integers(width - wide + 1)), int(draw.integers(height - high + 1))
            return left, top, left + wide, top + high
    # Of very long images no such part was found: the middle, as large as may be.
    wide = min(width, max(1, round(height * RATIO[1])))
    high = min(height, max(1, round(width / RATIO[0])))
    left, top = (width - wide) // 2, (height - high) // 2
    return left, top, left + wide, top + high


def flip(image: Image.Image, draw: np.random.Generator) -> Image.Image:
    """Every other image as in a mirror."""
    return ImageOps.mirror(image) if draw.random() < 0.5 else image


def color(image: Image.Image, draw: np.random.Generator) -> Image.Image:
    """Brighter or darker, with more or less contrast, and more or less colourful."""
    for enhance in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
        image = enhance(image).enhance(draw.uniform(1 - STRENGTH, 1 + STRENGTH))
    return image


def rotate(image: Image.Image, draw: np.random.Generator) -> Image.Image:
    """Turned a little to either side; black where nothing is known."""
    return image.rotate(draw.uniform(-DEGREES, DEGREES), Image.Resampling.BILINEAR)


def erase(image: Image.Image, draw: np.random.Generator) -> Image.Image:
    """Every other image with a grey rectangle on it (Zhong et al. 2017, Random Erasing Data Augmentation)."""
    if draw.random() >= 0.5:
        return image
    area = image.height * image.width * draw.uniform(*ERASED)
    ratio = math.exp(draw.uniform(math.log(ERASED_RATIO[0]), math.log(ERASED_RATIO[1])))
    wide = min(image.width, max(1, round(math.sqrt(area * ratio))))
    high = min(image.height, max(1, round(math.sqrt(area / ratio))))
    left, top = int(draw.integers(image.width - wide + 1)), int(draw.integers(image.height - high + 1))
    image = image.copy()
    image.paste((127, 127, 127), (left, top, left + wide, top + high))
    return image


ALTER: Mapping[str, Callable[[Image.Image, np.random.Generator], Image.Image]] = {
    "flip": flip,
    "color": color,
    "rotate": rotate,
    "erase": erase,
}
"""By name, what is done to an image of the model's size; `crop` comes before all of them."""


class Augment:
    """What was asked for, in the order in which it was."""

    def __init__(self, names: Sequence[str]) -> None:
        self._crops = CROP in names
        self._alter = [ALTER[name] for name in names if name != CROP]

    def box(self, height: int, width: int, draw: np.random.Generator) -> Box | None:
        """What of an image to show; None: what the model's image processor shows."""
        return crop(height, width, draw) if self._crops else None

    def altered(self, image: Image.Image, draw: np.random.Generator) -> Image.Image:
        for alter in self._alter:
            image = alter(image, draw)
        return image
