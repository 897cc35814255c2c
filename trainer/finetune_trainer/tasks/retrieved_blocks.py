"""What the report shows of images that are searched for by their texts, and of texts by their images."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from finetune_trainer.data.examples import Examples
from finetune_trainer.report.blocks import Block, Card, Cards, Curve, sentence
from finetune_trainer.scores.ranking import recalls
from finetune_trainer.tasks.recall import WORST, depths, recall_line
from finetune_trainer.tasks.shown import parts_of

Vectors = tuple[NDArray[np.float32], NDArray[np.float32]]
"""Of images and of texts, rows of length 1, shape (examples, dimensions)."""
Keys = NDArray[np.int64]


def retrieved_blocks(
    examples: Examples, before: Vectors | None, after: Vectors, of_images: Keys, of_texts: Keys
) -> Iterator[Block]:
    """Of pairs of an image and a text that are searched for one another; equal keys are of equal images and texts."""
    found = {"after training": after} | ({} if before is None else {"before training": before})
    at = depths(len(examples))
    lines = [
        recall_line(name, at, recalls(*vectors, of_images, of_texts, both_ways=True, at=at))
        for name, vectors in found.items()
    ]
    yield Curve(
        "recall",
        "Found among the first",
        tuple(lines),
        x_title="rank",
        y_title="recall",
        note=f"Images by their texts and texts by their images, among {len(examples):,} pairs.",
    )
    images, texts = after
    likeness = images @ texts.T
    others = np.where(of_texts[:, None] == of_texts, -np.inf, likeness)
    nearest, own = others.argmax(axis=1), np.diag(likeness)
    ahead = (others >= own[:, None]).sum(axis=1)
    wrong = np.flatnonzero(ahead > 0)
    worst = wrong[np.argsort(-ahead[wrong], kind="stable")][:WORST]
    cards = []
    for row in worst.tolist():
        taken = examples.column("text")[int(nearest[row])].as_py()
        verdict = sentence(
            "taken for ",
            (taken, "said"),
            f" (cosine {others[row].max():.2f}), its own text is number {ahead[row] + 1:,} ({own[row]:.2f})",
        )
        cards.append(Card(str(examples.origins[row]), verdict, parts_of(examples, ("image", "text"), row)))
    yield Cards(
        "misranked",
        "The pairs most wrongly ranked",
        tuple(cards),
        note=f"Of {len(wrong):,} of {len(examples):,} images another text is as near or nearer than their own."
        if cards
        else "",
        empty="Each image is nearest to its own text.",
    )
