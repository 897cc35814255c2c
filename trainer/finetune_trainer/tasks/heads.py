"""The head of a model that was tuned before: its rows mean what the model's config calls them, not what this data does.

The same labels in another order: the rows are put in order. Other labels: a new output layer. No names but `LABEL_0` and so on: the
order is kept, and said to be a guess.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel
from transformers.utils import CONFIG_NAME

from finetune_trainer.tasks.weights import body_prefix

NO_NAME = re.compile(r"label_\d+", re.IGNORECASE)


@dataclass(frozen=True)
class LabelNames:
    """What a config calls the rows of its head."""

    id2label: Mapping[Any, Any]
    label2id: Mapping[Any, Any]

    @classmethod
    def of(cls, folder: Path) -> LabelNames:
        """As they are in config.json. transformers puts LABEL_0 and so on in their place where one list of them is missing, or where
        there is another number beside them."""
        config = json.loads((folder / CONFIG_NAME).read_text())
        one, other = config.get("id2label"), config.get("label2id")
        if isinstance(listed := config.get("label_names"), list):  # as timm has it
            one = dict(enumerate(listed))
        return cls(one if isinstance(one, dict) else {}, other if isinstance(other, dict) else {})

    def rows(self, count: int) -> tuple[list[str] | None, bool]:
        """The names of `count` rows, None where they have none; and whether the config's two lists of them contradict each other."""
        one = _in_order({number: str(label) for number, label in self.id2label.items()}, count)
        other = _in_order({number: str(label) for label, number in self.label2id.items()}, count)
        if one is None or _are_no_names(one):
            return (one if other is None else other), False
        return one, other is not None and not _are_no_names(other) and other != one


def output_layer(model: PreTrainedModel, count: int) -> tuple[str, torch.nn.Module] | None:
    """The name and the module of the layer that has a row for each of `count` labels, outside of the body."""
    prefix = body_prefix(model)
    found = None
    for name, module in model.named_modules():
        if prefix and f"{name}.".startswith(prefix):
            continue
        weight = getattr(module, "weight", None)
        if isinstance(weight, torch.nn.Parameter) and weight.ndim == 2 and weight.shape[0] == count:
            found = name, module  # the last one: layers before it may happen to be as wide
    return found


def fit_head(
    model: PreTrainedModel, before: LabelNames, labels: Sequence[str] | None, count: int, new: frozenset[str]
) -> tuple[frozenset[str], list[str]]:
    """Let the `count` rows of the head mean `labels`, where they have names. `before` are the names of its config as it was, `new` the
    parameters drawn at random.

    Returns the names of all new parameters of the model, and sentences about what was done to a head that was there.
    """
    found = output_layer(model, count)
    if found is None:
        return new, []
    name, layer = found
    own = frozenset(f"{name}.{key}" for key, _ in layer.named_parameters(recurse=False))
    if own & new:
        if not own <= new:
            _draw(model, layer)
        return new | own, []
    if labels is None:
        return new, []
    rows, is_contradictory = before.rows(len(labels))
    notes = []
    if is_contradictory:
        notes.append(
            "The model's config has two lists of labels that contradict each other; its id2label is taken to be right."
        )
    order = _order(rows, labels) if rows is not None else None
    if order is not None:
        assert rows is not None
        if order != list(range(len(labels))):
            _permute(layer, order)
            notes.append(
                f"The rows of the model's head were put in order: it was tuned for {_listed(rows)}, here it is {_listed(labels)}."
            )
        return new, notes
    if rows is None or _are_no_names(rows):
        notes.append(
            f"The model's head has {len(labels)} rows without names; they are taken to mean {_listed(labels)}, in this order. "
            "If that is another one, correct id2label in the model's config.json."
        )
        return new, notes
    _draw(model, layer)
    return new | own, [f"The model was tuned for other labels, {_listed(rows)}: the output layer is drawn anew."]


def _in_order(names: Mapping[Any, str], count: int) -> list[str] | None:
    """The names of rows 0 to `count` - 1; None unless each has exactly one."""
    try:
        numbered = {int(number): name for number, name in names.items()}
    except (TypeError, ValueError):
        return None
    return [numbered[row] for row in range(count)] if set(numbered) == set(range(count)) else None


def _are_no_names(names: Sequence[str]) -> bool:
    return all(NO_NAME.fullmatch(name.strip()) for name in names)


def _order(rows: Sequence[str], labels: Sequence[str]) -> list[int] | None:
    """For each label the row that was called so; None when these are not the same names. Case counts only where names differ in nothing else."""
    for key in (str, _key):
        names, wanted = [key(name) for name in rows], [key(label) for label in labels]
        if len(set(names)) == len(names) and set(names) == set(wanted) and len(set(wanted)) == len(wanted):
            return [names.index(label) for label in wanted]
    return None


def _key(name: str) -> str:
    return unicodedata.normalize("NFC", name).strip().casefold()


@torch.no_grad()
def _permute(layer: torch.nn.Module, order: list[int]) -> None:
    for parameter in layer.parameters(recurse=False):
        if parameter.shape[:1] == (len(order),):
            parameter.copy_(parameter[order].clone())


@torch.no_grad()
def _draw(model: PreTrainedModel, layer: torch.nn.Module) -> None:
    for parameter in layer.parameters(recurse=False):
        parameter._is_hf_initialized = False  # type: ignore[attr-defined]  # else transformers leaves it as it was loaded
    before = [parameter.clone() for parameter in layer.parameters(recurse=False)]
    model._init_weights(layer)
    reset = getattr(layer, "reset_parameters", None)
    if reset and all(torch.equal(a, b) for a, b in zip(before, layer.parameters(recurse=False), strict=True)):
        reset()


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(names[:5])
    return shown if len(names) <= 5 else f"{shown} and {len(names) - 5} more"
