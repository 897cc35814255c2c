"""Image files of every kind that a folder may hold, made here: by name, each with the pixels that are to be seen or with what is wrong.

`BASE` is what they show: 24 × 36 pixels of large coloured tiles, so that lossy formats keep it, and no two of its sides are alike.
"""

from __future__ import annotations

import io
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Pixels = NDArray[np.uint8]

_TILES = np.array(
    [
        [[200, 30, 30], [30, 160, 60], [40, 60, 190]],
        [[230, 220, 60], [120, 40, 140], [20, 20, 20]],
    ],
    dtype=np.uint8,
)
BASE: Pixels = np.kron(_TILES, np.ones((12, 12, 1), dtype=np.uint8))
"""Shape (24, 36, 3)."""
GREY: Pixels = np.kron(np.array([[10, 90, 200], [250, 130, 60]], dtype=np.uint8), np.ones((12, 12), dtype=np.uint8))
"""Shape (24, 36)."""


def saved(image: Image.Image, format: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def grey_as_rgb(grey: Pixels) -> Pixels:
    return np.repeat(grey[:, :, None], 3, axis=2)


def _base() -> Image.Image:
    return Image.fromarray(BASE)


def _turned(orientation: int, format: str = "JPEG") -> bytes:
    """Stored as a camera does that was held so; upright it is BASE."""
    back = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"JPEG": {"quality": 95, "subsampling": 0}, "PNG": {}, "WEBP": {"lossless": True}}[format]
    return saved(_base().transpose(back), format, exif=exif, **options)


def _moving(format: str) -> bytes:
    later = [Image.fromarray(255 - BASE), Image.fromarray(BASE[::-1])]
    options = {"lossless": True} if format == "WEBP" else {}
    return saved(_base(), format, save_all=True, append_images=later, duration=100, **options)


def _with_alpha() -> bytes:
    alpha = np.zeros((24, 36), dtype=np.uint8)
    alpha[6:18, 6:30] = 255
    return saved(Image.fromarray(np.dstack([BASE, alpha])), "PNG")


def _palette(*, transparent: bool) -> bytes:
    image = _base().quantize(colors=6, dither=Image.Dither.NONE)
    return saved(image, "PNG", transparency=bytes([0, 128, 255, 255, 255, 255])) if transparent else saved(image, "PNG")


def _cmyk() -> tuple[bytes, Pixels]:
    """Ink of three of the colours and black; by the formula in every textbook."""
    rgb = BASE.astype(np.float64)
    cmyk = np.dstack([255 - BASE, np.full((24, 36), 51, dtype=np.uint8)])
    wanted = rgb * (1 - 51 / 255)
    return saved(Image.fromarray(cmyk, "CMYK"), "TIFF"), wanted.round().astype(np.uint8)


_CMYK, CMYK_SEEN = _cmyk()

ONE_BIT: Pixels = (np.indices((24, 36)).sum(axis=0) % 5 < 2).astype(np.uint8) * 255
DEEP: NDArray[np.uint16] = GREY.astype(np.uint16) * 257

GOOD: dict[str, tuple[bytes, Pixels, int]] = {
    "plain.png": (saved(_base(), "PNG"), BASE, 0),
    "plain.jpg": (saved(_base(), "JPEG", quality=95, subsampling=0), BASE, 12),
    "progressive.jpg": (saved(_base(), "JPEG", quality=95, subsampling=0, progressive=True), BASE, 12),
    "plain.webp": (saved(_base(), "WEBP", lossless=True), BASE, 0),
    "plain.bmp": (saved(_base(), "BMP"), BASE, 0),
    "plain.tiff": (saved(_base(), "TIFF"), BASE, 0),
    "plain.gif": (saved(_base(), "GIF"), BASE, 2),
    "plain.jp2": (saved(_base(), "JPEG2000"), BASE, 0),
    "plain.ppm": (saved(_base(), "PPM"), BASE, 0),
    "alpha.png": (_with_alpha(), BASE, 0),
    "alpha.webp": (saved(Image.fromarray(np.dstack([BASE, 255 - GREY])), "WEBP", lossless=True, exact=True), BASE, 0),
    "palette.png": (_palette(transparent=False), BASE, 2),
    "palette-transparent.png": (_palette(transparent=True), BASE, 2),
    "grey.png": (saved(Image.fromarray(GREY), "PNG"), grey_as_rgb(GREY), 0),
    "grey-alpha.png": (saved(Image.fromarray(np.dstack([GREY, 255 - GREY]), "LA"), "PNG"), grey_as_rgb(GREY), 0),
    "one-bit.png": (saved(Image.fromarray(ONE_BIT).convert("1"), "PNG"), grey_as_rgb(ONE_BIT), 0),
    "one-bit.tiff": (saved(Image.fromarray(ONE_BIT).convert("1"), "TIFF"), grey_as_rgb(ONE_BIT), 0),
    "cmyk.tiff": (_CMYK, CMYK_SEEN, 1),
    "cmyk.jpg": (
        saved(
            Image.fromarray(np.dstack([255 - BASE, np.zeros((24, 36), np.uint8)]), "CMYK"),
            "JPEG",
            quality=95,
            subsampling=0,
        ),
        BASE,
        12,
    ),
    "16-bit.png": (saved(Image.fromarray(DEEP), "PNG"), grey_as_rgb(GREY), 0),
    "16-bit.tiff": (saved(Image.fromarray(DEEP), "TIFF"), grey_as_rgb(GREY), 0),
    "16-bit-big-endian.tiff": (saved(Image.fromarray(DEEP.astype(">u2")), "TIFF"), grey_as_rgb(GREY), 0),
    **{f"turned-{n}.jpg": (_turned(n), BASE, 12) for n in range(2, 9)},
    "turned-6.png": (_turned(6, "PNG"), BASE, 0),
    "turned-6.webp": (_turned(6, "WEBP"), BASE, 0),
    "moving.gif": (_moving("GIF"), BASE, 2),
    "moving.webp": (_moving("WEBP"), BASE, 0),
    "moving.png": (_moving("PNG"), BASE, 0),
    "really-a-png.jpg": (saved(_base(), "PNG"), BASE, 0),
    "without-extension": (saved(_base(), "PNG"), BASE, 0),
    "followed-by-padding.jpg": (saved(_base(), "JPEG", quality=95, subsampling=0) + bytes(512), BASE, 12),
    "followed-by-padding.png": (saved(_base(), "PNG") + bytes(512), BASE, 0),
    "followed-by-padding.webp": (saved(_base(), "WEBP", lossless=True) + bytes(512), BASE, 0),
    "one-pixel.png": (saved(Image.fromarray(BASE[:1, :1]), "PNG"), BASE[:1, :1], 0),
    "one-pixel-high.png": (saved(Image.fromarray(BASE[:1]), "PNG"), BASE[:1], 0),
}
"""By file name: the content, what is seen, shape (height, width, 3), and by how much a value may differ in a lossy format."""


