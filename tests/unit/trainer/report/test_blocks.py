"""Each block on a page: what it shows, that it can do no harm, and that the page stays small."""

from __future__ import annotations

import base64
import io
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pictures

from finetune_trainer.report.blocks import (
    MAX_IMAGE,
    MAX_SOUND,
    Bar,
    Bars,
    Block,
    Card,
    Cards,
    Chat,
    Curve,
    Diff,
    Grid,
    Image,
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
from finetune_trainer.report.pictures import thumbnail
from finetune_trainer.report.plots import POINTS, block_plot
from finetune_trainer.report.write import write_report
from tests.unit.trainer.report.gallery import SOUND, gallery, noise, picture
from tests.unit.trainer.report.runs import NASTY, finished_run
from tests.unit.trainer.report.test_report import Page, one_line


def page_of(folder: Path, *blocks: Block) -> str:
    """The page of a run that shows only these blocks."""
    write_report(folder, replace(finished_run(), blocks_by_split={"validation": blocks}, history=[]))
    return (folder / "report.html").read_text("utf-8")


def test_each_kind_of_block_and_of_part_is_in_the_gallery() -> None:
    blocks = gallery()
    assert {type(block) for block in blocks} == set(Block.__args__) - {Grid}  # which other tests look at
    parts = {type(part) for block in blocks if isinstance(block, Cards) for card in block.cards for part in card.parts}
    assert parts == {Text, Marked, Diff, Image, Sound}
    assert any(isinstance(s.prompt, Chat) for block in blocks if isinstance(block, Samples) for s in block.samples)


def test_the_gallery_is_shown_and_whatever_is_drawn_is_a_file_too(tmp_path: Path) -> None:
    blocks = gallery()
    html = page_of(tmp_path, *blocks)
    page = Page(html)
    text = one_line(page.text)
    for block in blocks:
        assert f"<h3>{block.title}</h3>" in html
    for said in (
        "Pearson 0.93",
        "said product",
        "truly company",
        "pairs.parquet, row 7",
        "猫",
        "What is 2 + 2?",
        "Four.",
    ):
        assert said in text
    assert sorted(path.name for path in (tmp_path / "plots").iterdir()) == [
        "recall-validation.png",
        "scores-validation.png",
    ]
    ids = re.findall(r'\bid="([^"]+)"', html)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'(?:href="#|url\(#)([^")]+)', html)) <= set(ids)


def test_who_does_not_see_the_page_is_told_the_same(tmp_path: Path) -> None:
    page = Page(page_of(tmp_path, *gallery()))
    for tag, attributes in page.elements:
        if tag == "img":
            assert attributes["alt"]
        if tag == "audio":
            assert attributes["aria-label"] and "controls" in attributes
        if tag == "svg":
            assert attributes["role"] == "img" and attributes["aria-label"]
        if tag == "th":
            assert attributes.get("scope") in ("col", "row")
        if "scroll" in (attributes.get("class") or "").split():
            assert attributes["tabindex"] == "0" and attributes["role"] == "region" and attributes["aria-label"]
    # The numbers of a curve, and on which side a mark without a label is.
    text = one_line(page.text)
    assert "0.310" in text and "0.800" in text
    assert "1843truly" in text and "1833said" in text


