"""Sound files of every kind that a folder may hold, made here: by name, each with the samples that are to be heard or with what is wrong.

`BASE` is what they play: a quarter of a second of a rising tone that fades in, so that no two parts of it are alike.
"""

from __future__ import annotations

import io
import struct
from typing import Any

import numpy as np
import soundfile
from numpy.typing import NDArray

from tests.training.tones import sound_file

Wave = NDArray[np.float64]

RATE = 16_000


def rising(rate: int, seconds: float = 0.25) -> Wave:
    """Shape (samples,)."""
    at = np.arange(round(seconds * rate)) / rate
    return 0.6 * at / seconds * np.sin(2 * np.pi * (200 + 800 * at / seconds) * at)


BASE = rising(RATE)
OTHER = -0.5 * rising(RATE)[::-1]
"""What another channel plays."""


def _file(wave: Wave = BASE, subtype: str | None = "PCM_16", format: str = "WAV", rate: int = RATE) -> bytes:
    return sound_file(wave, rate, format, subtype)


def _by_hand(samples: NDArray[Any], *, riff: int | None = None, data: int | None = None) -> bytes:
    """A WAV of 16 bits whose header says it has so many bytes; the true number where none is given."""
    content = samples.astype("<i2").tobytes()
    sizes = (36 + len(content) if riff is None else riff, len(content) if data is None else data)
    format = struct.pack("<HHIIHH", 1, 1, RATE, 2 * RATE, 2, 16)
    return (
        b"RIFF"
        + struct.pack("<I", sizes[0])
        + b"WAVEfmt "
        + struct.pack("<I", 16)
        + format
        + b"data"
        + struct.pack("<I", sizes[1])
        + content
    )


WHOLE = np.round(BASE * 32767)
_CHANNELS = np.stack([BASE, OTHER, BASE / 2, 0 * BASE, OTHER, BASE], axis=1)

GOOD: dict[str, tuple[bytes, Wave, int, float]] = {
    "8-bit.wav": (_file(subtype="PCM_U8"), BASE, RATE, 1 / 127),
    "16-bit.wav": (_file(), BASE, RATE, 1 / 32767),
    "24-bit.wav": (_file(subtype="PCM_24"), BASE, RATE, 1e-6),
    "32-bit.wav": (_file(subtype="PCM_32"), BASE, RATE, 1e-6),
    "floats.wav": (_file(subtype="FLOAT"), BASE, RATE, 1e-6),
    "doubles.wav": (_file(subtype="DOUBLE"), BASE, RATE, 1e-6),
    "telephone.wav": (_file(subtype="ULAW"), BASE, RATE, 0.02),
    "8-khz.wav": (_file(rising(8000), rate=8000), rising(8000), 8000, 1 / 32767),
    "44.1-khz.wav": (_file(rising(44_100), rate=44_100), rising(44_100), 44_100, 1 / 32767),
    "48-khz.flac": (_file(rising(48_000), "PCM_16", "FLAC", 48_000), rising(48_000), 48_000, 1 / 32767),
    "stereo.wav": (_file(np.stack([BASE, OTHER], axis=1)), (BASE + OTHER) / 2, RATE, 1 / 32767),
    "six-channels.wav": (_file(_CHANNELS), _CHANNELS.mean(axis=1), RATE, 1 / 32767),
    "plain.flac": (_file(format="FLAC"), BASE, RATE, 1 / 32767),
    "deep.flac": (_file(subtype="PCM_24", format="FLAC"), BASE, RATE, 1e-6),
    "plain.ogg": (_file(subtype="VORBIS", format="OGG"), BASE, RATE, 0.1),
    "plain.opus": (_file(subtype="OPUS", format="OGG"), BASE, RATE, 0.3),
    "plain.mp3": (_file(subtype="MPEG_LAYER_III", format="MP3"), BASE, RATE, 0.1),
    "plain.aiff": (_file(format="AIFF"), BASE, RATE, 1 / 32767),
    "plain.au": (_file(format="AU"), BASE, RATE, 1 / 32767),
    "plain.caf": (_file(format="CAF"), BASE, RATE, 1 / 32767),
    "plain.w64": (_file(format="W64"), BASE, RATE, 1 / 32767),
    "plain.rf64": (_file(format="RF64"), BASE, RATE, 1 / 32767),
    "really-a-flac.wav": (_file(format="FLAC"), BASE, RATE, 1 / 32767),
    "without-extension": (_file(), BASE, RATE, 1 / 32767),
    "without-an-end.wav": (_by_hand(WHOLE, riff=0xFFFFFFFF, data=0xFFFFFFFF), BASE, RATE, 2 / 32767),
    "without-an-end-by-sox.wav": (_by_hand(WHOLE, riff=0x7FFFF024, data=0x7FFFF000), BASE, RATE, 2 / 32767),
    "followed-by-more.wav": (_file() + b"LIST" + struct.pack("<I", 4) + b"INFO", BASE, RATE, 1 / 32767),
    "silent.wav": (_file(0 * BASE), 0 * BASE, RATE, 0),
    "cancelled.wav": (_file(np.stack([BASE, -BASE], axis=1), "FLOAT"), 0 * BASE, RATE, 0),
    "clipped.wav": (_file(np.clip(4 * BASE, -1, 1)), np.clip(4 * BASE, -1, 1), RATE, 2 / 32767),
    "loud-floats.wav": (_file(32_767 * BASE, "FLOAT"), 32_767 * BASE, RATE, 0.01),
    "one-sample.wav": (_file(BASE[500:501]), BASE[500:501], RATE, 1 / 32767),
}
"""By file name: the content, what is heard, shape (samples,), at how many samples a second, and by how much a sample may differ."""


