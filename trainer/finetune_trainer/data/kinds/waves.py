"""A sound file as a wave: what it is, whether it is whole, and what is heard of it.

What is heard is the mean of its channels at the rate that it was recorded at, as loud as it was saved: whole numbers of any number of
bits become floats between -1 and 1, floats stay as they are. The file's content says what it is, not its name.

libsndfile reads what is there of a file that was cut off, so a file counts as whole only where it has as much as it says.
"""

from __future__ import annotations

import io
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from finetune_trainer.data.bad_file import BadFile
from finetune_trainer.data.foreign import HEAD, text_kind
from finetune_trainer.data.kinds.files import Source
from finetune_trainer.said import one_line

if TYPE_CHECKING:
    from soundfile import SoundFile

Wave = NDArray[np.float32]
"""Samples of one channel, shape (samples,)."""

FORMATS = frozenset({"WAV", "WAVEX", "RF64", "W64", "FLAC", "OGG", "MP3", "AIFF", "AU", "CAF"})
"""What is read, by libsndfile's names: of these it is known whether a file is whole. It would take a matrix of MATLAB for a sound, too."""
EXTENSIONS = frozenset(
    [
        ".wav",
        ".wave",
        ".flac",
        ".ogg",
        ".oga",
        ".opus",
        ".mp3",
        ".aif",
        ".aiff",
        ".aifc",
        ".au",
        ".snd",
        ".caf",
        ".w64",
        ".rf64",
    ]
)
"""How files of these formats are called."""

BLOCK = 1 << 18
"""Samples that are decoded at once, so that hours of sound take no more memory than seconds."""
QUIET = 2.0**-15
"""What is nowhere louder is silent: half of the least step of 8 bits, a step of 16."""
LOUD = 0.99
"""From which on a wave can have been cut off, as ±1 is the most that most formats hold."""
CUT_OFF = 0.01
"""The part of a wave at its very loudest from which on it was cut off: that of speech and music is a thousandth."""
FAR_BEYOND = 8.0
"""Times full scale that no mixing gives by accident."""
LAST_FRAME = 1152
"""Samples of a frame of MP3; files are about that often longer by their header than they are."""
MOST_RATE = 768_000
"""Samples a second; no converter makes more."""

SAVE_AS = "Save it as WAV or FLAC, or leave it out."
AGAIN = "Put the sound there again, or leave it out."


@dataclass(frozen=True)
class Length:
    """How long a sound is."""

    samples: int
    """Of each channel."""
    rate: int
    """Samples a second."""

    def at(self, rate: int) -> int:
        """How many samples it has once it is resampled to another rate."""
        return (2 * self.samples * rate + self.rate) // (2 * self.rate)


@dataclass(frozen=True)
class Look:
    """What there is to know of a sound without its samples."""

    length: Length
    is_mixed: bool
    """Whether it has several channels."""
    is_silent: bool
    is_clipped: bool
    """Whether its wave is cut off where it is loudest."""
    is_beyond: bool
    """Whether it has samples that are many times full scale."""


def decode(source: Source, seconds: float | None = None) -> tuple[Wave, int]:
    """What is heard of the first so many seconds, and the samples a second. Raises BadFile; OSError of the disk."""
    with _opened(source) as file:
        most = file.frames if seconds is None else min(file.frames, int(np.ceil(seconds * file.samplerate)))
        return _mixed(file.read(most, dtype="float32", always_2d=True)), int(file.samplerate)


def length(source: Source) -> Length:
    """How long a sound is that is whole. Raises as `decode`."""
    with _opened(source) as file:
        return Length(int(file.frames), int(file.samplerate))


def prove(source: Source) -> Look:
    """That all of it can be decoded. Raises as `decode`."""
    with _opened(source) as file:
        samples, peak, at_peak, beyond = 0, 0.0, 0, 0.0
        # Not `blocks`, which gives a block twice where a file ends before its time.
        while len(block := file.read(BLOCK, dtype="float32", always_2d=True)):
            if not np.isfinite(block).all():
                row = samples + int(np.flatnonzero(~np.isfinite(block).all(axis=1))[0])
                raise BadFile(
                    f"holds samples that are no numbers (NaN or infinite), the first after {row / file.samplerate:.3f} s",
                    "Make it again from where it came from, or leave it out.",
                )
            samples += len(block)
            beyond = max(beyond, float(np.abs(block).max(initial=0)))
            wave = np.abs(_mixed(block))
            loudest = float(wave.max(initial=0))
            at_peak = (at_peak if loudest <= peak else 0) + int((wave >= max(loudest, peak)).sum())
            peak = max(peak, loudest)
        _refuse_what_is_missing(file, samples)
        return Look(
            length=Length(samples, int(file.samplerate)),
            is_mixed=file.channels > 1,
            is_silent=peak <= QUIET,
            is_clipped=peak >= LOUD and at_peak > CUT_OFF * samples,
            is_beyond=beyond > FAR_BEYOND,
        )


def _mixed(channels: NDArray[np.float32]) -> Wave:
    """The mean of all channels, shape (samples,), of (samples, channels)."""
    return channels[:, 0] if channels.shape[1] == 1 else channels.mean(axis=1, dtype=np.float32)


