"""The demo's data set is what its README claims: large enough, balanced, and with nothing shared between splits."""

import csv
import itertools
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).parents[3] / "examples" / "topics"
SPLITS = ("train", "validation", "test")
LABELS = {"animals", "documents", "noise", "parks", "streets", "transit", "waste", "water"}


@pytest.fixture(scope="module")
def splits() -> dict[str, list[tuple[str, str]]]:
    return {split: read(FOLDER / f"{split}.csv") for split in SPLITS}


def test_each_file_is_utf_8_csv_of_a_text_and_a_label() -> None:
    for split in SPLITS:
        header, *rows = csv.reader((FOLDER / f"{split}.csv").read_bytes().decode("utf-8").splitlines())
        assert header == ["text", "label"]
        assert [row for row in rows if len(row) != 2] == []


def test_there_are_at_least_620_rows_of_which_150_are_held_out_for_test(
    splits: dict[str, list[tuple[str, str]]],
) -> None:
    assert sum(len(rows) for rows in splits.values()) >= 620
    assert len(splits["test"]) >= 150
    assert len(splits["validation"]) >= 100


def test_every_class_is_in_every_split_in_equal_number(splits: dict[str, list[tuple[str, str]]]) -> None:
    for split, rows in splits.items():
        counts = Counter(label for _, label in rows)
        assert set(counts) == LABELS, split
        assert len(set(counts.values())) == 1, (split, counts)


def test_every_text_has_2_to_45_words_and_no_stray_space(splits: dict[str, list[tuple[str, str]]]) -> None:
    for text in texts(splits):
        assert 2 <= len(text.split()) <= 45, text
        assert text == " ".join(text.split())


def test_no_text_occurs_twice_in_a_split_or_across_splits(splits: dict[str, list[tuple[str, str]]]) -> None:
    repeated = [words for words, times in Counter(tuple(words_of(text)) for text in texts(splits)).items() if times > 1]
    assert repeated == []


@pytest.mark.slow
def test_no_two_texts_are_near_duplicates(splits: dict[str, list[tuple[str, str]]]) -> None:
    assert near_duplicates(texts(splits)) == []


def test_a_near_duplicate_would_be_found() -> None:
    assert near_duplicates(["Where is the bus to the harbour today?", "where is the bus to the harbour"])
    assert near_duplicates(["the lamp in Elm Street is dark", "the lamp in Oak Street is dark"])
    assert not near_duplicates(["The lamp in Elm Street is dark.", "It never stops raining in the tram."])


def near_duplicates(rows: list[str]) -> list[tuple[str, str]]:
    """Pairs that share over 60 % of their words, or over 30 % of their runs of three words (Jaccard, case ignored)."""
    words = [set(words_of(row)) for row in rows]
    runs = [{tuple(run) for run in zip(w, w[1:], w[2:], strict=False)} for w in map(words_of, rows)]
    return [
        (rows[a], rows[b])
        for a, b in itertools.combinations(range(len(rows)), 2)
        if jaccard(words[a], words[b]) > 0.6 or jaccard(runs[a], runs[b]) > 0.3
    ]


def jaccard(a: set[Any], b: set[Any]) -> float:
    return len(a & b) / len(a | b) if a | b else 0.0


def words_of(text: str) -> list[str]:
    return re.findall(r"\w+(?:['’]\w+)?", text.lower())


def texts(splits: dict[str, list[tuple[str, str]]]) -> list[str]:
    return [text for rows in splits.values() for text, _ in rows]


def read(path: Path) -> list[tuple[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return [(row["text"], row["label"]) for row in csv.DictReader(file)]
