"""What is seen of an image file is what it shows, and what transformers' own loader shows a model; what is no whole image is told."""

import base64
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from finetune_trainer.data.bad_file import BadFile
from finetune_trainer.data.pixels import decode, prove
from tests.training.pictures import BAD, BASE, GOOD, saved

WHITENED = {"16-bit.png", "16-bit.tiff", "16-bit-big-endian.tiff"}
"""Of which transformers' loader makes white."""


@pytest.mark.parametrize("name", GOOD)
def test_an_image_shows_its_pixels(name: str, tmp_path: Path) -> None:
    content, wanted, tolerance = GOOD[name]
    (tmp_path / name).write_bytes(content)

    seen = np.asarray(decode(content))

    assert seen.shape == wanted.shape
    assert np.abs(seen.astype(int) - wanted.astype(int)).max() <= tolerance
    assert np.array_equal(seen, np.asarray(decode(tmp_path / name)))
    look = prove(content)
    assert (look.height, look.width) == wanted.shape[:2]


def in_a_pipeline(content: bytes) -> NDArray[np.uint8]:
    from transformers.image_utils import load_image  # with torch

    return np.asarray(load_image(base64.b64encode(content).decode()))


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in GOOD if name not in WHITENED])
def test_it_is_what_a_pipeline_sees(name: str) -> None:
    content = GOOD[name][0]
    assert np.array_equal(np.asarray(decode(content)), in_a_pipeline(content))


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(WHITENED))
def test_only_greys_of_16_bits_are_not(name: str) -> None:
    """Else nothing would have to be said of them."""
    assert prove(GOOD[name][0]).is_deep
    assert (in_a_pipeline(GOOD[name][0]) == 255).all()


def test_what_nobody_will_see_is_told() -> None:
    looks = {name: prove(content) for name, (content, _, _) in GOOD.items()}
    assert {name for name, look in looks.items() if look.is_moving} == {"moving.gif", "moving.webp", "moving.png"}
    assert {name for name, look in looks.items() if look.is_deep} == WHITENED
    assert {name for name, look in looks.items() if look.is_transparent} == {
        *("alpha.png", "alpha.webp", "palette-transparent.png", "grey-alpha.png")
    }


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_whole_image_is_told(name: str, tmp_path: Path) -> None:
    content, words = BAD[name]
    (tmp_path / name).write_bytes(content)
    for source in (content, tmp_path / name):
        with pytest.raises(BadFile, match=words) as raised:
            prove(source)
        assert raised.value.remedy.endswith(".")
        assert "\n" not in str(raised.value)
        with pytest.raises(BadFile, match=words):
            decode(source)


def test_an_unreadable_disk_is_no_bad_image(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        prove(tmp_path / "gone.png")


def test_the_second_picture_of_a_camera_is_no_later_frame() -> None:
    """Phones put a preview or a map of distances behind the photo (MPO)."""
    photo = Image.fromarray(np.kron(BASE, np.ones((4, 4, 1), np.uint8)))
    content = saved(photo, "MPO", save_all=True, append_images=[photo.resize((36, 24))])
    assert not prove(content).is_moving
    assert decode(content).size == photo.size


def test_a_large_photo_is_read() -> None:
    look = prove(saved(Image.new("L", (9000, 6000)), "JPEG"))
    assert (look.width, look.height) == (9000, 6000)
