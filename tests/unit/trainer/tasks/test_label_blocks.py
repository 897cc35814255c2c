"""What the report shows of one label an example, against scikit-learn."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TypeVar

import numpy as np
import pyarrow as pa
import pytest
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

from finetune_trainer.report.blocks import Bars, Block, Card, Cards, Curve, Grid, Marked, PerLabel, Text
from finetune_trainer.tasks.label_blocks import confusion, label_blocks, matrix, most_confused, per_label
from tests.unit.trainer.report.runs import answers, predictions

Shown = TypeVar("Shown", bound=Block)


def only(kind: type[Shown], blocks: list[Block]) -> Shown:
    (found,) = [block for block in blocks if isinstance(block, kind)]
    return found


def marked(verdict: Marked | None, kind: str) -> str:
    assert verdict is not None
    (span,) = [span for span in verdict.spans if span.kind == kind]
    return verdict.text[span.start : span.end]


def confidence(card: Card) -> float:
    assert card.verdict is not None
    found = re.search(r" at ([\d.]+) %, truly ", card.verdict.text)
    assert found
    return float(found[1])


def test_confusion_and_scores_are_those_of_scikit_learn() -> None:
    part = predictions("validation", 300, 4, pairs=False, skill=1.0)
    truth, said = part.truth, part.after.argmax(axis=1)
    counts = confusion(truth, said, 5)
    np.testing.assert_array_equal(counts, confusion_matrix(truth, said, labels=range(5)))
    ours = per_label(counts, ["a", "b", "c", "d", "never"])
    theirs = precision_recall_fscore_support(truth, said, labels=range(5), zero_division=np.nan)
    scored = np.array([(s.precision, s.recall, s.f1, s.rows) for s in ours], dtype=float)  # None as nan
    np.testing.assert_allclose(scored, np.transpose(theirs))
    assert (ours[4].precision, ours[4].recall, ours[4].f1) == (None, None, None)


def test_the_surest_mistakes_come_first_and_know_their_place() -> None:
    part = predictions("validation", 50, 2, pairs=True, skill=0.5)
    cards = only(Cards, part.blocks(["no", "yes"])).cards
    wrong = part.after.argmax(axis=1) != part.truth
    assert [confidence(card) for card in cards] == sorted(map(confidence, cards), reverse=True)
    assert confidence(cards[0]) == pytest.approx(100 * part.after.max(axis=1)[wrong].max(), abs=0.05)
    assert all({marked(card.verdict, kind) for kind in ("truth", "said")} == {"no", "yes"} for card in cards)
    text, pair = cards[0].parts
    assert isinstance(text, Text) and isinstance(pair, Text)
    row = list(part.examples.values("text")).index(text.text)
    assert pair.text == list(part.examples.values("textPair"))[row]
    assert cards[0].origin == f"dev.tsv, line {row + 2}"
    assert marked(cards[0].verdict, "truth") == ["no", "yes"][part.truth[row]]


def test_how_many_are_wrong_is_said_of_all_and_the_cards_are_few() -> None:
    part = predictions("validation", 400, 2, pairs=False, skill=0.0)
    block = only(Cards, part.blocks(["no", "yes"]))
    wrong = int((part.after.argmax(axis=1) != part.truth).sum())
    assert wrong > len(block.cards) == 12
    assert block.note.startswith(f"{wrong} of 400 rows are wrong. The model was surest of these 12:")
    right = replace(part, after=np.eye(2, dtype=np.float32)[part.truth])
    block = only(Cards, right.blocks(["no", "yes"]))
    assert (block.cards, block.note, block.empty) == ((), "", "No row is wrong.")


def test_the_pairs_that_are_mistaken_most_often_lead() -> None:
    counts = np.array([[9, 0, 3], [5, 8, 0], [0, 1, 7]])
    bars = most_confused(counts, ["a", "b", "c"])
    assert [(bar.name.text if isinstance(bar.name, Marked) else bar.name, bar.value) for bar in bars] == [
        ("b taken for a", 5),
        ("a taken for c", 3),
        ("c taken for b", 1),
    ]


@pytest.mark.parametrize(("labels", "there"), [(4, False), (5, True)])
def test_they_are_listed_where_the_matrix_does_not_tell_at_a_glance(labels: int, there: bool) -> None:
    part = predictions("validation", 100, labels, pairs=False, skill=1.0)
    blocks = part.blocks([str(n) for n in range(labels)])
    assert any(isinstance(block, Bars) for block in blocks) is there
    assert [type(block) for block in blocks if not isinstance(block, Bars)] == [Grid, Curve, PerLabel, Cards]


def test_calibration_is_shown_before_and_after() -> None:
    part = predictions("validation", 400, 3, pairs=False)
    curve = only(Curve, part.blocks("abc"))
    assert [line.name for line in curve.lines] == ["after training", "before training"]
    for line in curve.lines:
        assert line.rows is not None
        assert sum(line.rows) == 400
    alone = only(Curve, list(label_blocks(part.examples, None, answers(part.after), "abc", show=("text",))))
    assert [line.name for line in alone.lines] == ["after training"]
    assert "before" not in alone.note


def test_lists_of_any_arrow_type_and_cut_into_any_chunks_are_one_matrix() -> None:
    values = np.arange(12, dtype=np.float32).reshape(4, 3)
    fixed = answers(values)
    ragged = pa.table({"probability": pa.array(values.tolist(), pa.list_(pa.float32()))})
    for table in (fixed, ragged, pa.concat_tables([fixed[:1], fixed[1:]]), pa.concat_tables([ragged[:3], ragged[3:]])):
        np.testing.assert_array_equal(matrix(table, "probability"), values)
