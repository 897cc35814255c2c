"""Small images of coloured shapes, drawn by chance: each with its label, or with a caption."""

from __future__ import annotations

import csv
import math
import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

SIDE = 32
FINER = 4
"""Shapes are drawn so many times as large and made smaller then, which smooths their edges."""
NOISE = 14.0
"""Standard deviation of what is added to each value, of 0 to 255."""
SHAPES = ("circle", "cross", "heart", "hexagon", "ring", "square", "star", "triangle")
COLOURS = {
    "red": (205, 45, 45),
    "orange": (235, 140, 30),
    "yellow": (235, 215, 60),
    "green": (50, 155, 70),
    "blue": (45, 85, 205),
    "purple": (130, 60, 165),
    "pink": (240, 145, 190),
    "white": (245, 245, 245),
}
GROUNDS = {"black": (20, 20, 22), "grey": (128, 128, 130), "brown": (105, 70, 40)}
PLACES = {
    "at the top left": (0.3, 0.3),
    "at the top right": (0.7, 0.3),
    "at the bottom left": (0.3, 0.7),
    "at the bottom right": (0.7, 0.7),
    "in the middle": (0.5, 0.5),
}


def labelled(folder: Path) -> None:
    """`shapes/<split>/<label>/<number>.png`: shapes of any colour, size and place, turned a little."""
    for split, each in (("train", 200), ("validation", 30), ("test", 50)):
        draw = random.Random(f"labelled {split}")
        for shape in SHAPES:
            place = folder / "shapes" / split / shape
            place.mkdir(parents=True, exist_ok=True)
            for number in range(each):
                centre = (draw.uniform(0.35, 0.65), draw.uniform(0.35, 0.65))
                colour, ground = draw.choice([*COLOURS.values()]), draw.choice([*GROUNDS.values()])
                image = drawn(shape, colour, ground, centre, draw.uniform(0.18, 0.34), draw.uniform(-0.3, 0.3), draw)
                image.save(place / f"{number:03}.png")


def captioned(folder: Path) -> list[str]:
    """`captions/<split>/<number>.png` and `captions/<split>/metadata.csv` with a text for each. Returns the texts, all different."""
    every = [
        (size, colour, shape, ground, place)
        for size in ("small", "large")
        for colour in COLOURS
        for shape in SHAPES
        for ground in GROUNDS
        for place in PLACES
    ]
    draw = random.Random("captioned")
    draw.shuffle(every)
    chosen = iter(every)
    texts: list[str] = []
    for split, rows in (("train", 1440), ("validation", 160), ("test", 200)):
        where = folder / "captions" / split
        where.mkdir(parents=True, exist_ok=True)
        with (where / "metadata.csv").open("w", newline="") as file:
            table = csv.writer(file)
            table.writerow(("file_name", "text"))
            for number in range(rows):
                size, colour, shape, ground, place = next(chosen)
                radius = {"small": 0.14, "large": 0.25}[size] * draw.uniform(0.9, 1.1)
                turned = draw.uniform(-0.2, 0.2)
                image = drawn(shape, COLOURS[colour], GROUNDS[ground], PLACES[place], radius, turned, draw)
                image.save(where / f"{number:04}.png")
                texts.append(f"a {size} {colour} {shape} {place}, on {ground}")
                table.writerow((f"{number:04}.png", texts[-1]))
    return texts


def drawn(
    shape: str,
    colour: tuple[int, int, int],
    ground: tuple[int, int, int],
    centre: tuple[float, float],
    radius: float,
    turned: float,
    draw: random.Random,
) -> Image.Image:
    """`centre` and `radius` are parts of the image's side, `turned` is in radians."""
    fine = SIDE * FINER
    image = Image.new("RGB", (fine, fine), ground)
    pencil = ImageDraw.Draw(image)
    x, y, r = centre[0] * fine, centre[1] * fine, radius * fine
    if shape in ("circle", "ring"):
        pencil.ellipse((x - r, y - r, x + r, y + r), fill=colour)
        if shape == "ring":
            pencil.ellipse((x - r / 2, y - r / 2, x + r / 2, y + r / 2), fill=ground)
    else:
        cos, sin = math.cos(turned), math.sin(turned)
        corners = [(x + r * (cos * u - sin * v), y + r * (sin * u + cos * v)) for u, v in _corners(shape)]
        pencil.polygon(corners, fill=colour)
    small = np.asarray(image.resize((SIDE, SIDE), Image.Resampling.BOX), dtype=np.float64)
    noise = np.random.default_rng(draw.getrandbits(32)).normal(0, NOISE, small.shape)
    return Image.fromarray((small + noise).clip(0, 255).astype(np.uint8))


def _corners(shape: str) -> Iterator[tuple[float, float]]:
    """Across and down, from the shape's middle, where 1 is its radius."""
    match shape:
        case "cross":
            thin = 0.32
            yield from ((-thin, -1), (thin, -1), (thin, -thin), (1, -thin), (1, thin), (thin, thin))
            yield from ((thin, 1), (-thin, 1), (-thin, thin), (-1, thin), (-1, -thin), (-thin, -thin))
        case "heart":
            for step in range(40):
                t = 2 * math.pi * step / 40
                down = 13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t)
                yield (math.sin(t) ** 3, -down / 16)
        case "square":
            yield from ((-0.8, -0.8), (0.8, -0.8), (0.8, 0.8), (-0.8, 0.8))
        case "star":
            for step in range(10):
                angle, far = math.pi * step / 5, 1 if step % 2 == 0 else 0.42
                yield (far * math.sin(angle), -far * math.cos(angle))
        case _:
            sides = {"triangle": 3, "hexagon": 6}[shape]
            for step in range(sides):
                angle = 2 * math.pi * step / sides
                yield (math.sin(angle), -math.cos(angle))
