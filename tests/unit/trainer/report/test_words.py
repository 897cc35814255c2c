"""Texts of users as a page shows them."""

from __future__ import annotations

import random

import pytest

from finetune_trainer.report.blocks import Diff, Marked, Span, sentence
from finetune_trainer.report.words import CUT, LONGEST, changes, phrases, pieces, shortened


def test_a_marked_text_is_whole_and_each_character_has_the_marks_of_its_spans() -> None:
    draw = random.Random(7)
    for _ in range(200):
        text = "".join(draw.choices("ab 猫é", k=40))
        spans = []
        for _ in range(draw.randrange(6)):
            start = draw.randrange(40)
            spans.append(Span(start, draw.randrange(start, 41), draw.choice(("truth", "said")), draw.choice("xy")))
        found = list(pieces(Marked(text, tuple(spans))))
        assert "".join(piece.text for piece in found) == text
        marks = [piece.kinds for piece in found for _ in piece.text]
        assert marks == [{s.kind for s in spans if s.start <= place < s.end} for place in range(40)]
        tags = [(tag.label, kind) for piece in found for tag in piece.tags for kind in tag.kinds]
        assert set(tags) == {(span.label, span.kind) for span in spans if span.start < span.end}


def test_data_and_model_agree_only_where_they_mark_the_same_from_end_to_end() -> None:
    text = "New York Times"
    same = Marked(text, (Span(0, 8, "truth", "place"), Span(0, 8, "said", "place")))
    assert [piece.agreed for piece in pieces(same)] == [True, False]
    for other in (Span(0, 8, "said", "paper"), Span(0, 14, "said", "place")):
        assert not any(piece.agreed for piece in pieces(Marked(text, (Span(0, 8, "truth", "place"), other))))


def test_of_a_long_text_what_is_marked_is_shown() -> None:
    text = "x" * 5000 + "TRUE" + "y" * 5000 + "SAID" + "z" * 5000
    marked = Marked(text, (Span(10004, 10008, "said"), Span(5000, 5004, "truth")))
    found = list(pieces(marked))
    assert [(piece.text, set(piece.kinds)) for piece in found if piece.kinds] == [
        ("TRUE", {"truth"}),
        ("SAID", {"said"}),
    ]
    assert [piece.text.strip() for piece in found].count(CUT) == 3
    assert sum(len(piece.text) for piece in found) < LONGEST


@pytest.mark.parametrize(
    "spans", [(), (Span(0, 9000, "truth", "x"),), tuple(Span(n, n + 1, "said") for n in range(9000))]
)
def test_a_long_text_is_cut_whatever_is_marked(spans: tuple[Span, ...]) -> None:
    shown = "".join(piece.text for piece in pieces(Marked("a" * 10_000, spans)))
    assert LONGEST <= len(shown) <= LONGEST + 10
    assert shown.endswith(CUT)
    assert not any(piece.tags for piece in pieces(Marked("a" * 10_000, spans[:1]))) or len(spans) > 1


def test_a_span_outside_its_text_is_refused() -> None:
    for span in (Span(0, 4, "truth"), Span(-1, 2, "truth"), Span(2, 1, "truth")):
        with pytest.raises(ValueError, match="outside"):
            Marked("abc", (span,))


def test_a_sentence_marks_whose_words_they_are() -> None:
    found = list(phrases(sentence(("cat", "said"), " at 3 %, truly ", ("d" * 900, "truth"))))
    assert [(piece.text, set(piece.kinds)) for piece in found] == [
        ("cat", {"said"}),
        (" at 3 %, truly ", set()),
        ("d" * 100 + CUT, {"truth"}),
    ]


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("a big cat", "a cat", [("same", "a "), ("out", "big "), ("same", "cat")]),
        ("It is.", "It was.", [("same", "It "), ("out", "is"), ("in", "was"), ("same", ".")]),
        ("一家酒吧", "一家好酒吧", [("same", "一家"), ("in", "好"), ("same", "酒吧")]),
        ("नमस्ते दुनिया", "नमस्ते", [("same", "नमस्ते"), ("out", " दुनिया")]),
        ("", "new", [("in", "new")]),
        ("same", "same", [("same", "same")]),
        ("", "", []),
    ],
)
def test_a_diff_takes_whole_words_out_and_puts_whole_words_in(old: str, new: str, said: list[tuple[str, str]]) -> None:
    assert list(changes(Diff(old, new))) == said


def test_both_texts_can_be_read_off_a_diff() -> None:
    draw = random.Random(7)
    for _ in range(100):
        old, new = ("".join(draw.choices("ab c.猫\n", k=draw.randrange(60))) for _ in range(2))
        found = list(changes(Diff(old, new)))
        assert "".join(words for change, words in found if change != "in") == old
        assert "".join(words for change, words in found if change != "out") == new


def test_a_text_of_any_length_takes_little_room() -> None:
    assert shortened("a" * LONGEST) == "a" * LONGEST
    assert shortened("a" * 9999) == "a" * LONGEST + CUT
    assert sum(len(words) for _, words in changes(Diff("a" * 9999, "b " * 9999))) <= 2 * (LONGEST + 1)
