"""What the report shows where each example has one label: what is taken for what, how sure, and the surest mistakes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from finetune_trainer.data.examples import Examples
from finetune_trainer.report.blocks import (
    Bar,
    Bars,
    Block,
    Card,
    Cards,
    Grid,
    LabelScore,
    PerLabel,
    sentence,
)
from finetune_trainer.report.suspects import Suspect
from finetune_trainer.scores.suspects import Ranked
from finetune_trainer.tasks.calibrated import Judged, calibration_curve
from finetune_trainer.tasks.shown import parts_of

MISTAKES = 12
"""Wrong examples shown of each split."""
CONFUSED = 10
"""Pairs of labels shown of those that are taken for one another."""
FEW = 4
"""Labels whose confusion matrix says at a glance which pairs these are."""


def label_blocks(
    examples: Examples, before: pa.Table | None, after: pa.Table, names: Sequence[str], show: Sequence[str]
) -> Iterator[Block]:
    """The blocks of one split. `before` and `after` have a column `probability`, for each example the probabilities of all
    labels; `names` are those of the labels, and `show` the roles of which a mistake shows the value.
    """
    truth, probability = examples.numbers("label"), matrix(after, "probability")
    said, confidence = probability.argmax(axis=1), probability.max(axis=1)
    counts = confusion(truth, said, len(names))
    yield Grid("confusion", "Confusion", tuple(names), counts)
    yield calibration_curve(
        _of_the_surest(truth, probability),
        None if before is None else _of_the_surest(truth, matrix(before, "probability")),
        counted="it is right in {} of the rows",
        x_title="probability of what is said",
        y_title="share that is right",
    )
    if len(names) > FEW and (pairs := most_confused(counts, names)):
        yield Bars("confused", "Most often mistaken", pairs)
    yield PerLabel("labels", "Labels", per_label(counts, names))
    wrong = np.flatnonzero(said != truth)
    worst = wrong[np.argsort(-confidence[wrong], kind="stable")][:MISTAKES]
    cards = tuple(
        Card(
            str(examples.origins[row]),
            sentence(
                (names[said[row]], "said"), f" at {100 * confidence[row]:.1f} %, truly ", (names[truth[row]], "truth")
            ),
            parts_of(examples, show, row),
        )
        for row in worst.tolist()
    )
    surest = "this one" if len(wrong) == 1 else f"these {len(worst)}"
    yield Cards(
        "mistakes",
        "The surest mistakes",
        cards,
        note=f"{len(wrong):,} of {len(truth):,} rows {'is' if len(wrong) == 1 else 'are'} wrong. The model was surest of {surest}: "
        "mistakes in the labels often show here."
        if cards
        else "",
        empty="No row is wrong.",
    )


def label_suspects(examples: Examples, ranked: Ranked, names: Sequence[str], show: Sequence[str]) -> list[Suspect]:
    """The rows to look at."""
    labels = examples.numbers("label")
    return suspects_of(examples, ranked, show, lambda row, other: (names[labels[row]], names[other]))


def suspects_of(
    examples: Examples, ranked: Ranked, show: Sequence[str], told: Callable[[int, int], tuple[str, str]]
) -> list[Suspect]:
    """The rows to look at. `told` names the label of a row, and the one that it is learned as, of which it gets the number."""
    found = []
    for row, other, loss in zip(ranked.places.tolist(), ranked.other.tolist(), ranked.loss.tolist(), strict=True):
        label, suggested = told(row, other)
        found.append(Suspect(str(examples.origins[row]), label, suggested, loss, parts_of(examples, show, row)))
    return found


def matrix(answers: pa.Table, column: str) -> NDArray[np.float32]:
    """A column of equally long lists of numbers, shape (rows, length)."""
    chunks = [chunk.flatten().to_numpy(zero_copy_only=False) for chunk in answers.column(column).chunks]
    return np.asarray(np.concatenate(chunks), dtype=np.float32).reshape(answers.num_rows, -1)


def confusion(truth: NDArray[np.int64], said: NDArray[np.int64], labels: int) -> NDArray[np.int64]:
    """Rows by true label (first axis) and predicted label (second), shape (labels, labels)."""
    return np.bincount(truth * labels + said, minlength=labels * labels).reshape(labels, labels)


def per_label(counts: NDArray[np.int64], names: Sequence[str]) -> tuple[LabelScore, ...]:
    """Precision, recall and F1 of each label, from its confusion matrix."""
    said, truth = counts.sum(axis=0).tolist(), counts.sum(axis=1).tolist()
    return tuple(
        LabelScore(
            name,
            precision=right / said[i] if said[i] else None,
            recall=right / truth[i] if truth[i] else None,
            f1=2 * right / (said[i] + truth[i]) if said[i] + truth[i] else None,
            rows=truth[i],
        )
        for i, (name, right) in enumerate(zip(names, np.diag(counts).tolist(), strict=True))
    )


def most_confused(counts: NDArray[np.int64], names: Sequence[str]) -> tuple[Bar, ...]:
    """The pairs of labels of which one is most often taken for the other, by falling number of rows."""
    wrong = counts.copy()
    np.fill_diagonal(wrong, 0)
    most = np.argsort(-wrong, axis=None, kind="stable")[:CONFUSED]
    truth, said = np.unravel_index(most, wrong.shape)
    return tuple(
        Bar(sentence((names[t], "truth"), " taken for ", (names[s], "said")), int(wrong[t, s]))
        for t, s in zip(truth.tolist(), said.tolist(), strict=True)
        if wrong[t, s]
    )


def _of_the_surest(truth: NDArray[np.int64], probability: NDArray[np.float32]) -> Judged:
    return probability.max(axis=1), probability.argmax(axis=1) == truth
