"""Training rows whose label is probably wrong, as report and result show them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from finetune_api.result import SuspectResult
from finetune_trainer.report.blocks import Block, Card, Cards, Part, sentence


@dataclass(frozen=True)
class Suspect:
    """A training row."""

    origin: str
    label: str
    suggested: str
    """What it was learned as instead."""
    margin: float
    """The mean of its margins, which is negative; see `scores.suspects`."""
    parts: tuple[Part, ...]
    """What the row is."""
    of: str = ""
    """What of the row is labelled so, such as `word 3, "Paris"`; empty where it is all of it."""

    def result(self) -> SuspectResult:
        return SuspectResult(
            row=self.origin,
            of=self.of or None,
            label=self.label,
            suggested=self.suggested,
            margin=round(self.margin, 4),
        )


def suspect_blocks(suspects: Sequence[Suspect]) -> Iterator[Block]:
    """The rows to look at."""
    if suspects:
        yield Cards(
            "suspects",
            "Fix these rows",
            tuple(
                Card(
                    one.origin,
                    sentence(
                        f"{one.of} labelled ".lstrip(), (one.label, "truth"), ", learned as ", (one.suggested, "said")
                    ),
                    one.parts,
                )
                for one in suspects
            ),
            note="Training went against the label of these training rows, because similar rows teach another one (area under the margin, "
            "Pleiss et al. 2020). Labels are often wrong here; sometimes a row is only hard. The most suspicious lead; result.json "
            "lists up to a hundred.",
        )
