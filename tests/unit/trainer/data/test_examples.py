"""Examples are columns by role, taken apart by position and read in blocks."""

from __future__ import annotations

import numpy as np

from tests.unit.trainer.rows import examples

TEXTS = [f"text {row}" for row in range(2500)]
PAIRS = [f"pair {row}" for row in range(2500)]
ROWS = examples(TEXTS, PAIRS, np.arange(2500) % 3)


def test_blocks_hold_the_rows_in_their_order_and_no_more_than_asked_for() -> None:
    blocks = list(ROWS.blocks("textPair", "text", size=999))
    assert [list(block) for block in blocks] == [["textPair", "text"]] * 3
    assert [len(block["text"]) for block in blocks] == [999, 999, 502]
    assert [text for block in blocks for text in block["text"]] == list(ROWS.values("text")) == TEXTS
    assert [pair for block in blocks for pair in block["textPair"]] == PAIRS


def test_what_is_taken_keeps_values_and_origins_together() -> None:
    some = ROWS.take(np.array([2400, 7, 7]))
    assert len(some) == 3
    assert some.roles == ("text", "textPair", "label")
    assert list(some.values("text")) == ["text 2400", "text 7", "text 7"]
    assert some.numbers("label").tolist() == [0, 1, 1]
    assert [some.origins[row].number for row in range(3)] == [2401, 8, 8]
    assert len(ROWS.take([])) == 0
    assert list(ROWS.take([]).values("text")) == []
