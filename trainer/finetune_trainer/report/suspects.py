"""Training rows whose label is probably wrong, as report and result show them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from finetune_api.result import MetricResult, SuspectResult
from finetune_trainer.report.blocks import Block, Card, Cards, Part, sentence
from finetune_trainer.report.metrics import metric_name

OFTEN = 0.9
"""Worth of a model from which what a model contradicts is more often wrong than hard."""


@dataclass(frozen=True)
class Suspect:
    """A training row."""

    origin: str
    label: str
    suggested: str
    """What it was learned as instead."""
    loss: float
    """The mean of its losses in training, and the trained model's added; see `scores.suspects`."""
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
            loss=round(self.loss, 4),
        )


def suspect_blocks(suspects: Sequence[Suspect], worth: MetricResult | None) -> Iterator[Block]:
    """The rows to look at. `worth` says how often the model is right, up to 1; None where that is not measured."""
    if suspects:
        if worth is None or worth.value >= OFTEN:
            what = "Labels are often wrong here; sometimes a row is only hard."
        else:
            what = (
                f"The model is often wrong itself ({metric_name(worth.name)} {worth.value:.3f} on the {worth.split} rows), so many of these may "
                "only be hard: read a row before you change its label."
            )
        yield Cards(
            "suspects",
            "Look at these rows",
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
            note="Similar rows teach another label than these training rows have: their loss stayed high while the model learned, and it "
            f"says another label in the end, or did for most of the time. {what} The most suspicious lead; result.json lists up to a "
            "hundred.",
        )
