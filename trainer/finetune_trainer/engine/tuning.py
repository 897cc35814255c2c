"""How fast each parameter moves, and from which epoch on: a function of model and spec alone, so that a resumed run goes on exactly.

The rate of a layer is a part of the rate of the layer above it, as in Howard and Ruder 2018 (Universal Language Model Fine-tuning for Text
Classification), Clark et al. 2020 (ELECTRA) and Bao et al. 2021 (BEiT), where what follows the last layer has the full rate;
that layers begin to move one after another is of the first of these, too.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from transformers import PreTrainedModel

from finetune_api.failures import FailureReason, JobError
from finetune_api.job import FineTuneJobSpec
from finetune_trainer.engine.layers import distances, head
from finetune_trainer.report.facts import Moving

FIELD = "spec.method"
MOST_SAID = 5
"""Groups that a line of the log names."""


@dataclass(frozen=True)
class Tuning:
    """What is trained, and how."""

    rates: Mapping[str, float]
    """The highest learning rate of each parameter that is trained, by its name."""
    first_epochs: Mapping[str, int]
    """The epoch, counted from 0, in which each of them begins to move."""
    told: tuple[Moving, ...]
    """The same in words, from the top down."""

    def __str__(self) -> str:
        said = [str(one) for one in self.told]
        return ", ".join(said if len(said) <= MOST_SAID else [*said[: MOST_SAID - 2], "…", said[-1]])

    @classmethod
    def of(cls, model: PreTrainedModel, spec: FineTuneJobSpec, new: Collection[str], start: int = 0) -> Tuning:
        """Of the parameters that `freeze` left to train; `new` are those without pretrained values, which are of the top wherever they are.
        `start` is how far from the top what moves in the first epoch ends, if not everything does. Raises JobError INVALID_SPEC where
        nothing would obey what was asked for."""
        method, rate = spec.method, spec.training.learning_rate
        trained = {name: parameter.numel() for name, parameter in model.named_parameters() if parameter.requires_grad}
        field = "layerDecay" if method.layer_decay < 1 else "unfreeze"
        far = _far(model, trained, field) if method.layer_decay < 1 or method.unfreeze is not None else {}
        tops = _tops(model, trained, new) if method.head_learning_rate is not None else set()
        deepest = max(far.values(), default=0)
        rates, places, begins = {}, {}, {}
        for name in trained:
            distance = 0 if name in new else far.get(name, 0)
            begin = 0 if method.unfreeze is None else -((start - distance) // method.unfreeze.layers_per_epoch)
            if method.unfreeze is not None and begin >= spec.training.epochs:
                continue
            begins[name] = max(0, begin)
            if method.head_learning_rate is not None and name in tops:
                rates[name], places[name] = method.head_learning_rate, (0, "the head")
            else:
                rates[name] = rate * method.layer_decay**distance
                places[name] = (distance + 1, _where(distance, deepest, bool(tops)))
        told = []
        for place in sorted(set(places.values())):
            of_it = [name for name in rates if places[name] == place]
            count = sum(trained[name] for name in of_it)
            told.append(Moving(place[1], rates[of_it[0]], count, max(begins[name] for name in of_it) + 1))
        return cls(rates, begins, tuple(told))

    @property
    def unfreezes(self) -> bool:
        return any(self.first_epochs.values())

    def moved_in(self, epoch: int) -> set[str]:
        """The parameters that an epoch moves."""
        return {name for name, first in self.first_epochs.items() if first <= epoch}


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
