"""Entities are those of seqeval, and of hand for the schemes that it reads only in its strict mode."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from finetune_trainer.scores import ratio, values
from finetune_trainer.scores.entities import Tagging, counts_of_types, entity_scores

SEQEVAL = json.loads((Path(__file__).parent / "recorded" / "seqeval.json").read_text("utf-8"))["cases"]

Sentences = Sequence[Sequence[str]]


def numbered(*sides: Sentences, names: Sequence[str] | None = None) -> tuple[Tagging, list[NDArray[np.int64]]]:
    """The tagging, the offsets, and each side's numbers."""
    names = names or sorted({tag for side in sides for sentence in side for tag in sentence} | {"O"})
    offsets = np.cumsum([0, *map(len, sides[0])])
    return Tagging(names), [
        offsets,
        *(np.array([names.index(tag) for sentence in side for tag in sentence], dtype=np.int64) for side in sides),
    ]


def entities(tags: str, names: str | None = None) -> list[tuple[str, int, int]]:
    """Type, first word and word after the last, of one sentence."""
    tagging, (offsets, numbers) = numbered([tags.split()], names=names.split() if names else None)
    spans = tagging.spans(numbers, offsets)
    return [
        (tagging.types[t], a, b)
        for t, a, b in zip(spans.types.tolist(), spans.starts.tolist(), spans.ends.tolist(), strict=True)
    ]


@pytest.mark.parametrize("case", SEQEVAL, ids=[f"{case['scheme']}-{i}" for i, case in enumerate(SEQEVAL)])
def test_any_tags_score_as_with_seqeval(case: dict[str, Any]) -> None:
    """Also those that keep to no scheme, which half of these do not."""
    tagging, sides = numbered(*([row.split() for row in case[side]] for side in ("truth", "said")))
    ours = values(entity_scores(tagging, *sides))
    assert ours == pytest.approx({name: case[name] for name in ("f1", "precision", "recall", "accuracy")}, abs=1e-12)
    right, wanted, found = counts_of_types(tagging, *sides).T
    by_type = np.stack([ratio(right, found), ratio(right, wanted), ratio(2 * right, wanted + found), wanted], axis=1)
    expected = {name: row for name, row in zip(tagging.types, by_type.tolist(), strict=True) if name in case["types"]}
    assert expected == {name: pytest.approx(row) for name, row in case["types"].items()}


@pytest.mark.parametrize(
    ("scheme", "tags"),
    [
        ("IOB", "I-PER I-PER B-PER I-LOC O I-LOC O B-PER"),  # IOB1, then a B where IOB2 has one
        ("IOB", "B-PER I-PER B-PER B-LOC O B-LOC O B-PER"),  # IOB2
        ("IOE", "I-PER E-PER I-PER I-LOC O I-LOC O I-PER"),  # IOE1
        ("IOE", "I-PER E-PER E-PER E-LOC O E-LOC O E-PER"),  # IOE2
        ("IOBES", "B-PER E-PER S-PER S-LOC O S-LOC O S-PER"),
        ("BILOU", "B-PER L-PER U-PER U-LOC O U-LOC O U-PER"),
        ("BMES", "B-PER E-PER S-PER S-LOC O S-LOC O S-PER"),
        ("BMEWO", "B-PER E-PER W-PER W-LOC O W-LOC O W-PER"),
        ("IOB", "PER-B PER-I PER-B LOC-B O LOC-B O PER-B"),
        ("IOB", "B_PER I_PER B_PER B_LOC O B_LOC O B_PER"),
    ],
)
def test_every_scheme_says_the_same_entities(scheme: str, tags: str) -> None:
    names = {"BMES": " M-PER", "BMEWO": ""}.get(scheme, "")
    assert entities(tags, tags + names) == [("PER", 0, 2), ("PER", 2, 3), ("LOC", 3, 4), ("LOC", 5, 6), ("PER", 7, 8)]
    assert Tagging((tags + names).split()).scheme == scheme


def test_an_entity_of_three_words_is_one_in_each_scheme() -> None:
    for tags in ("B-A I-A I-A", "I-A I-A E-A", "B-A I-A E-A", "B-A I-A L-A", "B-A M-A E-A", "A A A"):
        assert entities(tags, f"{tags} O") == [("A", 0, 3)], tags


def test_types_alone_are_runs_of_words_and_without_an_o_each_word_is_scored() -> None:
    assert Tagging(["O", "PER", "LOC"]).scheme == "runs"
    assert entities("PER PER LOC O PER") == [("PER", 0, 2), ("LOC", 2, 3), ("PER", 4, 5)]
    names = ["NOUN", "VERB", "X"]
    tagging, sides = numbered([["NOUN", "NOUN", "VERB"]], [["NOUN", "VERB", "VERB"]], names=names)
    assert tagging.scheme == "words"
    assert list(values(entity_scores(tagging, *sides)).values()) == pytest.approx([2 / 3] * 4)


def test_a_bare_place_has_a_type_without_a_name_and_a_type_may_hold_a_hyphen() -> None:
    assert entities("B I O B") == [("", 0, 2), ("", 3, 4)]
    assert entities("B-ORG-COMPANY I-ORG-COMPANY O") == [("ORG-COMPANY", 0, 2)]
    assert entities("B-組織 I-組織") == [("組織", 0, 2)]


def test_an_entity_does_not_go_on_in_the_next_sentence() -> None:
    truth = [["B-A", "I-A"], [], ["I-A", "O"]]
    tagging, (offsets, numbers) = numbered(truth)
    spans = tagging.spans(numbers, offsets)
    assert (spans.starts.tolist(), spans.ends.tolist()) == ([0, 2], [2, 3])
    assert values(entity_scores(tagging, offsets, numbers, numbers))["f1"] == 1.0


def test_a_word_that_nothing_was_said_of_is_outside_and_wrong() -> None:
    tagging, (offsets, truth) = numbered([["B-A", "O", "B-A", "I-A", "O"]])
    cut = np.where(np.arange(5) < 3, truth, -1)
    found = values(entity_scores(tagging, offsets, truth, cut))
    assert found == {"f1": 0.5, "precision": 0.5, "recall": 0.5, "accuracy": 0.6}


def test_no_entities_anywhere_score_nothing() -> None:
    tagging, sides = numbered([["O", "O"]], [["O", "O"]])
    assert values(entity_scores(tagging, *sides)) == {"f1": 0.0, "precision": 0.0, "recall": 0.0, "accuracy": 1.0}
    tagging, sides = numbered([["B-A"]], [["O"]])
    assert values(entity_scores(tagging, *sides))["f1"] == 0.0


def test_every_entity_of_a_hundred_thousand_sentences_is_counted_in_its_sentence() -> None:
    random = np.random.default_rng(1)
    tagging = Tagging(["O", "B-A", "I-A", "B-B", "I-B"])
    offsets = np.arange(0, 2_000_001, 20)
    truth, said = random.integers(0, 5, size=(2, 2_000_000))
    f1, *_ = entity_scores(tagging, offsets, truth, said)
    row = 77_777
    words = slice(offsets[row], offsets[row + 1])
    alone, *_ = entity_scores(tagging, np.array([0, 20]), truth[words], said[words])
    assert f1.sums[row].tolist() == alone.sums[0].tolist()  # type: ignore[index]
    assert f1.sums.sum(axis=0).tolist() == counts_of_types(tagging, offsets, truth, said).sum(axis=0).tolist()  # type: ignore[union-attr]