HOSTILE: dict[str, Block] = {
    "grid": Grid("g", NASTY, (NASTY, "b"), np.array([[1, 2], [3, 4]]), note=NASTY),
    "picture of a grid": Grid("g", NASTY, tuple(f"{NASTY}{n}" for n in range(31)), np.eye(31, dtype=np.int64)),
    "per label": PerLabel("p", NASTY, (LabelScore(NASTY, 1, 1, 1, 1),), note=NASTY),
    "bars": Bars("b", NASTY, (Bar(NASTY, 1), Bar(sentence((NASTY, "said")), 2)), note=NASTY),
    "table": Table("t", NASTY, (NASTY, NASTY), ((NASTY, NASTY), (NASTY, 3)), note=NASTY),
    "scatter": Scatter("s", NASTY, np.arange(3.0), np.arange(3.0), NASTY, NASTY, note=NASTY),
    "curve": Curve("c", NASTY, (Line(NASTY, (0.1, 0.2), (0.3, 0.4), (1, 2)),), NASTY, NASTY, note=NASTY),
    "cards": Cards(
        "k",
        NASTY,
        (
            Card(
                NASTY,
                sentence((NASTY, "said"), NASTY, (NASTY, "truth")),
                (
                    thumbnail(picture(1), NASTY, NASTY),
                    Sound(SOUND, thumbnail(picture(1), NASTY), NASTY, NASTY),
                    Text(NASTY, NASTY),
                    Marked(NASTY, (Span(2, 60, "said", NASTY), Span(5, 70, "truth", NASTY)), NASTY),
                    Diff(NASTY, f"{NASTY} <b>", NASTY),
                    Chat((Message(NASTY, NASTY),), NASTY),
                ),
            ),
        ),
        note=NASTY,
    ),
    "no cards": Cards("k", NASTY, (), note=NASTY, empty=NASTY),
    "samples": Samples("m", NASTY, (Sample(NASTY, Text(NASTY), NASTY, NASTY, (NASTY,)),), note=NASTY),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_what_users_wrote_is_text_in_every_block(kind: str, tmp_path: Path) -> None:
    html = page_of(tmp_path, HOSTILE[kind])
    page = Page(html)
    tags = {tag for tag, _ in page.elements}
    assert not tags & {"script", "iframe", "b", "object"}
    for tag, attributes in page.elements:
        assert not [name for name in attributes if name.startswith("on")]
        assert tag != "img" or str(attributes["src"]).startswith("data:image/png;base64,")
        assert tag != "audio" or str(attributes["src"]).startswith("data:audio/mpeg;base64,")
        assert "url(" not in (attributes.get("style") or "")
    assert one_line(NASTY) in one_line(page.text)
    assert "{{ 7*7 }}" in page.text


def test_what_looks_like_svg_in_a_label_stays_as_it_is(tmp_path: Path) -> None:
    """The SVG is rewritten for the page; what users wrote in it is not."""
    labels = ('id="a" url(#b)', "#222326", "font: 9px x")
    html = page_of(tmp_path, Curve("c", "t", tuple(Line(label, (0.1, 0.2), (0.3, 0.4)) for label in labels), "x", "y"))
    svg = html.partition("<svg")[2].partition("</svg>")[0]
    text = Page(f"<svg{svg}</svg>").text
    assert all(label in text for label in labels)


def test_a_page_is_small_whatever_the_data_is(tmp_path: Path) -> None:
    long, many = "猫" * 20_000, 1000
    loud = tuple(thumbnail(noise(200), f"{n} {long}") for n in range(4))
    names = tuple(f"{n}{long[:1000]}" for n in range(many))
    card = Card(
        long,
        sentence((long, "said"), " at ", (long, "truth")),
        (
            *loud,
            Sound(bytes(MAX_SOUND), loud[0], long),
            Text(long, "a text"),
            Marked(long, tuple(Span(n, n + 50, "said", "x" * 999) for n in range(0, 19_000, 25))),
            Diff(long, "犬" * 20_000),
            Chat(tuple(Message(long, long) for _ in range(500))),
        ),
    )
    blocks: list[Block] = [
        Grid("grid", "t", names, np.ones((many, many), np.int64)),
        PerLabel("labels", "t", tuple(LabelScore(name, 0.5, 0.5, 0.5, 9) for name in names)),
        Bars("bars", "t", tuple(Bar(name, 1) for name in names)),
        Scatter(
            "scatter", "t", np.random.default_rng(7).random(10**6), np.random.default_rng(8).random(10**6), "x", "y"
        ),
        Curve("curve", "t", (Line("one", tuple(np.linspace(0, 1, 10**5)), tuple(np.linspace(0, 1, 10**5))),), "x", "y"),
        Cards("cards", "t", (card,) * many),
        Cards("others", "t", (card,) * many),
        Samples("samples", "t", (Sample(long, Text(long), long, long, (long,) * 500),) * many),
    ]
    html = page_of(tmp_path, *blocks)
    assert len(html.encode()) < 5_000_000


def test_examples_for_which_there_is_no_room_are_counted(tmp_path: Path) -> None:
    cards = tuple(
        Card(f"{n}.png", None, tuple(thumbnail(noise(128), f"noise {n}") for _ in range(5))) for n in range(30)
    )
    page = Page(page_of(tmp_path, Cards("pictures", "t", cards), Cards("more", "t", cards)))
    shown = [attributes["alt"] for tag, attributes in page.elements if tag == "img"]
    assert shown[:5] == ["noise 0"] * 5
    assert 100 < len(shown) < 240
    left = [int(n) for n in re.findall(r"and (\d+) more", page.text)]
    assert sum(left) == 60 - len(shown) // 5


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "LA", "CMYK", "I;16", "F"])
def test_a_thumbnail_of_any_picture_is_a_small_png(mode: str) -> None:
    source = noise(500).convert("L").convert("I").convert(mode) if mode in ("I;16", "F") else noise(500).convert(mode)
    small = thumbnail(source, "noise")
    assert len(small.png) <= MAX_IMAGE
    with Pictures.open(io.BytesIO(small.png)) as opened:
        opened.load()
        assert opened.size == (128, 128)


