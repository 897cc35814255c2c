"""What the report shows of the data: how much there is, how even, how long, and how often the same."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from finetune_trainer.data.survey import FEW, Lengths, Survey
from finetune_trainer.report.blocks import Bar, Bars, Block, Table

NAMED = 10
"""Rare labels that are named."""
_NUMBER = re.compile(r"\d(?:[\d,.]*\d)?")


def data_blocks(found: Survey) -> Iterator[Block]:
    """The blocks of the section on data."""
    yield Table(
        "rows",
        "Rows",
        ("Split", "Rows", "Repeated", "Contradictory", "In training"),
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
        "In training: with the inputs of a training row, so that metrics flatter. Rows that are empty are refused before training.",
    )
    if found.lengths:
        shares = sorted(found.lengths[0].percentiles)
        yield Table(
            "lengths",
            f"Length in {found.lengths[0].unit}",
            ("Split", *("Half" if share == 50 else "Longest" if share == 100 else f"{share} %" for share in shares)),
            tuple((one.split, *(one.percentiles[share] for share in shares)) for one in found.lengths),
            note=" ".join(["Half, 90 % and 99 % of the rows have at most so many.", *_notes(found.lengths)]),
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


def _notes(lengths: Sequence[Lengths]) -> Iterator[str]:
    """Sentences of what is noted of all splits, each said once: where it differs by a number, with that of each split."""
    alike: dict[str, list[tuple[str, str]]] = {}
    for one in lengths:
        for note in one.notes:
            alike.setdefault(_NUMBER.sub("#", note), []).append((one.split, note))
    for noted in alike.values():
        splits, notes = zip(*noted, strict=True)
        numbers = list(zip(*(_NUMBER.findall(note) for note in notes), strict=True))
        different = [place for place, of_splits in enumerate(numbers) if len(set(of_splits)) > 1]
        if not different:
            said = notes[0] if len(splits) == len(lengths) else f"{notes[0]} ({', '.join(splits)})"
        elif len(different) == 1:
            each = [f"{number} ({split})" for number, split in zip(numbers[different[0]], splits, strict=True)]
            found = list(_NUMBER.finditer(notes[0]))[different[0]]
            said = f"{notes[0][: found.start()]}{', '.join(each[:-1])} and {each[-1]}{notes[0][found.end() :]}"
        else:
            said = "; ".join(f"{note} ({split})" for split, note in noted)
        yield f"{said[0].upper()}{said[1:]}."
