"""Answers score as with the scripts that the data sets came with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from finetune_trainer.scores import values
from finetune_trainer.scores.questions import answer_scores, words_of

RECORDED = Path(__file__).parent / "recorded"
SQUAD = json.loads((RECORDED / "squad.json").read_text("utf-8"))["rows"]
MLQA = json.loads((RECORDED / "mlqa_zh.json").read_text("utf-8"))["rows"]


@pytest.mark.parametrize("row", [*SQUAD, *MLQA], ids=lambda row: row[0] or "nothing")
def test_an_answer_scores_as_with_the_script_of_squad_or_of_mlqa(row: list[Any]) -> None:
    said, answers, f1, exact = row
    assert values(answer_scores([said], [answers])) == pytest.approx({"f1": 100 * f1, "exact_match": 100 * exact})


def test_a_split_scores_the_mean_of_its_questions() -> None:
    said, answers, f1, exact = zip(*SQUAD, strict=True)
    assert values(answer_scores(said, answers)) == pytest.approx(
        {"f1": 100 * sum(f1) / len(f1), "exact_match": 100 * sum(exact) / len(exact)}, abs=1e-9
    )


def test_gold_answers_score_a_hundred() -> None:
    answers = [["1976", "in 1976"], [], ["北京"], ["the"], ["โตเกียว"]]
    gold = [texts[0] if texts else "" for texts in answers]
    assert values(answer_scores(gold, answers)) == {"f1": 100.0, "exact_match": 100.0}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("The cat's  Hat!", ["cats", "hat"]),
        ("東京タワー、です。", list("東京タワーです")),
        ("Windows 95は1995年", ["windows", "95", "は", "1995", "年"]),
        ("ไทย", list("ไทย")),
        ("서울 사람", ["서울", "사람"]),  # Korean has blanks
        ("a the an", []),
    ],
)
def test_words_are_what_blanks_part_and_characters_where_a_script_has_none(text: str, words: list[str]) -> None:
    assert words_of(text) == words
