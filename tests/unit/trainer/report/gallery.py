"""A page that shows each block of a report: `python -m tests.unit.trainer.report.gallery FOLDER` writes one to look at."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pictures, ImageDraw

from finetune_trainer.report.blocks import (
    Bar,
    Bars,
    Block,
    Card,
    Cards,
    Chat,
    Curve,
    Diff,
    LabelScore,
    Line,
    Marked,
    Message,
    PerLabel,
    Sample,
    Samples,
    Scatter,
    Sound,
    Span,
    Table,
    Text,
    sentence,
)
from finetune_trainer.report.facts import ReportFacts
from finetune_trainer.report.pictures import thumbnail
from finetune_trainer.report.write import write_report
from tests.training.tones import sound_file, tone
from tests.unit.trainer.report.runs import finished_run

SOUND = sound_file(tone("low", 1), format="MP3", subtype="MPEG_LAYER_III")
ARTICLE = (
    "Ada Lovelace met Charles Babbage in London in 1833. " + "Nothing of note is told of the months between. " * 30
) + "She published the first program in 1843, in Taylor's Scientific Memoirs."


def gallery() -> list[Block]:
    """One of each, and one for each thing that a card can show."""
    random = np.random.default_rng(7)
    scores = random.uniform(0, 5, 400)
    return [
        Scatter(
            "scores",
            "Scores",
            scores,
            np.clip(scores + random.normal(0, 0.5, 400), 0, 5),
            "true score",
            "predicted score",
            diagonal=True,
            note="Pearson 0.93.",
        ),
        Curve(
            "recall",
            "Recall at k",
            (
                Line("text of an image", (1, 2, 5, 10), (0.31, 0.44, 0.67, 0.8)),
                Line("image of a text", (1, 2, 5, 10), (0.27, 0.4, 0.61, 0.77)),
            ),
            "candidates looked at",
            "share in which the right one is",
        ),
        Bars("cut", "Tokens of a row", tuple(Bar(f"up to {n}", v) for n, v in ((8, 3), (16, 40), (32, 120), (64, 7)))),
        Table("rows", "Rows", ("Split", "Rows", "Repeated"), (("train", 1200, 3), ("تدريب", 12, "–"))),
        PerLabel(
            "entities",
            "Entities",
            (LabelScore("person", 0.8, 0.75, 0.774, 40), LabelScore("الشركة", 0.5, None, None, 0)),
            counted="Entities",
        ),
        Cards("tagged", "Sentences with the most mistakes", tagged()),
        Cards("answers", "Answers", answered()),
        Cards(
            "pictures",
            "The surest mistakes",
            tuple(
                Card(
                    f"images/{n}.png",
                    sentence(
                        (["cat", "قطة", "very long name of a dog"][n % 3], "said"),
                        " at 98.1 %, truly ",
                        ("猫", "truth"),
                    ),
                    (thumbnail(picture(n), f"an image of the label cat, number {n}"),),
                )
                for n in range(9)
            ),
        ),
        Cards(
            "sounds",
            "The surest mistakes of sounds",
            tuple(
                Card(
                    f"sounds/{n}.wav",
                    sentence(("low", "said"), " at 98.1 %, truly ", ("عالي", "truth")),
                    (Sound(SOUND, thumbnail(picture(n), f"the tones of sound {n}"), "the first 8 s" if n else ""),),
                )
                for n in range(3)
            ),
        ),
        Cards(
            "retrieved",
            "What images were taken for",
            (
                Card(
                    "pairs.parquet, row 7",
                    sentence("The right text came 12th"),
                    (
                        thumbnail(picture(3), "a red disc on blue"),
                        Text("a red disc on blue", "its text"),
                        Text("a green square", "taken for"),
                    ),
                ),
            ),
        ),
        Cards(
            "ranked",
            "Pairs most wrongly ranked",
            (
                Card(
                    "dev.csv, line 30",
                    sentence("Rank 12 of 1,500 by the model, truly 1,480"),
                    (Text("A man plays the flute."), Text("A man plays with his food.")),
                ),
                Card("dev.csv, line 31", None, (Text("كلب يركض"), Text("一条狗在跑"))),
            ),
        ),
        Cards(
            "texts",
            "Texts before and after",
            (
                Card(
                    "train.csv, line 9",
                    sentence("chrF 41.2 before, 67.9 after"),
                    (
                        Text("name[Blue Spice], eatType[pub]", "input"),
                        Diff("Blue Spice is Spice.", "Blue Spice is a nice pub.", "before and after training"),
                        Diff("蓝香料是一家酒吧。", "蓝香料是一家好酒吧。", "wanted and written"),
                    ),
                ),
            ),
        ),
        Samples(
            "samples",
            "Samples",
            (
                Sample(
                    "chat.jsonl, line 1",
                    Chat((Message("system", "You are brief."), Message("user", "What is 2 + 2?"))),
                    before="2 + 2 is a sum, which is an expression that",
                    after="4",
                    wanted=("4", "Four."),
                ),
                Sample("chat.jsonl, line 2", Text("Once upon a time"), before=None, after="there was a king."),
            ),
        ),
    ]


def tagged() -> tuple[Card, ...]:
    text = "Mark Zuckerberg leaves Meta Platforms for New York Times"
    arabic = "سافر محمد إلى القاهرة"
    return (
        Card(
            "dev.conll, line 120",
            sentence("2 of 3 entities are wrong"),
            (
                Marked(
                    text,
                    (
                        Span(0, 15, "truth", "person"),
                        Span(0, 15, "said", "person"),
                        Span(23, 37, "truth", "company"),
                        Span(23, 27, "said", "product"),
                        Span(42, 56, "truth", "paper"),
                        Span(42, 50, "said", "place"),
                    ),
                ),
            ),
        ),
        Card(
            "dev.conll, line 140",
            sentence("1 of 2 entities is wrong"),
            (
                Marked(
                    arabic,
                    (Span(5, 9, "truth", "person"), Span(5, 9, "said", "person"), Span(14, 21, "truth", "place")),
                ),
            ),
        ),
    )


def answered() -> tuple[Card, ...]:
    start, end = ARTICLE.index("1843"), ARTICLE.index("1833")
    return (
        Card(
            "dev.json, row 3",
            sentence(("1833", "said"), " at 61.0 %, truly ", ("1843", "truth")),
            (
                Text("When was the first program published?", "question"),
                Marked(ARTICLE, (Span(start, start + 4, "truth"), Span(end, end + 4, "said")), "context"),
            ),
        ),
    )


def picture(number: int) -> Pictures.Image:
    image = Pictures.new("RGB", (300, 200), ["#0072b2", "#d55e00", "#f2f2f2"][number % 3])
    ImageDraw.Draw(image).ellipse((60, 20, 220, 180), fill=["#e69f00", "#56b4e9", "#222222"][number % 3])
    return image


def noise(side: int, mode: str = "RGB") -> Pictures.Image:
    """A picture that cannot be compressed."""
    shape = (side, side, len(mode)) if len(mode) > 1 else (side, side)
    numbers: NDArray[np.uint8] = np.random.default_rng(7).integers(0, 256, shape, dtype=np.uint8)
    return Pictures.fromarray(numbers, mode)


def a_run_of_all() -> ReportFacts:
    return replace(finished_run(), blocks_by_split={"validation": gallery()})


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    write_report(folder, a_run_of_all())
    print((folder / "report.html").resolve().as_uri())
