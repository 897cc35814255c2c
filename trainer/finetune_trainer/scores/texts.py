"""Scores of generated texts against one or more references: chrF and BLEU of the whole split, ROUGE-L of each text.

chrF and BLEU are sacrebleu's own figures, from 0 to 100: what it counts of each text adds up to what it counts of all, so a split's
score is exactly its corpus score, and a resample's that of the texts drawn. ROUGE-L is from 0 to 1, as in rouge-score.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from itertools import zip_longest
from typing import Any

import numpy as np

from finetune_trainer.scores.score import Numbers, Score, mean
from finetune_trainer.scores.words import WITHOUT_BLANKS, split

ENGLISH_WORDS = re.compile(r"[a-z0-9]+")
CHINESE = re.compile("[\u3400-\u4dbf\u4e00-\u9fff]")


def text_scores(said: Sequence[str], references: Sequence[Sequence[str]]) -> list[Score]:
    """`chrf`, `bleu` and `rouge_l`. Each text has one reference or more; an empty text scores 0.

    chrF (Popović 2015) is F2 of characters' n-grams up to 6, against the reference that it is highest for. BLEU (Papineni et al. 2002)
    is that of words' n-grams up to 4, with the tokenizer of `bleu_tokenizer`. ROUGE-L (Lin 2004) is the mean over texts of F1 of the
    longest common subsequence of words, against the reference that it is highest for.
    """
    from sacrebleu.metrics.bleu import BLEU  # here, because most tasks have no use for it
    from sacrebleu.metrics.chrf import CHRF

    # sacrebleu takes the first references of all texts, then the second ones, None where a text has no more.
    streams = list(zip_longest(*references))
    return [
        _of_corpus("chrf", CHRF(), said, streams),
        _of_corpus("bleu", BLEU(tokenize=bleu_tokenizer(references), force=True), said, streams),
        mean(
            "rouge_l",
            [max(rouge_l(text, right) for right in rights) for text, rights in zip(said, references, strict=True)],
        ),
    ]


def bleu_tokenizer(references: Sequence[Sequence[str]]) -> str:
    """sacrebleu's name of the tokenizer for these texts: `13a`, its default; where most characters are of a script without blanks
    between words, `zh` if all of these are Chinese characters, else `char`."""
    text = "".join("".join(text.split()) for texts in references for text in texts)
    without = WITHOUT_BLANKS.findall(text)
    if 2 * len(without) <= len(text):
        return "13a"
    return "zh" if all(CHINESE.match(char) for char in without) else "char"


def rouge_l(text: str, reference: str) -> float:
    """F1 of the longest common subsequence of words, between 0 and 1.

    Words are runs of a to z and digits in lower case, as with rouge-score. That would leave nothing of other languages: against a
    reference with letters beyond ASCII, words are what blanks and punctuation part, and the characters of scripts without blanks.
    """
    words = _words if any(char.isalpha() and not char.isascii() for char in reference) else _english_words
    a, b = words(text), words(reference)
    return 2 * longest_common_subsequence(a, b) / (len(a) + len(b)) if a and b else 0.0


def longest_common_subsequence(a: Sequence[str], b: Sequence[str]) -> int:
    """Its length, by the bits of one row of the usual table at a time (Crochemore et al. 2001)."""
    places: dict[str, int] = {}
    for place, word in enumerate(a):
        places[word] = places.get(word, 0) | 1 << place
    row = every = (1 << len(a)) - 1
    for word in b:
        same = row & places.get(word, 0)
        row = (row + same | row - same) & every
    return len(a) - row.bit_count()


def _of_corpus(name: str, metric: Any, said: Sequence[str], streams: Sequence[Sequence[str | None]]) -> Score:
    # sacrebleu makes these for its own resampling; the tests hold the result against its public corpus_score.
    counts = np.array(metric._extract_corpus_statistics(said, streams), dtype=np.float64)

    def value(sums: Numbers) -> Numbers:
        rows = sums.reshape(-1, sums.shape[-1]).tolist()
        return np.array([metric._compute_score_from_stats(row).score for row in rows]).reshape(sums.shape[:-1])

    return Score(name, counts, value)


def _english_words(text: str) -> list[str]:
    return ENGLISH_WORDS.findall(text.lower())


def _words(text: str) -> list[str]:
    return split("".join(" " if unicodedata.category(char)[0] in "PSZC" else char for char in text.lower()))
