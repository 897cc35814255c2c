"""A model is shown what its own image processor makes of an image, whichever it is; what training alters comes from the draw alone."""

import importlib
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from PIL import Image

from finetune_trainer.tasks.augment import ALTER, Augment, crop
from finetune_trainer.tasks.transforms import Transform


def _processor(model: str, name: str, **settings: Any) -> Any:
    module = importlib.import_module(f"transformers.models.{model}.image_processing_pil_{model}")
    return getattr(module, f"{name}ImageProcessorPil").from_dict(settings)


RESNET_50 = {
    "crop_pct": 0.875,
    "do_normalize": True,
    "do_resize": True,
    "feature_extractor_type": "ConvNextFeatureExtractor",
    "image_mean": [0.485, 0.456, 0.406],
    "image_std": [0.229, 0.224, 0.225],
    "resample": 3,
    "size": 224,
}
"""As microsoft/resnet-50 has it: written by an older version of transformers."""

FOLLOWED: dict[str, Callable[[], Any]] = {
    "ResNet-50": lambda: _processor("convnext", "ConvNext", **RESNET_50),
    "ConvNeXt, small": lambda: _processor("convnext", "ConvNext", size={"shortest_edge": 64}, crop_pct=0.8),
    "ConvNeXt, warped": lambda: _processor("convnext", "ConvNext", size={"shortest_edge": 384}),
    "ViT and Swin": lambda: _processor("vit", "ViT", size={"height": 48, "width": 48}),
    "ViT, not square": lambda: _processor("vit", "ViT", size={"height": 32, "width": 48}),
    "DeiT": lambda: _processor("deit", "DeiT", size={"height": 64, "width": 64}, crop_size={"height": 57, "width": 57}),
    "CLIP": lambda: _processor("clip", "CLIP", size={"shortest_edge": 48}, crop_size={"height": 48, "width": 48}),
    "CLIP, cut less than there is": lambda: _processor(
        "clip", "CLIP", size={"shortest_edge": 33}, crop_size={"height": 48, "width": 47}
    ),
    "CLIP, not resized": lambda: _processor("clip", "CLIP", do_resize=False, crop_size={"height": 70, "width": 70}),
    "SigLIP": lambda: _processor("siglip", "Siglip", size={"height": 48, "width": 48}),
    "EfficientNet": lambda: _processor("efficientnet", "EfficientNet", size={"height": 60, "width": 60}),
    "EfficientNet, from -1": lambda: _processor(
        "efficientnet", "EfficientNet", size={"height": 60, "width": 60}, rescale_offset=True, rescale_factor=1 / 127.5
    ),
    "EfficientNet, nearest": lambda: _processor(
        "efficientnet", "EfficientNet", size={"height": 60, "width": 60}, resample=0
    ),
    "BiT": lambda: _processor("bit", "Bit", size={"shortest_edge": 56}, crop_size={"height": 48, "width": 48}),
    "neither scaled nor normalised": lambda: _processor(
        "vit", "ViT", size={"height": 48, "width": 48}, do_rescale=False, do_normalize=False
    ),
}


class Equalising:
    """A processor of somebody's own: each image is stretched to its own brightest and darkest."""

    resample = 2
    size = {"height": 20, "width": 20}  # noqa: RUF012
    do_resize = True

    def __call__(self, image: Image.Image, *, do_resize: bool = True, **_: Any) -> dict[str, Any]:
        pixels = np.asarray(image.resize((20, 20)) if do_resize else image).astype(np.float32).transpose(2, 0, 1)
        return {"pixel_values": [(pixels - pixels.min()) / max(float(np.ptp(pixels)), 1.0)]}


ASKED: dict[str, Callable[[], Any]] = {
    "LeViT": lambda: _processor("levit", "Levit", size={"shortest_edge": 48}, crop_size={"height": 48, "width": 48}),
    "somebody's own": Equalising,
}
"""What they do their settings do not say."""

SHAPES = [(1, 1), (3, 200), (48, 48), (47, 48), (61, 40), (333, 500), (500, 333)]


def noise(height: int, width: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng([height, width]).integers(0, 256, (height, width, 3), dtype=np.uint8))


def _asked(processor: Any, image: Image.Image) -> Any:
    return np.asarray(processor(image, return_tensors="np")["pixel_values"][0])


@pytest.mark.parametrize("name", [*FOLLOWED, *ASKED])
def test_a_model_is_shown_what_its_processor_makes(name: str) -> None:
    processor = (FOLLOWED | ASKED)[name]()
    transform = Transform(processor)
    assert transform.is_followed == (name in FOLLOWED)
    for shape in SHAPES:
        image = noise(*shape)
        shown, wanted = transform.values(transform.pixels(image)), _asked(processor, image)
        assert shown.shape == wanted.shape == (3, transform.height, transform.width)
        assert np.allclose(shown, wanted, rtol=0, atol=1e-5 * max(1.0, float(np.abs(wanted).max())))


@pytest.mark.parametrize("name", FOLLOWED)
def test_bytes_are_kept_until_the_model_sees_them(name: str) -> None:
    """A quarter of the memory, and of what goes to a GPU."""
    assert Transform(FOLLOWED[name]()).pixels(noise(30, 40)).dtype == np.uint8


def test_a_processor_that_makes_images_of_any_size_is_refused() -> None:
    with pytest.raises(ValueError, match="images of one size"):
        Transform(_processor("vit", "ViT", size={"shortest_edge": 48}))


ALL = ["crop", *ALTER]


