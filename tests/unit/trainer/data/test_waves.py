"""What is heard of a sound file is what it plays; what is no whole sound is told."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import soundfile

from finetune_trainer.data.bad_file import BadFile
from finetune_trainer.data.kinds.waves import BLOCK, Length, decode, length, prove
from tests.training.tones import sound_file
from tests.training.waves import BAD, BASE, GOOD, RATE


@pytest.mark.parametrize("name", GOOD)
def test_a_sound_plays_its_samples(name: str, tmp_path: Path) -> None:
    content, wanted, rate, tolerance = GOOD[name]
    (tmp_path / name).write_bytes(content)

    heard, found = decode(content)

    assert (heard.shape, found, heard.dtype) == (wanted.shape, rate, np.float32)
    assert np.abs(heard - wanted).max() <= tolerance
    assert np.array_equal(heard, decode(tmp_path / name)[0])
    assert prove(content).length == length(tmp_path / name) == Length(len(wanted), rate)


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_whole_sound_is_told(name: str, tmp_path: Path) -> None:
    content, words = BAD[name]
    (tmp_path / name).write_bytes(content)
    for source in (content, tmp_path / name):
        with pytest.raises(BadFile, match=words) as raised:
            prove(source)
        assert raised.value.remedy.endswith(".")
        assert "\n" not in str(raised.value)


def test_what_is_odd_is_told() -> None:
    looks = {name: prove(content) for name, (content, *_) in GOOD.items()}
    assert {name for name, look in looks.items() if look.is_mixed} == {
        *("stereo.wav", "six-channels.wav", "cancelled.wav")
    }
    assert {name for name, look in looks.items() if look.is_silent} == {"silent.wav", "cancelled.wav"}
    assert {name for name, look in looks.items() if look.is_clipped} == {"clipped.wav"}
    assert {name for name, look in looks.items() if look.is_beyond} == {"loud-floats.wav"}


def test_what_is_odd_is_told_of_sounds_of_many_blocks_as_of_short_ones() -> None:
    wave = np.tile(np.clip(4 * BASE, -1, 1), 2 * BLOCK // len(BASE) + 1)
    assert prove(sound_file(wave, RATE)).is_clipped
    assert not prove(sound_file(np.concatenate([wave / 2, BASE]), RATE)).is_clipped
    quiet = np.zeros(BLOCK + 100)
    assert prove(sound_file(quiet, RATE)).is_silent
    quiet[-1] = 0.5
    assert not prove(sound_file(quiet, RATE)).is_silent
    wave = np.tile(BASE, 2 * BLOCK // len(BASE) + 1)
    wave[BLOCK + 5] = np.nan
    with pytest.raises(BadFile, match=f"after {(BLOCK + 5) / RATE:.3f} s"):
        prove(sound_file(wave, RATE, subtype="FLOAT"))


def test_of_a_long_sound_the_beginning_is_heard() -> None:
    content = sound_file(np.tile(BASE, 40), RATE)
    heard, _ = decode(content, 1.3)
    assert len(heard) == round(1.3 * RATE)
    assert np.array_equal(heard, decode(content)[0][: len(heard)])


def test_libsndfile_is_the_wheels_own() -> None:
    """The image has none of its own: it is Python's slim one."""
    assert Path(soundfile._full_path).is_file() and not hasattr(soundfile, "_libname")


def test_no_file_stays_open(tmp_path: Path) -> None:
    for name, (content, *_) in {**GOOD, **BAD}.items():
        (tmp_path / name).write_bytes(content)
    for name in {**GOOD, **BAD}:
        with suppress(BadFile):
            prove(tmp_path / name)
    assert not any(opened.is_relative_to(tmp_path) for opened in open_files())


def open_files() -> Iterator[Path]:
    """Of this process."""
    for descriptor in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):  # the listing itself is over
            yield descriptor.readlink()


def test_an_unreadable_disk_is_no_bad_sound(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        prove(tmp_path / "gone.wav")
