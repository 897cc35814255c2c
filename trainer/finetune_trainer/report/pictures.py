"""Pictures small enough for a page that carries all it needs, and how it carries them."""

from __future__ import annotations

import base64
import io

from PIL import Image as Pictures

from finetune_trainer.report.blocks import MAX_IMAGE, Image, Sound

SIDE = 128
"""Pixels of a thumbnail's longer side at most."""


def thumbnail(picture: Pictures.Image, alt: str, name: str = "") -> Image:
    """The picture for a report, at most 128 pixels wide and high; one that is smaller keeps its size."""
    small = picture.convert("RGBA" if picture.has_transparency_data else "RGB")
    small.thumbnail((SIDE, SIDE))
    png = _png(small)
    if len(png) > MAX_IMAGE:
        # A palette, and 128 × 128 numbers of it: less than the most, even where nothing can be compressed.
        png = _png(small.quantize(256, method=Pictures.Quantize.FASTOCTREE))
    return Image(png, alt, name)


def data_uri(part: Image | Sound) -> str:
    kind, content = ("image/png", part.png) if isinstance(part, Image) else ("audio/mpeg", part.mp3)
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def _png(picture: Pictures.Image) -> bytes:
    file = io.BytesIO()
    picture.save(file, "PNG", optimize=True)
    return file.getvalue()
