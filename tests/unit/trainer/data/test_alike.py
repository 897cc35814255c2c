"""Texts and labels that look the same and are written with other characters."""

from __future__ import annotations

from pathlib import Path

import pytest

from finetune_trainer.data.alike import is_blank, look
from tests.unit.trainer.data.folders import csv, load_from, written

ALIKE = {
    "composed and not": ("caf\u00e9", "cafe\u0301"),
    "a zero-width blank": ("good", "go\u200bod"),
    "a byte order mark": ("good", "\ufeffgood"),
    "a soft hyphen": ("good", "go\u00adod"),
    "a non-breaking blank": ("so good", "so\u00a0good"),
    "a wide blank": ("so good", "so\u3000good"),
    "a non-breaking blank behind": ("good", "good\u00a0"),
    "a blank behind": ("good", "good "),
    "wide letters": ("good", "\uff47\uff4f\uff4f\uff44"),
    "narrow katakana": ("\u30ab\u30bf", "\uff76\uff80"),
    "a ligature": ("fine", "\ufb01ne"),
    "a variation selector": ("\u2764", "\u2764\ufe0f"),
    "a mark of direction": ("good", "good\u200f"),
    "Hangul in pieces": ("\ud55c", "\u1112\u1161\u11ab"),
}


@pytest.mark.parametrize(("one", "other"), ALIKE.values(), ids=ALIKE)
def test_labels_that_look_the_same_are_told_with_how_they_are_written(one: str, other: str, tmp_path: Path) -> None:
    written(tmp_path, {"train.csv": csv(f"a,{one}", f"b,{other}"), "dev.csv": csv(f"c,{one}", f"d,{other}")})
    (warning,) = load_from(tmp_path, splits={"validation": "dev.csv"}).warnings
    assert "differ only in case, blanks, or how Unicode writes" in warning
    assert (ascii(other)[1:-1] if not other.isascii() else f'"{other}"') in warning


@pytest.mark.parametrize(("one", "other"), ALIKE.values(), ids=ALIKE)
def test_texts_that_look_the_same_are_shared_and_contradict(one: str, other: str, tmp_path: Path) -> None:
    train = csv(f"{one},x", f"{other},y", "b,x")
    written(tmp_path, {"train.csv": train, "dev.csv": csv(f"{other},x", "d,y")})
    contradiction, shared = load_from(tmp_path, splits={"validation": "dev.csv"}).warnings
    assert "1 training rows have the text of an earlier row and another label: train.csv, line 3" in contradiction
    assert "1 of 2 validation rows have the text of a training row" in shared


def test_texts_that_look_the_same_go_the_same_way_when_a_split_is_drawn(tmp_path: Path) -> None:
    rows = [f"{form} {n},{n % 2}" for n in range(60) for form in ("caf\u00e9", "cafe\u0301", "cafe\u0301\u200b")]
    data = load_from(written(tmp_path, {"train.csv": csv(*rows)}), validationFraction=0.3)
    assert len(data.train) + len(data.validation) == 180
    assert len(data.validation) == 54
    assert not set(map(look, data.train.values("text"))) & set(map(look, data.validation.values("text")))


def test_what_looks_different_is_different() -> None:
    texts = ["a", "A", "\u00e4", "a b", "ab", "a.", "\u0430", "\u2764", "x \u200b y"]
    assert len(set(map(look, texts))) == len(texts)
    assert not any(map(is_blank, texts))
    assert all(map(is_blank, ["", " ", "\t", "\u00a0", "\u200b", "\ufeff", " \u200b\u00a0\u3000", "\u3164"]))


@pytest.mark.parametrize("value", ["nan", "NULL", "None", "NA", "#N/A", "#REF!"])
def test_what_programs_write_for_no_value_is_a_warning(value: str, tmp_path: Path) -> None:
    written(tmp_path, {"train.csv": csv(f"{value},x", f"b,{value}", "c,x"), "dev.csv": csv("d,x", f"e,{value}")})
    of_label, of_text = load_from(tmp_path, splits={"validation": "dev.csv"}).warnings
    assert f'The label "{value}", in 1 training rows, is learned as any other' in of_label
    assert f'1 training rows have a text such as "{value}"' in of_text
    assert "train.csv, line 2" in of_text


def test_many_labels_for_few_rows_are_a_warning(tmp_path: Path) -> None:
    rows = [f"text {n},intent {n}" for n in range(30)]
    written(tmp_path, {"train.csv": csv(*rows), "dev.csv": csv(*(f"dev {row}" for row in rows))})
    data = load_from(tmp_path, splits={"validation": "dev.csv"})
    assert len(data.names["label"]) == 30
    (warning,) = data.warnings
    assert "30 different labels in 30 training rows" in warning


def test_a_drawn_split_that_is_far_from_what_was_asked_says_why(tmp_path: Path) -> None:
    rows = [f"text {n if n < 30 else 0},{n % 2}" for n in range(200)]
    shares = []
    for seed in range(12):
        data = load_from(written(tmp_path, {"train.csv": csv(*rows)}), seed=seed, validationFraction=0.1)
        said = [warning for warning in data.warnings if "rows with equal texts stay together" in warning]
        shares.append(len(data.validation) / 200)
        assert bool(said) == (not 0.05 <= shares[-1] <= 0.2)
    assert max(shares) > 0.2 or min(shares) < 0.05
