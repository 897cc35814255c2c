"""Texts score exactly as with sacrebleu, and as with rouge-score."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sacrebleu.metrics import BLEU, CHRF

from finetune_trainer.scores import paired_intervals, values
from finetune_trainer.scores.texts import bleu_tokenizer, longest_common_subsequence, rouge_l, text_scores

ROUGE = json.loads((Path(__file__).parent / "recorded" / "rouge_l.json").read_text("utf-8"))["rows"]
SAID = [
    "The cat sat on the mat.",
    "It is raining, isn't it?",
    "",
    "a b c d e f g h",
    "He said he would come, and he came.",
    "Nothing of this is there",
]
REFERENCES = [
    ["The cat is sitting on the mat.", "A cat sat on a mat.", "There is a cat on the mat"],
    ["It's raining, isn't it?"],
    ["Something", "Anything at all"],
    ["a b c d e f g h i"],
    ["He said that he would come, and he did.", "He came, as he said."],
    ["x"],
]


def test_a_split_scores_exactly_what_sacrebleu_gives_the_corpus() -> None:
    streams = [[texts[n] if n < len(texts) else None for texts in REFERENCES] for n in range(3)]
    ours = values(text_scores(SAID, REFERENCES))
    assert ours["chrf"] == CHRF().corpus_score(SAID, streams).score > 30
    assert ours["bleu"] == BLEU().corpus_score(SAID, streams).score > 10


def test_so_does_a_resample() -> None:
    drawn = np.array([2.0, 0, 1, 0, 3, 0])
    rows = [row for row, times in enumerate(drawn) for _ in range(int(times))]
    streams = [[(REFERENCES[row] + [None] * 3)[n] for row in rows] for n in range(3)]
    for score, metric in zip(text_scores(SAID, REFERENCES), (CHRF(), BLEU()), strict=False):
        expected = metric.corpus_score([SAID[row] for row in rows], streams).score
        assert float(score.value(drawn[None] @ score.sums)[0]) == pytest.approx(expected, abs=1e-9)


@pytest.mark.slow
def test_better_texts_have_clear_intervals() -> None:
    wanted = [[f"the number {row} is {'very ' * (row % 5)}large and no other"] for row in range(60)]
    old = text_scores([f"number {row}" for row in range(60)], wanted)
    new = text_scores([f"the number {row} is {'very ' * (row % 3)}large" for row in range(60)], wanted)
    for score in new:
        interval = paired_intervals(old, new, 1)[score.name]
        assert interval.is_clear and interval.low < score.result - values(old)[score.name] < interval.high


def test_the_words_of_bleu_are_those_of_the_script() -> None:
    assert bleu_tokenizer(REFERENCES) == "13a"
    assert bleu_tokenizer([["今天天气很好。"], ["OK"]]) == "zh"
    assert bleu_tokenizer([["今日はいい天気です"]]) == "char"
    assert bleu_tokenizer([["วันนี้อากาศดี"]]) == "char"
    assert bleu_tokenizer([["오늘은 날씨가 좋다"]]) == "13a"
    said, wanted = ["今天的天气很好。"], [["今天天气很好。"]]
    assert (
        values(text_scores(said, wanted))["bleu"] == BLEU(tokenize="zh").corpus_score(said, [["今天天气很好。"]]).score
    )


@pytest.mark.parametrize("row", ROUGE, ids=range(len(ROUGE)))
def test_rouge_l_is_that_of_rouge_score(row: list[Any]) -> None:
    said, references, expected = row
    assert max(rouge_l(said, reference) for reference in references) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    ("said", "reference", "expected"),
    [
        ("погода сегодня хорошая", "Сегодня погода хорошая!", 2 / 3),
        ("天气好", "天气很好", 6 / 7),
        ("नमस्ते दुनिया", "नमस्ते, दुनिया", 1.0),
        ("wholly other", "Ganz anderes, größer", 0.0),
    ],
)
def test_rouge_l_leaves_something_of_other_languages(said: str, reference: str, expected: float) -> None:
    assert rouge_l(said, reference) == pytest.approx(expected)


def test_the_longest_common_subsequence_is_that_of_the_table() -> None:
    random = np.random.default_rng(3)
    for _ in range(60):
        a, b = (random.integers(0, 4, random.integers(0, 30)).astype(str).tolist() for _ in range(2))
        table = np.zeros((len(a) + 1, len(b) + 1), dtype=int)
        for i, x in enumerate(a):
            for j, y in enumerate(b):
                table[i + 1, j + 1] = table[i, j] + 1 if x == y else max(table[i, j + 1], table[i + 1, j])
        assert longest_common_subsequence(a, b) == table[-1, -1]


def test_who_scores_no_texts_imports_no_sacrebleu() -> None:
    code = "import sys, finetune_trainer.scores.texts; sys.exit('sacrebleu' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
