"""An image file as pixels: what it is, whether it is whole, and what is seen of it.

The pixels are those that transformers' own loader shows a model (`transformers.image_utils.load_image`, which its pipelines use): turned
as the camera said (EXIF), the first frame of a moving picture, RGB without regard to transparency. So a model is tuned on what it will
be asked about. The one exception are greys of 16 bits, of which that loader makes white wherever they are above 255: here they keep
their upper 8 bits, as every other reader has it.

Pillow opens a file lazily and lets some that are half empty pass, so a file counts as whole only once all of it was decoded.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from finetune_trainer.data.bad_file import BadFile
from finetune_trainer.data.foreign import HEAD, HOLE, text_kind
from finetune_trainer.said import one_line

warnings.filterwarnings("ignore", module=r"PIL\.")  # what matters of that is refused, and named

Source = bytes | Path
"""The content of an image file, or where it lies."""

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "JPEG2000", "PPM", "ICO", "QOI")
"""What is read, by Pillow's names: formats of pixels. Pillow would start Ghostscript for EPS, and reads much that is no picture."""
EXTENSIONS = frozenset(
    [
        ".jpg",
        ".jpeg",
        ".jpe",
        ".jfif",
        ".png",
        ".apng",
        ".webp",
        ".gif",
        ".bmp",
        ".dib",
        ".tif",
        ".tiff",
        ".avif",
        ".jp2",
        ".j2k",
        ".ppm",
        ".pgm",
        ".pbm",
        ".pnm",
        ".ico",
        ".qoi",
    ]
)
"""How files of these formats are called."""
MOST_PIXELS = 89_478_485
"""What Pillow takes for the most that is no attack: a quarter of a gigabyte in RGB. A few bytes can claim any number of pixels."""

MOST_ELONGATED = 200
"""Times that an image may be as long as wide. A line of pixels shows nothing, and would be made as high as a model wants it, and longer by as much."""

DEEP = frozenset({"I;16", "I;16B", "I;16L", "I;16N"})
"""Pillow's modes of greys of 16 bits."""
UNBOUNDED = {"F": "floating-point numbers", "I": "whole numbers of 32 bits"}
"""Pillow's modes of values without a largest one that would be white."""

SAVE_AS = "Save it as JPEG or PNG, or leave it out."
AGAIN = "Put the image there again, or leave it out."


@dataclass(frozen=True)
class Look:
    """What there is to know of an image without its pixels."""

    width: int
    """Of the upright image, in pixels."""
    height: int
    is_moving: bool
    """Whether frames follow the first one, which nobody will see."""
    is_transparent: bool
    """Whether it says what is to be seen through it."""
    is_deep: bool
    """Whether its greys have 16 bits."""


def decode(source: Source) -> Image.Image:
    """The pixels in RGB, upright. Raises BadFile; OSError of the disk."""
    with _opened(source) as image:
        return _seen(image)


