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
from finetune_api.options import (
    DEFAULT_BETA,
    DEFAULT_PACKING,
    DEFAULT_PAIR_LOSS,
    DEFAULT_TEMPERATURE,
    DEFAULT_TEXT_LOSS,
    DEFAULT_THRESHOLD,
)
from finetune_api.shown import path_text
from finetune_api.tasks import TASKS

Schema = dict[str, Any]


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
    Default(("textGeneration", "beta"), DEFAULT_BETA),
    Default(("textGeneration", "packing"), DEFAULT_PACKING),
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

    `within` is `.spec` for two jobs.
    """
    lists = [f"{_table(block, fields)}.all(f, {_same(block)})" for block, fields in _blocks(schema, (field,))]
    same = " && ".join([*lists, *(_same_set(path) for path in _sets(schema, (field,)))])
    return re.sub(r"\b(self|oldSelf)\b", rf"\1{within}", same)


def unchanged(field: str, schema: Schema) -> str:
    """In CEL, whether two specs say just the same by `field`, which the API server knows fast: what nobody touched is not read in parts.

    `a in [b]` is `a == b` here for the reason that `_same` has.
    """
    return " && ".join([f"self.?{field} in [oldSelf.?{field}]", *(_same_set(path) for path in _sets(schema, (field,)))])


def what_changed(field: str, schema: Schema, text: str) -> str:
    """In CEL, `text` with the name of the first field that differs in meaning, `training.epochs`, where its `%s` is."""
    names = [
        f"{_table(block, fields)}.filter(f, !({_same(block)})).map(f, '{path_text(block)}.%s'.format([f[0]]))"
        for block, fields in _blocks(schema, (field,))
    ]
    names += [f"({_same_set(path)} ? [] : ['{path_text(path)}'])" for path in _sets(schema, (field,))]
    return f"'{text}'.format([({' + '.join(names)})[0]])"


def _without_empty_blocks(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    kept = {name: _without_empty_blocks(item) for name, item in value.items()}
    return {name: item for name, item in kept.items() if item != {}}


def _blocks(schema: Schema, path: PathKeys) -> Iterator[tuple[PathKeys, dict[str, Schema]]]:
    """Each object below `path`, and at first the spec itself where `path` is a value, with those of its fields that are values."""
    if "properties" not in schema:
        yield path[:-1], {str(path[-1]): schema}
        return
    children = schema["properties"]
    if fields := {name: child for name, child in children.items() if "properties" not in child and not _is_set(child)}:
        yield path, fields
    for name, child in children.items():
        if "properties" in child:
            yield from _blocks(child, (*path, name))


def _sets(schema: Schema, path: PathKeys) -> Iterator[PathKeys]:
    if _is_set(schema):
        yield path
    for name, child in schema.get("properties", {}).items():
        yield from _sets(child, (*path, name))


def _is_set(schema: Schema) -> bool:
    return schema.get("x-kubernetes-list-type") == "set"


def _table(block: PathKeys, fields: dict[str, Schema]) -> str:
    """Rows of a field's name, and what it is taken for where it is left out: null is what nobody can say."""
    for name, schema in fields.items():
        if schema["type"] == "object":
            raise ValueError(f"how two maps mean the same is not said: {path_text((*block, name))}")
    rows = [f"[dyn('{name}'), {_default((*block, name), schema)}]" for name, schema in fields.items()]
    return f"[{', '.join(rows)}]"


def _same(block: PathKeys) -> str:
    """Both say the same in the field of the row `f`, where a default that is left out is said, too.

    `a in [b]` is `a == b`, but for what the API server takes it to cost: a value that is reached by a name in a table is endless to
    it, and to compare two such is refused, while one is found in a list of one at the price of one.
    """
    inside = "".join(f".?{name}" for name in block)
    new, old = (f"dyn({spec}{inside})[?f[0]].orValue(f[1])" for spec in ("self", "oldSelf"))
    return f"{new} in [{old}]"


def _same_set(path: PathKeys) -> str:
    """Sets are equal in any order, but the order of labels is their numbers: compared as plain lists."""
    asked = [f"{spec}.?{'.?'.join(map(str, path))}.hasValue()" for spec in ("self", "oldSelf")]
    listed = [f"{spec}.{'.'.join(map(str, path))}.map(i, i)" for spec in ("self", "oldSelf")]
    return f"{' == '.join(asked)} && (!{asked[0]} || {' == '.join(listed)})"


def _default(path: PathKeys, leaf: Schema) -> str:
    if path[:-1] == ("dataset", "columns"):
        role = str(path[-1])
        cases = [(literal(role), f"oldSelf.task in {tasks}")] if (tasks := _read_anyway(role)) else []
    elif leaf.get("default") is not None:
        cases = [(literal(leaf["default"]), "")]
    else:
        cases = [(literal(default.value), default.cel) for default in DEFAULTS if default.path == path]
    decided = "null"
    for value, condition in reversed(cases):
        decided = f"{condition} ? dyn({value}) : {decided}" if condition else value
    return f"dyn({decided})"


def literal(value: Any) -> str:
    """A value in CEL, whose strings know the escapes of JSON that are used here."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return "'" + value.replace("\\", "\\\\").replace("'", "\\'").replace("\t", "\\t") + "'"
    return repr(value)