def _bomb(width: int, height: int) -> bytes:
    """A PNG of a few bytes that says it is of this size."""
    content = bytearray(saved(Image.new("L", (1, 1)), "PNG"))
    content[16:24] = width.to_bytes(4, "big") + height.to_bytes(4, "big")
    content[29:33] = zlib.crc32(bytes(content[12:29])).to_bytes(4, "big")
    return bytes(content)


_NOISE = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)


def _half_zeros(content: bytes) -> bytes:
    return content[: len(content) // 2] + bytes(len(content) - len(content) // 2)


def _noise(format: str) -> bytes:
    return saved(Image.fromarray(_NOISE), format)


def _flipped_bit(content: bytes) -> bytes:
    broken = bytearray(content)
    broken[len(broken) // 2] ^= 0x10
    return bytes(broken)


BAD: dict[str, tuple[bytes, str]] = {
    "empty.jpg": (b"", "0 bytes"),
    "zeros.png": (bytes(4096), "4,096 zero bytes"),
    **{
        f"truncated.{format.lower()}": (_noise(format)[:-400], "not whole")
        for format in ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "JPEG2000")
    },
    **{
        f"half-zeros.{format.lower()}": (_half_zeros(_noise(format)), "not whole")
        for format in ("JPEG", "PNG", "WEBP", "GIF", "AVIF", "JPEG2000")
    },
    "flipped-bit.png": (_flipped_bit(_noise("PNG")), "broken"),
    "header-only.jpg": (_noise("JPEG")[:100], "not whole"),
    "page.jpg": (b"<!DOCTYPE html><html><head><title>Sign in</title>", "web page"),
    "refused.jpg": (b'<?xml version="1.0"?>\n<Error><Code>AccessDenied</Code></Error>', "AccessDenied"),
    "pointer.jpg": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 12345\n", "Git LFS pointer"),
    "drawing.svg": (b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg"></svg>', "SVG"),
    "drawing.png": (b'<svg width="1" height="1"/>', "SVG"),
    "photo.heic": (b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00mif1heic" + bytes(range(200)), "HEIC"),
    "clip.mp4": (b"\x00\x00\x00\x18ftypisom\x00\x00\x02\x00isomiso2" + bytes(range(200)), "video"),
    "print.eps": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n", "PostScript"),
    "layers.psd": (b"8BPS\x00\x01" + bytes(100), "Photoshop"),
    "paper.pdf": (b"%PDF-1.7\n", "PDF"),
    "images.zip": (b"PK\x03\x04" + bytes(range(100)), "archive"),
    "words.jpg": (b"a photo of a dog", "no image"),
    "bomb.png": (_bomb(50_000, 50_000), "decompression bomb"),
    "small-bomb.png": (_bomb(12_000, 12_000), "decompression bomb"),
    "line.png": (saved(Image.new("L", (1, 5000)), "PNG"), "but a line"),
    "floats.tiff": (saved(Image.fromarray(GREY.astype(np.float32)), "TIFF"), "floating-point"),
    "32-bit.tiff": (saved(Image.fromarray(GREY.astype(np.int32)), "TIFF"), "32 bits"),
}
"""By file name: the content, and words of what is said about it."""
