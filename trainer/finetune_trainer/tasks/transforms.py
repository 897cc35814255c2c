"""What a model is shown of an image: what its own image processor makes of it, and in training what may be altered before.

A processor resizes, crops and scales; which sizes and factors is in its settings. It does so for one image in some milliseconds under
Python's lock, so here its settings are followed by Pillow alone, and the factors applied to a whole batch where the model is. Whether
that is all that a processor does is not believed but tried: a few images go both ways, and where the pixels differ, the processor
itself is asked for each image.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from finetune_trainer.tasks.augment import Augment

Pixels = NDArray[np.uint8] | NDArray[np.float32]
"""Channels first: shape (3, height, width)."""

WARPED_FROM = 384
"""Pixels from which on ConvNeXt's processor crops nothing, but makes each image square."""
CLOSE = 1e-4
"""How far a value may be from what the processor gives; a step of a colour is a hundred times as much."""


@dataclass(frozen=True)
class Geometry:
    """How an image becomes one of `height` × `width`."""

    height: int
    width: int
    resample: int
    """Pillow's filter."""
    resized: Callable[[int, int], tuple[int, int]] | None
    """From height and width of an image to those that it is resized to, before what is too much is cut from all sides."""

    def __call__(self, image: Image.Image) -> Image.Image:
        if self.resized is not None:
            height, width = self.resized(image.height, image.width)
            image = image.resize((width, height), self.resample)
        left, top = (image.width - self.width) // 2, (image.height - self.height) // 2
        if image.size == (self.width, self.height):
            return image
        return image.crop((left, top, left + self.width, top + self.height))  # black where there was nothing


class Transform:
    """From an RGB image to the model's `pixel_values`, in two steps: `pixels` of one image, then `values` of many."""

    def __init__(self, processor: Any) -> None:
        """Raises ValueError when the processor makes images of different sizes."""
        self._processor = processor
        shapes = {tuple(self._asked(image).shape) for image in _PROBES}
        if len(shapes) != 1 or len(min(shapes)) != 3:
            sizes = " and ".join(" × ".join(map(str, shape)) for shape in sorted(shapes))
            raise ValueError(
                f"the image processor does not make images of one size of all images, but values of {sizes}; spec.images.size says which one "
                "it shall be"
            )
        _, self.height, self.width = shapes.pop()
        resample = getattr(processor, "resample", None)
        self.resample = int(Image.Resampling.BILINEAR if resample is None else resample)
        self.factor, self.offset = self._scaling()
        self.geometry = self._geometry()

    @property
    def is_followed(self) -> bool:
        """Whether Pillow does what the processor would, which is then not asked."""
        return self.geometry is not None

    def pixels(self, image: Image.Image) -> Pixels:
        """Of one image; bytes, or floats where the processor had to be asked."""
        return self._asked(image) if self.geometry is None else _channels_first(self.geometry(image))

    def altered(self, image: Image.Image, augment: Augment, draw: np.random.Generator) -> Pixels:
        """The same with what `augment` draws from `draw`."""
        box = augment.box(image.height, image.width, draw)
        if box is not None:
            image = image.resize((self.width, self.height), self.resample, box=box)
        elif self.geometry is not None:
            image = self.geometry(image)
        image = augment.altered(image, draw)
        if self.geometry is not None:
            return _channels_first(image)
        return self._asked(image, resized=box is not None)

    def values(self, pixels: Any) -> Any:
        """What the model gets, of an array or tensor of `pixels` of shape (images, 3, height, width)."""
        return pixels if self.geometry is None else pixels * self.factor + self.offset

    def _asked(self, image: Image.Image, *, resized: bool = False) -> NDArray[np.float32]:
        done = {"do_resize": False, "do_center_crop": False} if resized else {}
        values: NDArray[np.float32] = self._processor(image, return_tensors="np", **done)["pixel_values"][0]
        return values.astype(np.float32)

    def _scaling(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """What a byte is multiplied with, and what is added, shape (3, 1, 1) each: black and white tell."""
        black, white = (self._asked(Image.new("RGB", (8, 8), (v, v, v)), resized=True)[:, :1, :1] for v in (0, 255))
        return (white - black) / np.float32(255), black

    def _geometry(self) -> Geometry | None:
        """What the processor's settings say; None where that is not what it does."""
        try:
            geometry = Geometry(self.height, self.width, self.resample, _resizing(self._processor))
            for image in _PROBES:
                followed = _channels_first(geometry(image)) * self.factor + self.offset
                if not np.allclose(followed, self._asked(image), rtol=0, atol=CLOSE):
                    return None
        except (ValueError, TypeError, AttributeError):  # settings of another kind of processor
            return None
        return geometry


def _resizing(processor: Any) -> Callable[[int, int], tuple[int, int]] | None:
    """From height and width to those that the processor resizes an image to. Raises ValueError where its settings do not say it."""
    size = processor.size
    edge, crop_pct = size.get("shortest_edge"), getattr(processor, "crop_pct", None)
    if not processor.do_resize:
        return None
    if size.get("height") and size.get("width"):
        return lambda height, width: (size["height"], size["width"])
    if not edge or size.get("longest_edge"):
        raise ValueError(f"{size} is not followed")
    if crop_pct and edge >= WARPED_FROM:
        return lambda height, width: (edge, edge)
    if crop_pct:
        edge = int(edge / crop_pct)

    def keep_ratio(height: int, width: int) -> tuple[int, int]:
        longer = int(edge * max(height, width) / min(height, width))
        return (longer, edge) if width <= height else (edge, longer)

    return keep_ratio


def _channels_first(image: Image.Image) -> NDArray[np.uint8]:
    return np.ascontiguousarray(np.asarray(image).transpose(2, 0, 1))


def _noise(height: int, width: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(height).integers(0, 256, (height, width, 3), dtype=np.uint8))


_PROBES = (_noise(40, 67), _noise(67, 40), _noise(601, 450))
"""Smaller and larger than what models look at, wide and high."""