@pytest.mark.parametrize("name", [["flip"], ["crop"], ["color"], ["rotate"], ["erase"], ALL])
@pytest.mark.parametrize("processor", ["CLIP", "ResNet-50", "LeViT"])
def test_the_same_draw_alters_the_same(name: list[str], processor: str) -> None:
    transform, image = Transform((FOLLOWED | ASKED)[processor]()), noise(90, 120)
    altered = [transform.altered(image, Augment(name), np.random.default_rng([7, 0, n])) for n in (1, 1, 2, 3, 4, 5)]
    assert np.array_equal(altered[0], altered[1])
    assert any(not np.array_equal(altered[0], other) for other in altered[2:])
    assert {one.shape for one in altered} == {(3, transform.height, transform.width)}


@pytest.mark.parametrize("processor", ["CLIP", "LeViT"])
def test_nothing_asked_for_is_nothing_altered(processor: str) -> None:
    transform, image = Transform((FOLLOWED | ASKED)[processor]()), noise(90, 120)
    assert np.array_equal(transform.altered(image, Augment([]), np.random.default_rng(0)), transform.pixels(image))


def test_about_half_of_the_images_are_flipped_and_the_others_are_as_they_were() -> None:
    transform, image = Transform(FOLLOWED["CLIP"]()), noise(90, 120)
    plain = transform.pixels(image)
    flipped = 0
    for index in range(200):
        one = transform.altered(image, Augment(["flip"]), np.random.default_rng([0, 0, index]))
        flipped += np.array_equal(one, plain[:, :, ::-1])
        assert np.array_equal(one, plain) or np.array_equal(one, plain[:, :, ::-1])
    assert 70 < flipped < 130


def test_a_crop_is_any_part_of_the_image_of_the_usual_size_and_shape() -> None:
    """Torchvision's ranges: between 8 % and all of the area, between 3:4 and 4:3."""
    areas, ratios, lefts = [], [], []
    for index in range(2000):
        left, top, right, bottom = crop(400, 400, np.random.default_rng(index))
        assert 0 <= left < right <= 400
        assert 0 <= top < bottom <= 400
        areas.append((right - left) * (bottom - top) / 400**2)
        ratios.append((right - left) / (bottom - top))
        lefts.append(left / max(1, 400 - (right - left)))
    assert 0.078 < min(areas) < 0.1 and 0.9 < max(areas) <= 1
    assert 0.74 < min(ratios) < 0.77 and 1.3 < max(ratios) < 1.36
    assert abs(np.mean(lefts) - 0.5) < 0.02
    # Shapes are drawn by their logarithm, so that wide and high ones are as frequent.
    assert abs(np.mean([ratio > 1 for ratio in ratios]) - 0.5) < 0.04


@pytest.mark.parametrize(("height", "width"), [(10, 1000), (1000, 10), (1, 1), (1, 2)])
def test_the_middle_is_cropped_where_no_part_has_a_usual_shape(height: int, width: int) -> None:
    left, top, right, bottom = crop(height, width, np.random.default_rng(0))
    assert 0 <= left < right <= width and 0 <= top < bottom <= height
    if max(height, width) == 1000:
        assert abs((left + right) - width) <= 1 and abs((top + bottom) - height) <= 1
        assert math.isclose(max(right - left, bottom - top), 13.3, abs_tol=0.5)


def test_a_crop_shows_that_part_of_the_image() -> None:
    """Of an image whose red is the column and whose green is the row."""
    columns, rows = np.meshgrid(np.arange(200), np.arange(200))
    image = Image.fromarray(np.dstack([columns, rows, np.zeros_like(rows)]).astype(np.uint8))
    transform = Transform(FOLLOWED["CLIP"]())
    for index in range(20):
        left, top, right, bottom = crop(200, 200, np.random.default_rng(index))
        red, green, _ = transform.altered(image, Augment(["crop"]), np.random.default_rng(index)).astype(int)
        assert abs(red.mean() - (left + right - 1) / 2) < 1.5
        assert abs(green.mean() - (top + bottom - 1) / 2) < 1.5
        assert np.ptp(red) >= (right - left) * 0.9 - 2


def test_colours_change_by_at_most_what_is_said() -> None:
    grey = Image.new("RGB", (8, 8), (100, 100, 100))
    seen = [int(np.asarray(ALTER["color"](grey, np.random.default_rng(n)))[0, 0, 0]) for n in range(300)]
    assert 59 <= min(seen) < 70 and 130 < max(seen) <= 141


def test_about_half_of_the_images_have_a_grey_rectangle() -> None:
    white = Image.new("RGB", (60, 60), (255, 255, 255))
    parts = [float((np.asarray(ALTER["erase"](white, np.random.default_rng(n))) == 127).mean()) for n in range(300)]
    erased = [part for part in parts if part]
    assert 110 < len(erased) < 190
    assert min(erased) > 0.01 and 0.25 < max(erased) < 0.36
    assert np.asarray(white).min() == 255


def test_a_rotation_turns_by_a_few_degrees() -> None:
    line = Image.fromarray(np.repeat((np.arange(101) == 50)[:, None, None] * np.uint8(255), 101, 1).repeat(3, 2))
    tilts = []
    for n in range(50):
        turned = np.asarray(ALTER["rotate"](line, np.random.default_rng(n)))[:, :, 0].astype(float)
        left, right = (turned[:, x].argmax() for x in (10, 90))
        tilts.append(math.degrees(math.atan2(left - right, 80)))
    assert -16 < min(tilts) < -8 and 8 < max(tilts) < 16
