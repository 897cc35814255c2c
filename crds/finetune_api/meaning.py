"""What a spec means: its training inputs, however many of their defaults are written out.

A default that is written out asks for the same run as one left out, and so does a block without anything in it. Two places have
to agree on that: the run id, a hash of `meaning(spec)`, and the CRD, which lets the training inputs of a run change in words only
(`same_meaning`). Most defaults stand in the models; `DEFAULTS` holds those that a model cannot state, as other fields decide them.

A value that is decided only once data and model are read, such as the largest micro-batch that fits or the metric for the number
of labels, is no such default: whoever writes it out asks for it whatever data and model turn out to be.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from finetune_api.base import PathKeys
from finetune_api.dataset import DEFAULT_VALIDATION_FRACTION
from finetune_api.forms import named
from finetune_api.job import DEFAULT_REVISION, TRAINING_INPUTS, FineTuneJobSpec
from finetune_api.options import DEFAULT_PAIR_LOSS, DEFAULT_TEMPERATURE, DEFAULT_TEXT_LOSS, DEFAULT_THRESHOLD
from finetune_api.shown import path_text
from finetune_api.tasks import TASKS

Schema = dict[str, Any]

_REQUIRED = frozenset(field.alias for field in FineTuneJobSpec.model_fields.values() if field.is_required())


@dataclass(frozen=True)
class Default:
    """What a field that is left out is taken for, where another field decides it.

    `cel` and `holds` say in the two languages when that is so; `old` in CEL is the spec. Fields of the condition are fixed for a
    run themselves, so it may be asked of the old spec for both.
    """

    path: tuple[str, ...]
    value: str | float
    cel: str = ""
    holds: Callable[[FineTuneJobSpec], bool] = lambda spec: True


_IS_CSV = "has(oldSelf.dataset.format) && oldSelf.dataset.format == 'csv'"
_IS_TSV = "has(oldSelf.dataset.format) && oldSelf.dataset.format == 'tsv'"

DEFAULTS = (
    Default(("model", "revision"), DEFAULT_REVISION),
    Default(("dataset", "validationFraction"), DEFAULT_VALIDATION_FRACTION),
    Default(("classification", "threshold"), DEFAULT_THRESHOLD),
    Default(("similarity", "loss"), DEFAULT_PAIR_LOSS),
    Default(("similarity", "temperature"), DEFAULT_TEMPERATURE),
    Default(("textGeneration", "loss"), DEFAULT_TEXT_LOSS),
    Default(("dataset", "csv", "delimiter"), ",", _IS_CSV, lambda s: s.dataset.format == "csv"),
    Default(("dataset", "csv", "delimiter"), "\t", _IS_TSV, lambda s: s.dataset.format == "tsv"),
    Default(("dataset", "csv", "quoteChar"), '"', _IS_CSV, lambda s: s.dataset.format == "csv"),
    Default(("dataset", "csv", "quoteChar"), "", _IS_TSV, lambda s: s.dataset.format == "tsv"),
)


def meaning(spec: FineTuneJobSpec) -> dict[str, Any]:
    """The training inputs as JSON without what is said by leaving it out; what is new in a later version changes nothing."""
    inputs = as_in_0_1_0(spec)
    inputs["dataset"]["columns"] = _columns(spec)
    for default in DEFAULTS:
        *parents, last = default.path
        block = inputs
        for name in parents:
            block = block.get(name, {})
        if block.get(last) == default.value and default.holds(spec):
            del block[last]
    said = _without_empty_blocks(inputs)
    assert isinstance(said, dict), "the spec has required fields"
    return said


def as_in_0_1_0(spec: FineTuneJobSpec) -> dict[str, Any]:
    """The same as version 0.1.0 had it: with empty blocks, and with what is in `DEFAULTS` where it is written out."""
    inputs = spec.given(TRAINING_INPUTS)
    columns = inputs["dataset"].pop("columns", {})
    # These were the columns' defaults, and a block of defaults alone was left out.
    if said := {role: column for role, column in columns.items() if role != column or role not in ("text", "label")}:
        inputs["dataset"]["columns"] = said
    return inputs


def _columns(spec: FineTuneJobSpec) -> dict[str, str]:
    """What the columns say beyond their defaults: not that a role has the column of its name which it has anyway."""
    columns = named(spec.dataset.columns)
    return {role: column for role, column in columns.items() if role != column or spec.task not in _read_anyway(role)}


def _read_anyway(role: str) -> list[str]:
    """The tasks whose examples all have the role; to name its column asks for nothing then.

    Where some examples of a task have it and others do not, naming it chooses between them, whatever the data has: only not for the
    first of all runs, whose examples all had a label, and whose ids stay.
    """
    tasks = [task.name for task in TASKS.values() if all(role in form.required for form in task.forms)]
    return [*tasks, "text-classification"] if role == "label" else tasks


def paths(said: dict[str, Any], path: PathKeys = ()) -> Iterator[str]:
    """The fields that `said` gives a value, as a manifest names them: `dataset.csv.delimiter`."""
    for name, value in said.items():
        if isinstance(value, dict):
            yield from paths(value, (*path, name))
        else:
            yield path_text((*path, name))


def same_meaning(field: str, schema: Schema, within: str = "") -> str:
    """In CEL, whether `self` and `oldSelf`, two specs, mean the same by `field`; `schema` is its own, with defaults.

    `within` is `spec.` for two jobs.
    """
    same = " && ".join(_same(path, leaf) for path, leaf in _leaves(schema, (field,)))
    return re.sub(r"\b(self|oldSelf)\.", rf"\1.{within}", same)


def what_changed(field: str, schema: Schema, text: str) -> str:
    """In CEL, `text` with the name of the first field that differs in meaning: `training.epochs`."""
    *others, (last, _) = _leaves(schema, (field,))
    name = "".join(f"!({_same(path, leaf)}) ? '{path_text(path)}' : " for path, leaf in others)
    before, after = text.split("{}")
    return f"'{before}' + ({name}'{path_text(last)}') + '{after}'"


def _without_empty_blocks(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    kept = {name: _without_empty_blocks(item) for name, item in value.items()}
    return {name: item for name, item in kept.items() if item != {}}


def _leaves(schema: Schema, path: PathKeys) -> Iterator[tuple[PathKeys, Schema]]:
    if "properties" not in schema:
        yield path, schema
    for name, child in schema.get("properties", {}).items():
        yield from _leaves(child, (*path, name))


def _same(path: PathKeys, leaf: Schema) -> str:
    """Both say the same, or whoever says something says the default.

    Without optional values (`self.?training.?epochs.orValue(3)`): the API server takes their size for endless, and such rules for
    too costly.
    """
    if leaf["type"] == "object":
        raise ValueError(f"how two maps mean the same is not said: {path_text(path)}")
    said, equal, default = [], [], []
    for spec in ("self", "oldSelf"):
        value = f"{spec}.{'.'.join(map(str, path))}"
        # What a spec always has is not asked for, as the definition holds this a few times for each field.
        asked = range(2 if path[0] in _REQUIRED and len(path) > 1 else 1, len(path) + 1)
        said.append(" && ".join(f"has({spec}.{'.'.join(map(str, path[:depth]))})" for depth in asked))
        # Sets are equal in any order, but the order of labels is their numbers: compared as plain lists.
        equal.append(f"{value}.map(i, i)" if leaf.get("x-kubernetes-list-type") == "set" else value)
        default.append(_is_default(value, path, leaf))
    left_out = " && ".join(f"(!({s}) || {d})" for s, d in zip(said, default, strict=True))
    return f"({said[0]} && {said[1]} ? {equal[0]} == {equal[1]} : {left_out})"


def _is_default(value: str, path: PathKeys, leaf: Schema) -> str:
    if path[:-1] == ("dataset", "columns"):
        role = str(path[-1])
        tasks = _read_anyway(role)
        return f"({value} == {_literal(role)} && oldSelf.task in {tasks})" if tasks else "false"
    if leaf.get("default") is not None:
        return f"{value} == {_literal(leaf['default'])}"
    decided = [default for default in DEFAULTS if default.path == path]
    cases = [
        f"{value} == {_literal(default.value)}" + (f" && {default.cel}" if default.cel else "") for default in decided
    ]
    return f"({' || '.join(cases)})" if cases else "false"


def _literal(value: Any) -> str:
    """In CEL, whose strings know the escapes of JSON that are used here."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return "'" + value.replace("\\", "\\\\").replace("'", "\\'").replace("\t", "\\t") + "'"
    return repr(value)
