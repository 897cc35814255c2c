"""Scores of answers taken from a context: exact match and F1 of words, as SQuAD's script for version 2.0 computes them, times 100.

Texts are compared in lower case, without punctuation, without the English articles and with single blanks. Where a script writes no
blanks between words (Chinese, Japanese, Thai and others), each of its characters is a word, as MLQA (Lewis et al. 2020) does for
Chinese; with such a character in it, a text also loses the punctuation that Unicode knows besides ASCII's, and keeps its articles.
"""

from __future__ import annotations

import re
import string
import unicodedata
from collections import Counter
from collections.abc import Sequence

from finetune_trainer.scores.score import Score, mean
from finetune_trainer.scores.words import WITHOUT_BLANKS, split

ARTICLES = re.compile(r"\b(a|an|the)\b")
NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


def answer_scores(said: Sequence[str], answers: Sequence[Sequence[str]]) -> list[Score]:
    """`f1` and `exact_match` from 0 to 100, each the mean over questions of the best against any of the question's answers.

    A question without answers, or with none but articles and punctuation, is answered rightly by nothing, which an empty text says.
    """
    wanted = [[words for words in map(words_of, texts) if words] or [[]] for texts in answers]
    found = [words_of(text) for text in said]
    f1 = [max(overlap(words, right) for right in rights) for words, rights in zip(found, wanted, strict=True)]
    exact = [any(words == right for right in rights) for words, rights in zip(found, wanted, strict=True)]
    return [mean("f1", [100 * part for part in f1]), mean("exact_match", [100 * one for one in exact])]


def words_of(text: str) -> list[str]:
    """What is compared of a text. None of it may be left."""
    text = text.lower().translate(NO_PUNCTUATION)
    if not WITHOUT_BLANKS.search(text):
        return ARTICLES.sub(" ", text).split()
    text = "".join(char for char in text if not unicodedata.category(char).startswith("P"))
    return split(text)


def overlap(words: Sequence[str], others: Sequence[str]) -> float:
    """F1 of the words that two texts share, each as often as both have it; 1 where neither has any."""
    if not words or not others:
        return float(words == others)
    shared = (Counter(words) & Counter(others)).total()
    return 2 * shared / (len(words) + len(others))
