"""The tokenizer of the tests' tiny models."""

from __future__ import annotations

from tests.training.sentences import ROWS
from tests.training.word_pieces import learn_word_pieces


def test_the_same_texts_give_the_same_pieces() -> None:
    first, second = (learn_word_pieces([text for text, _ in ROWS], ["[PAD]", "[UNK]"]).get_vocab() for _ in range(2))
    assert len(first) == 400
    assert first == second
