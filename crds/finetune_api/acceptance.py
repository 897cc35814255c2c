"""What a trained model has to reach to be of use."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from finetune_api.base import Model, Rule
from finetune_api.training import MetricName

Bound = Annotated[float, Field(ge=-1e12, le=1e12)]


class Acceptance(Model):
    """What the model has to reach. A run whose model does not is Failed with AcceptanceNotMet; the model stays where it is."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "acceptance asks for nothing; give min, max, or betterThanBaseline: true, or remove acceptance",
            "has(self.min) || has(self.max) || (has(self.betterThanBaseline) && self.betterThanBaseline)",
            lambda a: a.min is not None or a.max is not None or a.better_than_baseline,
        ),
        Rule(
            "acceptance.min is above acceptance.max, so that nothing is between them; correct one of them",
            "!has(self.min) || !has(self.max) || self.min <= self.max",
            lambda a: a.min is None or a.max is None or a.min <= a.max,
        ),
    )

    metric: MetricName | None = None
    """What is judged, a metric of the task: of the test rows where there are some, else of the validation rows. Default: what the best
    model is chosen by."""

    min: Bound | None = None
    """The least that it may be, itself included. Default: none."""

    max: Bound | None = None
    """The most that it may be, itself included. Default: none."""

    better_than_baseline: bool = False
    """Whether it has to be better than before training: higher, or lower where less is better, such as of a loss. Default: false."""