def _with_numbers_that_are_none(value: float) -> bytes:
    wave = BASE.copy()
    wave[1600] = value
    return _file(wave, "FLOAT")


def _cut(content: bytes, count: int = 1500) -> bytes:
    return content[:-count]


def _half_zeros(content: bytes) -> bytes:
    return content[: len(content) // 2] + bytes(len(content) - len(content) // 2)


_LONGER = rising(RATE, 2.0)


def _longer(format: str, subtype: str) -> bytes:
    return _file(_LONGER, subtype, format)


def _matrix() -> bytes:
    file = io.BytesIO()
    soundfile.write(file, BASE, RATE, format="MAT5", subtype="DOUBLE")
    return file.getvalue()


BAD: dict[str, tuple[bytes, str]] = {
    "empty.wav": (b"", "0 bytes"),
    "zeros.wav": (bytes(4096), "zero bytes"),
    "header-only.wav": (_by_hand(np.zeros(0)), "no samples"),
    "cut-header.wav": (_file()[:30], "broken or not whole"),
    **{
        f"cut.{format.lower()}": (_cut(_longer(format, subtype)), "not whole")
        for format, subtype in (
            ("WAV", "PCM_16"),
            ("FLAC", "PCM_16"),
            ("OGG", "VORBIS"),
            ("OGG", "OPUS"),
            ("MP3", "MPEG_LAYER_III"),
            ("AIFF", "PCM_16"),
            ("AU", "PCM_16"),
            ("CAF", "PCM_16"),
        )
    },
    "cut.opus": (_cut(_longer("OGG", "OPUS")), "not whole"),
    **{
        f"half-zeros.{format.lower()}": (_half_zeros(_longer(format, subtype)), "not whole")
        for format, subtype in (("FLAC", "PCM_16"), ("OGG", "VORBIS"), ("MP3", "MPEG_LAYER_III"))
    },
    "nan.wav": (_with_numbers_that_are_none(np.nan), "no numbers .* after 0.100 s"),
    "infinite.wav": (_with_numbers_that_are_none(-np.inf), "no numbers .* after 0.100 s"),
    "page.wav": (b"<!DOCTYPE html><html><head><title>Sign in</title>", "web page"),
    "refused.mp3": (b'<?xml version="1.0"?>\n<Error><Code>AccessDenied</Code></Error>', "AccessDenied"),
    "pointer.flac": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 12345\n", "Git LFS pointer"),
    "words.wav": (b"a recording of a dog", "no sound"),
    "song.m4a": (b"\x00\x00\x00\x20ftypM4A \x00\x00\x02\x00" + bytes(range(200)), "AAC"),
    "clip.mp3": (b"\x00\x00\x00\x18ftypisom\x00\x00\x02\x00isomiso2" + bytes(range(200)), "MP4"),
    "song.aac": (b"\xff\xf1\x50\x80" + bytes(range(200)), "AAC"),
    "clip.ogg": (b"\x1aE\xdf\xa3" + bytes(range(200)), "WebM"),
    "song.wma": (b"0&\xb2u\x8ef\xcf\x11" + bytes(range(200)), "Windows Media"),
    "notes.mid": (b"MThd\x00\x00\x00\x06" + bytes(range(100)), "MIDI"),
    "picture.wav": (b"\x89PNG\r\n\x1a\n" + bytes(range(100)), "PNG"),
    "sounds.zip": (b"PK\x03\x04" + bytes(range(100)), "archive"),
    "sphere.wav": (_file(format="NIST"), "NIST Sphere.* not read here"),
    "matrix.wav": (_matrix(), "not read here"),
    "raw.vox": (bytes(np.random.default_rng(0).integers(0, 256, 4000, np.uint8)), "no sound"),
}
"""By file name: the content, and words of what is said about it."""
