"""How fast each parameter moves, and from which epoch on: a function of model and spec alone, so that a resumed run goes on exactly.

The rate of a layer is a part of the rate of the layer above it, as in Howard and Ruder 2018 (Universal Language Model Fine-tuning for Text
Classification), Clark et al. 2020 (ELECTRA) and Bao et al. 2021 (BEiT), where what follows the last layer has the full rate;
that layers begin to move one after another is of the first of these, too.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

from transformers import PreTrainedModel

from finetune_api.failures import FailureReason, JobError
from finetune_api.job import FineTuneJobSpec
from finetune_trainer.engine.layers import distances, head
from finetune_trainer.report.facts import Moving

FIELD = "spec.method"
MOST_SAID = 5
"""Groups that a line of the log names."""


@dataclass(frozen=True)
class Pace:
    """How a parameter is trained."""

    place: tuple[int, str]
    """What is trained as it is, in words, and before it the number of that, counted from the top of the model."""
    numbers: int
    """That it has."""
    distance: int
    """How far it is from the top; 0 of what was drawn at random, wherever that is."""
    rate: float
    """The highest learning rate."""
    epoch: int = 0
    """With which it begins to move, counted from 0."""


@dataclass(frozen=True)
class Tuning:
    """What is trained, and how, by the names of the parameters."""

    paces: Mapping[str, Pace]

    @classmethod
    def of(cls, model: PreTrainedModel, spec: FineTuneJobSpec, new: Collection[str]) -> Tuning:
        """Of the parameters that `freeze` left to train, all from the first step; `new` are those without pretrained values, which are of
        the top wherever they are. Raises JobError INVALID_SPEC where nothing would obey what was asked for."""
        method, rate = spec.method, spec.training.learning_rate
        trained = {name: parameter.numel() for name, parameter in model.named_parameters() if parameter.requires_grad}
        field = "layerDecay" if method.layer_decay < 1 else "unfreeze"
        far = _far(model, trained, field) if method.layer_decay < 1 or method.unfreeze is not None else {}
        tops = _tops(model, trained, new) if method.head_learning_rate is not None else set()
        deepest = max(far.values(), default=0)
        paces = {}
        for name, numbers in trained.items():
            distance = 0 if name in new else far.get(name, 0)
            if method.head_learning_rate is not None and name in tops:
                paces[name] = Pace((0, "the head"), numbers, distance, method.head_learning_rate)
            else:
                place = (distance + 1, _where(distance, deepest, bool(tops)))
                paces[name] = Pace(place, numbers, distance, rate * method.layer_decay**distance)
        return cls(paces)

    def one_after_another(self, layers: int, epochs: int, start: int = 0) -> Tuning:
        """The same, but that each epoch adds `layers` of what is below that which moves in the first one. That ends `start` from the top.
        What `epochs` do not reach is left out."""
        begun = {n: replace(one, epoch=max(0, -((start - one.distance) // layers))) for n, one in self.paces.items()}
        return Tuning({name: one for name, one in begun.items() if one.epoch < epochs})

    @property
    def rates(self) -> dict[str, float]:
        """The highest learning rate of each parameter that is trained."""
        return {name: one.rate for name, one in self.paces.items()}

    @property
    def unfreezes(self) -> bool:
        """Whether something begins to move after the first epoch."""
        return any(one.epoch for one in self.paces.values())

    def moved_in(self, epoch: int) -> set[str]:
        """The parameters that an epoch, counted from 0, moves."""
        return {name for name, one in self.paces.items() if one.epoch <= epoch}

    @property
    def told(self) -> tuple[Moving, ...]:
        """In words, from the top down."""
        found = []
        for place in sorted({one.place for one in self.paces.values()}):
            alike = [one for one in self.paces.values() if one.place == place]
            found.append(Moving(place[1], alike[0].rate, sum(one.numbers for one in alike), alike[0].epoch + 1))
        return tuple(found)

    def __str__(self) -> str:
        said = [str(one) for one in self.told]
        return ", ".join(said if len(said) <= MOST_SAID else [*said[: MOST_SAID - 2], "…", said[-1]])


def _where(distance: int, deepest: int, beside_head: bool) -> str:
    if not deepest:
        return "all else" if beside_head else "all"
    if distance == 0:
        return "above the layers"
    return "below the layers" if distance == deepest else f"layer {distance} from the top"


def _far(model: PreTrainedModel, trained: Collection[str], field: str) -> dict[str, int]:
    found = distances(model)
    if not any(found.get(name, 0) for name in trained):
        lacks = "is trained, as spec.method.freeze keeps them" if found else f"is told in {type(model).__name__}"
        raise JobError(
            FailureReason.INVALID_SPEC,
            f"no layer {lacks}, so {field} has nothing to do",
            field=f"{FIELD}.{field}",
            remedy=f"Remove {FIELD}.{field}.",
        )
    return found


def _tops(model: PreTrainedModel, trained: Collection[str], new: Collection[str]) -> set[str]:
    found = head(model, new) & set(trained)
    if not found:
        raise JobError(
            FailureReason.INVALID_SPEC,
            f"{type(model).__name__} has no head that is trained, and nothing of it was drawn at random, so nothing has this rate",
            field=f"{FIELD}.headLearningRate",
            remedy=f"Remove {FIELD}.headLearningRate.",
        )
    return found
