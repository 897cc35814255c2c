"""What the report shows of the data: how much there is, how even, how long, and how often the same."""

from __future__ import annotations

from collections.abc import Iterator

from finetune_trainer.data.survey import FEW, Survey
from finetune_trainer.report.blocks import Bar, Bars, Block, Table

NAMED = 10
"""Rare labels that are named."""


def data_blocks(found: Survey) -> Iterator[Block]:
    """The blocks of the section on data."""
    yield Table(
        "rows",
        "Rows",
        ("Split", "Rows", "Repeated", "Contradictory", "Also in training"),
        tuple(
            (
                split.split,
                split.rows,
                split.repeated,
                split.contradictory,
                "–" if split.split == "train" else split.trained,
            )
            for split in found.splits
        ),
        note="Repeated: with the inputs of an earlier row of the split. Contradictory: with the inputs of another row and another answer. "
        "Also in training: with the inputs of a training row, so that metrics flatter. Rows that are empty are refused before training.",
    )
    if found.lengths:
        shares = sorted(found.lengths[0].percentiles)
        notes = [f"{one.split.capitalize()}: {note}." for one in found.lengths for note in one.notes]
        yield Table(
            "lengths",
            f"Length in {found.lengths[0].unit}",
            ("Split", *("longest" if share == 100 else f"{share} % at most" for share in shares)),
            tuple((one.split, *(one.percentiles[share] for share in shares)) for one in found.lengths),
            note=" ".join(notes),
        )
    for role, labels in found.labels.items():
        few = found.few(role)
        named = ", ".join(f"{label.label} ({label.rows['train']:,})" for label in few[:NAMED])
        more = f" and {len(few) - NAMED:,} more" if len(few) > NAMED else ""
        yield Bars(
            f"balance-{role.lower()}",
            "Training rows of each label",
            tuple(Bar(label.label, label.rows["train"]) for label in labels),
            note=f"With fewer than {FEW} rows, hardly anything can be learned of {named}{more}." if few else "",
        )