@contextmanager
def _opened(source: Source) -> Iterator[SoundFile]:
    """Open a sound file; whatever libsndfile raises about its content, here or inside, is a BadFile."""
    import soundfile  # which only sounds need

    head, size, tail = _ends(source)
    if not size:
        raise BadFile("is empty: it has 0 bytes", AGAIN)
    if head.startswith(b"OggS") and (hole := _cut_page(tail)) is not None:
        raise BadFile(f"is not whole: {hole:,} bytes of its last page (Ogg) are missing", AGAIN)
    # By its number: a name would tell libsndfile what to take a file for that is no sound.
    opened: Any = io.BytesIO(source) if isinstance(source, bytes) else os.open(source, os.O_RDONLY)
    try:
        with soundfile.SoundFile(opened) as file:
            _refuse(file)
            yield file
    except (BadFile, MemoryError):
        raise
    except soundfile.LibsndfileError as error:
        raise _no_sound(head, size, error.error_string) from error
    except Exception as error:  # a broken file can make the library raise anything
        raise BadFile(f"is broken or not whole: {one_line(error)}", AGAIN) from error


def _refuse(file: SoundFile) -> None:
    """What libsndfile would decode, and should not."""
    if file.format not in FORMATS:
        raise BadFile(f"is a file of the format {file.format_info}, which is not read here", SAVE_AS)
    if not 0 < file.samplerate <= MOST_RATE:
        raise BadFile(f"says that it has {file.samplerate:,} samples a second", AGAIN)
    for claimed, there in _CLAIMS.findall(file.extra_info):
        # A size of all ones is that of a sound that was written without knowing its end.
        if int(there) + 1 < int(claimed) and int(claimed) & 0x7FFFFFFF < 0x7FFFFFFF - 0xFFFF:
            raise BadFile(
                f"is not whole: of {int(claimed):,} bytes that it says to have there are {int(there):,}", AGAIN
            )


def _refuse_what_is_missing(file: SoundFile, samples: int) -> None:
    """Fewer samples than the file says, or none."""
    missing = file.frames - samples
    if missing > (LAST_FRAME if file.format == "MP3" else 0):
        raise BadFile(f"is not whole: of {file.frames:,} samples that it says to have there are {samples:,}", AGAIN)
    if not samples:
        raise BadFile("has no samples: its header is all that there is", AGAIN)


_CLAIMS = re.compile(r": (\d+) \(should be (\d+)\)")
"""What libsndfile notes of sizes in a header that are not those of the file."""


def _ends(source: Source) -> tuple[bytes, int, bytes]:
    """How a file begins, how many bytes it has, how it ends."""
    if isinstance(source, bytes):
        return source[:HEAD], len(source), source[-_LONGEST_PAGE:]
    with source.open("rb") as file:
        head = file.read(HEAD)
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - _LONGEST_PAGE))
        return head, size, file.read()


_LONGEST_PAGE = 27 + 255 + 255 * 255


def _cut_page(tail: bytes) -> int | None:
    """How many bytes a file lacks whose last page of Ogg is longer than what is left of it. Of what is missing libsndfile says nothing."""
    begin = tail.rfind(b"OggS\x00")
    if begin < 0:
        return None
    header = tail[begin : begin + 27]
    segments = header[26] if len(header) == 27 else 0
    table = tail[begin + 27 : begin + 27 + segments]
    missing = begin + 27 + segments + sum(table) - len(tail)
    return missing if missing > 0 else None


_OTHERS: tuple[tuple[int, bytes, str], ...] = (
    (4, b"ftypM4A", "an AAC or ALAC recording (M4A)"),
    (4, b"ftyp", "a video or an AAC recording (MP4)"),
    (0, b"\x1aE\xdf\xa3", "a WebM or Matroska file"),
    (0, b"0&\xb2u\x8ef\xcf\x11", "a Windows Media file"),
    (0, b"#!AMR", "an AMR recording"),
    (0, b"ADIF", "an AAC recording"),
    (0, b"MThd", "a MIDI file, which has notes and no sound"),
    (0, b"wvpk", "a WavPack file"),
    (0, b"MAC ", "a Monkey's Audio file"),
    (0, b"PK\x03\x04", "an archive"),
    (0, b"\x1f\x8b", "an archive"),
    (0, b"\x89PNG\r\n\x1a\n", "a PNG image"),
    (0, b"\xff\xd8\xff", "a JPEG image"),
)
_KNOWN = (b"RIFF", b"RIFX", b"RF64", b"riff", b"fLaC", b"OggS", b"ID3", b"FORM", b".snd", b"caff")
"""How files begin that libsndfile reads."""


def _no_sound(head: bytes, size: int, said: str) -> BadFile:
    """What it is, of content that libsndfile does not read."""
    for offset, magic, what in _OTHERS:
        if head.startswith(magic, offset):
            return BadFile(f"is {what}, which cannot be read here", SAVE_AS)
    if head[:1] == b"\xff" and len(head) > 1 and head[1] & 0xF6 == 0xF0:
        return BadFile("is an AAC recording, which cannot be read here", SAVE_AS)
    kind = text_kind(head)
    if kind is not None:
        return BadFile(f"is {kind.what}", kind.remedy)
    if not head.strip(b"\x00"):
        return BadFile(f"begins with {min(size, HEAD):,} zero bytes", AGAIN)
    if head.startswith(_KNOWN) or (head[:1] == b"\xff" and len(head) > 1 and head[1] & 0xE0 == 0xE0):
        return BadFile(f"is broken or not whole: {one_line(said)}", AGAIN)
    return BadFile(f"is no sound that can be read: it begins with {head[:12]!r}", SAVE_AS)