def prove(source: Source) -> Look:
    """That all of it can be decoded. Raises as `decode`."""
    with _opened(source) as image:
        look = _look_of(image)
        if image.format == "JPEG":
            # The whole stream is read all the same, and an eighth of the size takes a third of the time.
            image.draft(image.mode, (image.width // 8, image.height // 8))
        _seen(image)
    return look


@contextmanager
def _opened(source: Source) -> Iterator[Image.Image]:
    """Open an image file; whatever Pillow raises about its content, here or inside, is a BadFile."""
    content = source if isinstance(source, bytes) else source.read_bytes()
    if not content:
        raise BadFile("is empty: it has 0 bytes", AGAIN)
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            _refuse(image, content)
            yield image
    except (BadFile, MemoryError):
        raise
    except Image.DecompressionBombError as error:
        raise _too_large(error) from error
    except UnidentifiedImageError as error:
        raise _no_image(content) from error
    except Exception as error:  # a broken file can make Pillow raise anything
        raise BadFile(f"is broken or not whole: {one_line(error)}", AGAIN) from error


def _refuse(image: Image.Image, content: bytes) -> None:
    """What Pillow would decode, and should not."""
    if image.width * image.height > MOST_PIXELS:
        raise _too_large(f"{image.width:,} × {image.height:,}")
    if max(image.size) > MOST_ELONGATED * min(image.size):
        raise BadFile(f"is but a line, {image.width:,} pixels wide and {image.height:,} high", "Leave it out.")
    if image.mode in UNBOUNDED:
        raise BadFile(
            f"has {UNBOUNDED[image.mode]} for pixels, of which nothing says how bright they are",
            "Scale them to 8 bits, and save it as PNG.",
        )
    hole = _hole_of(content, str(image.format))
    if hole is not None:
        raise BadFile(f"is not whole: from byte {hole:,} on it consists of zero bytes", AGAIN)


def _look_of(image: Image.Image) -> Look:
    turned = image.getexif().get(0x0112) in (5, 6, 7, 8)
    width, height = (image.height, image.width) if turned else image.size
    return Look(
        width=width,
        height=height,
        is_moving=image.format != "MPO" and bool(getattr(image, "is_animated", False)),  # MPO: previews and depths
        is_transparent=image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info,
        is_deep=image.mode in DEEP,
    )


def _seen(image: Image.Image) -> Image.Image:
    if image.mode in DEEP:
        # Of their bytes, because Pillow's own conversion cuts at 255.
        image = ImageOps.exif_transpose(image)
        return Image.fromarray((np.asarray(image).astype(np.uint16) >> 8).astype(np.uint8)).convert("RGB")
    return ImageOps.exif_transpose(image).convert("RGB")


_ENDS = {"JPEG": b"\xff\xd9", "MPO": b"\xff\xd9", "PNG": b"IEND\xaeB`\x82", "GIF": b";"}


def _hole_of(content: bytes, format: str) -> int | None:
    """Where a file begins to be zeros to its end, although that is no end of its format: a copy of which the rest never came."""
    if not content.endswith(HOLE) or format not in ("JPEG", "MPO", "PNG", "GIF", "WEBP", "AVIF", "JPEG2000"):
        return None
    end = len(content.rstrip(b"\x00"))
    if content[:end].endswith(_ENDS.get(format, b"-")):
        return None  # what follows is padding
    if format == "WEBP" and end >= 8 + int.from_bytes(content[4:8], "little") - 1:
        return None
    return end


_DRAWING = re.compile(
    rb"\s*(?:<\?xml[^>]*>\s*|<!--.*?-->\s*|<!DOCTYPE\s+svg[^>]*>\s*)*<svg[\s>]", re.DOTALL | re.IGNORECASE
)
_BOX = re.compile(rb".{4}ftyp(.{4})", re.DOTALL)
_PHOTO_BRANDS = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"})
_OTHERS: tuple[tuple[bytes, str], ...] = (
    (b"%!PS", "an EPS or PostScript drawing"),
    (b"8BPS", "a Photoshop document"),
    (b"\xff\x0a", "a JPEG XL image"),
    (b"\x00\x00\x00\x0cJXL ", "a JPEG XL image"),
    (b"v/1\x01", "an OpenEXR image"),
    (b"\x1aE\xdf\xa3", "a video"),
    (b"PK\x03\x04", "an archive"),
    (b"\x1f\x8b", "an archive"),
)


def _no_image(content: bytes) -> BadFile:
    """What it is, of content that Pillow does not know."""
    head = content[:HEAD]
    if _DRAWING.match(head):
        return BadFile("is a drawing (SVG), which has no pixels", "Render it as PNG, or leave it out.")
    box = _BOX.match(head)
    if box and box[1] in (b"avif", b"avis"):
        return BadFile("is broken or not whole: an AVIF image of which parts are missing", AGAIN)
    if box:
        is_photo = box[1] in _PHOTO_BRANDS
        return BadFile("is a HEIC photo, which cannot be read here" if is_photo else "is a video", SAVE_AS)
    for begin, what in _OTHERS:
        if head.startswith(begin):
            return BadFile(f"is {what}, which cannot be read here", SAVE_AS)
    kind = text_kind(head)
    if kind is not None:
        return BadFile(f"is {kind.what}", kind.remedy)
    if not content.strip(b"\x00"):
        return BadFile(f"consists of {len(content):,} zero bytes", AGAIN)
    return BadFile(f"is no image that can be read: it begins with {head[:12]!r}", SAVE_AS)


def _too_large(what: object) -> BadFile:
    return BadFile(
        f"claims to be larger than {MOST_PIXELS:,} pixels, as a decompression bomb does: {one_line(what)}",
        "Save it smaller, or leave it out.",
    )