def test_a_thumbnail_keeps_what_fits_and_what_shines_through() -> None:
    with Pictures.open(io.BytesIO(thumbnail(picture(1).resize((32, 20)), "").png)) as opened:
        assert opened.size == (32, 20)
        assert opened.convert("RGB").tobytes() == picture(1).resize((32, 20)).tobytes()
    clear = Pictures.new("RGBA", (10, 10), (255, 0, 0, 0))
    with Pictures.open(io.BytesIO(thumbnail(clear, "").png)) as opened:
        assert opened.convert("RGBA").getpixel((5, 5)) == (255, 0, 0, 0)


def test_only_small_pngs_are_images_of_a_report() -> None:
    for bad in (b"\xff\xd8\xff", b"\x89PNG" + b"0" * MAX_IMAGE, b""):
        with pytest.raises(ValueError, match="PNG"):
            Image(bad, "")


def test_pictures_in_a_page_are_the_thumbnails(tmp_path: Path) -> None:
    small = thumbnail(picture(2), "two")
    html = page_of(tmp_path, Cards("k", "t", (Card("a.png", None, (small,)),)))
    (found,) = re.findall(r'<img src="data:image/png;base64,([^"]+)" alt="two">', html)
    assert base64.b64decode(found) == small.png


def test_sounds_in_a_page_are_those_that_the_task_pressed(tmp_path: Path) -> None:
    html = page_of(tmp_path, Cards("k", "t", (Card("a.wav", None, (Sound(SOUND, thumbnail(picture(2), "two")),)),)))
    (found,) = re.findall(
        r'<audio controls preload="none" src="data:audio/mpeg;base64,([^"]+)" aria-label="two">', html
    )
    assert base64.b64decode(found) == SOUND
    with pytest.raises(ValueError, match="MP3"):
        Sound(bytes(MAX_SOUND + 1), thumbnail(picture(2), "two"))


def test_a_scatter_of_very_many_examples_shows_some_of_them_and_the_same_each_time() -> None:
    random = np.random.default_rng(7)
    block = Scatter("s", "t", random.random(50_000), random.random(50_000), "x", "y")
    one, two = block_plot(block, "test"), block_plot(block, "test")
    assert one is not None and two is not None
    assert one.svg == two.svg
    assert one.svg.count("<use ") < POINTS + 50


def test_a_curve_of_shares_goes_from_0_to_1_and_of_ranks_as_far_as_they_do(tmp_path: Path) -> None:
    for x, there in (((0.2, 0.4), "0.8"), ((1, 20), "20")):
        plot = block_plot(Curve("c", "t", (Line("a", x, (0.1, 0.9)),), "x", "y"), "test")
        assert plot is not None
        assert f">{there}</text>" in plot.svg


def test_what_a_task_knows_of_itself_is_in_the_record_and_its_names_in_the_card(tmp_path: Path) -> None:
    write_report(tmp_path, replace(finished_run(), task_facts={"labels": ["b|", "a"], "threshold": 0.5}))
    record = json.loads((tmp_path / "run.json").read_text())
    assert (record["labels"], record["threshold"]) == (["b|", "a"], 0.5)
    assert "The labels, in the order of their numbers: `b\\|`, `a`." in (tmp_path / "README.md").read_text()


def test_where_nothing_was_written_page_and_card_say_so_and_quote_nothing(tmp_path: Path) -> None:
    prompt = Chat((Message("system", ""), Message("user", "Hi")))
    page = page_of(tmp_path, Samples("m", "Samples", (Sample("a.jsonl, line 1", prompt, " \n", "", ("",)),)))
    assert page.count("(nothing)</p>") == 4 and '<blockquote dir="auto"></blockquote>' not in page
    assert '<blockquote dir="auto">Hi</blockquote>' in page
    assert "| `Hi` | (nothing) | (nothing) |" in (tmp_path / "README.md").read_text()
