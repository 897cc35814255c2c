"""Manifests made from the schema: one for each bound, and by Hypothesis valid ones and ones with something changed."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from functools import cache
from typing import Any

from hypothesis import strategies as st

from finetune_api.base import PathKeys
from finetune_api.crd import Schema
from finetune_api.schema import child, job_schema, paths_of
from finetune_api.tasks import NAMED, TASKS, Form, all_blocks
from tests.api_cases.builder import MINIMAL

JSON_SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**65), 2**65),
    st.sampled_from([0, 1, -1, 0.0, 1.0, 2.0, 0.5, 1.5, 1e3, 5e-5, 1e20, 2**31, 2**53 + 1]),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from(["", " ", "3", "5e-5", "true", "y", "a b", "ä", "a\n", "\u00a0", "😀", "x" * 2000]),
    st.text(max_size=8),
)
JSON_VALUES = st.one_of(
    JSON_SCALARS, st.lists(JSON_SCALARS, max_size=3), st.dictionaries(st.text(max_size=4), JSON_SCALARS, max_size=2)
)
KEYS = st.from_regex(r"[a-z]{1,8}(/[a-z]{1,4})?", fullmatch=True)
RESOURCES = st.sampled_from(["cpu", "memory", "ephemeral-storage", "nvidia.com/gpu", "hugepages-2Mi"])


@cache
def values(path: PathKeys) -> st.SearchStrategy[Any]:
    """Values that fit the field at `path`; rules over several fields may still refuse them."""
    schema = child(job_schema(), path)
    if choices := schema.get("enum"):
        return st.sampled_from(choices)
    if "x-kubernetes-int-or-string" in schema:
        return st.integers(0, 64) | st.from_regex(schema["pattern"], fullmatch=True).filter(_length(schema))
    if "x-kubernetes-preserve-unknown-fields" in schema:
        return st.dictionaries(st.text(max_size=4), JSON_VALUES, max_size=2)
    match schema["type"]:
        case "boolean":
            return st.booleans()
        case "integer":
            return st.integers(schema["minimum"], schema["maximum"]).map(_sometimes_a_float)
        case "number":
            return st.floats(
                schema["minimum"],
                schema["maximum"],
                exclude_min=schema.get("exclusiveMinimum", False),
                exclude_max=schema.get("exclusiveMaximum", False),
            )
        case "string" if "pattern" in schema:
            return st.from_regex(schema["pattern"], fullmatch=True).filter(_length(schema))
        case "string":
            return st.text(min_size=schema.get("minLength", 0), max_size=min(schema["maxLength"], 12))
        case "array":
            different = schema.get("x-kubernetes-list-type") == "set"
            low = schema.get("minItems", 0)
            return st.lists(values((*path, 0)), min_size=low, max_size=low + 2, unique=different)
        case _ if "additionalProperties" in schema:
            keys = RESOURCES if "resources" in path else KEYS
            return st.dictionaries(keys, values((*path, "key")), max_size=2)
        case _:
            return objects(path)


@st.composite
def objects(draw: st.DrawFn, path: PathKeys) -> dict[str, Any]:
    """An object with its required fields and a few of the others."""
    schema = child(job_schema(), path)
    required = schema.get("required", [])
    optional = [name for name in schema["properties"] if name not in required]
    chosen = draw(st.lists(st.sampled_from(optional), max_size=3, unique=True)) if optional else []
    return {name: draw(values((*path, name))) for name in [*required, *chosen]}


@st.composite
def manifests(draw: st.DrawFn) -> dict[str, Any]:
    """A manifest whose every field fits, or with one to three things changed at random."""
    document = copy.deepcopy(MINIMAL)
    document["spec"] = draw(values(("spec",)))
    if draw(st.sampled_from([True, True, True, False])):
        _make_sense(document["spec"], draw(st.sampled_from(TASKS[document["spec"]["task"]].forms)))
    for _ in range(draw(st.sampled_from([0, 0, 1, 1, 2, 3]))):
        if isinstance(document.get("spec"), dict):
            _change(draw, document)
    return document


def _make_sense(spec: dict[str, Any], form: Form) -> None:
    """Take out what does not go together: of so many fields, few drawn at random would pass all rules over several of them."""
    for block in all_blocks(TASKS):
        if any(f"{block}.{option}" not in form.options for option in spec.get(block, {})):
            del spec[block]
    for needs in {other.needs for other in TASKS[spec["task"]].forms} - {""}:
        block, _, option = needs.partition("=")[0].partition(".")
        spec.get(block, {}).pop(option, None)
    if form.needs:
        field, _, values = form.needs.partition("=")
        block, _, option = field.partition(".")
        spec.setdefault(block, {})[option] = values.split("|")[0]
    dataset, model = spec["dataset"], spec["model"]
    columns = dataset.get("columns", {})
    for role in [role for role in columns if not form.has(role)]:
        del columns[role]
    if not form.of_kinds(NAMED):
        dataset.pop("labels", None)
    for field in ("format", "csv") if dataset["uri"].startswith("hf://") else ("subset",):
        dataset.pop(field, None)
    if not model["uri"].startswith("hf://"):
        model.pop("revision", None)
    evaluation = spec.get("training", {}).get("evaluation", {})
    if evaluation.get("metric") not in {metric.name for metric in form.metrics}:
        evaluation.pop("metric", None)


def _change(draw: st.DrawFn, document: dict[str, Any]) -> None:
    how = draw(st.sampled_from(["value", "remove", "unknown", "bound", "bound", "text", "text"]))
    paths = _paths(document["spec"], ("spec",))
    leaves = [path for path in paths if not isinstance(_at(document, path), dict | list)]
    *parents, last = draw(st.sampled_from(leaves if how in ("bound", "text") and leaves else paths))
    target = _at(document, tuple(parents))
    match how:
        case "remove":
            del target[last]
        case "unknown" if isinstance(target, dict):
            target[draw(st.sampled_from(["epoch", "lables", "x-y", "Uri", "spec"]))] = draw(JSON_VALUES)
        case "bound":
            target[last] = draw(st.sampled_from(_beside_bounds(child(job_schema(), (*parents, last)))))
        case "text" if isinstance(target[last], str):
            target[last] = draw(st.sampled_from(["", " ", "\n", "\t", "ß", "A", "-", ".", "a" * 1024])) + target[last]
        case _:
            target[last] = draw(JSON_VALUES)


def _at(document: Any, path: PathKeys) -> Any:
    for key in path:
        document = document[key]
    return document


def _paths(value: Any, path: PathKeys) -> list[PathKeys]:
    found = [path]
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        found += _paths(inner, (*path, key))
    return found


def manifests_beside_every_bound() -> Iterator[tuple[str, dict[str, Any]]]:
    """For each field of the spec, the smallest manifest with values just inside and just outside of what it takes."""
    for path in paths_of(child(job_schema(), ("spec",)), ("spec",)):
        for value in _beside_bounds(child(job_schema(), path)):
            document = copy.deepcopy(MINIMAL)
            target: Any = document
            for depth, key in enumerate(path[:-1], start=1):
                if key not in target:
                    # Beside the field, the block gets what it must have.
                    required = child(job_schema(), path[:depth]).get("required", [])
                    target[key] = {name: "needed" for name in required if name != path[depth]}
                target = target[key]
            target[path[-1]] = value
            yield f"{'.'.join(map(str, path))} = {str(value)[:60]!r}", document


def _beside_bounds(schema: Schema) -> list[Any]:
    """Values just inside and just outside of each bound that the schema names, and of each other kind."""
    found: list[Any] = [None, True, 1.5, "", [], {}]
    for bound, inside in (("minimum", 1), ("maximum", -1)):
        if bound in schema:
            found += [schema[bound] + step for step in (-1, 0, 1, inside / 1e6)]
    if "x-kubernetes-int-or-string" in schema:
        found += ["5", "500m", "1.5", "1e3", "16Gi", "16GB", "-1", "5\n", "\u0663", ".5", "5.", "0" * 32, "0" * 33]
    elif schema.get("type") == "string":
        low, high = schema.get("minLength", 0), schema.get("maxLength", 64)
        found += ["a" * size for size in (low - 1, low, high, high + 1) if size >= 0] + ["ä" * high]
        found += [
            "A",
            "-a",
            "a-",
            "a.",
            "a\n",
            "a b",
            "a/b",
            "\u00a0",
            "😀",
            "0s",
            "10m",
            "1h30m",
            "90",
            "../a",
            "*.[a]",
        ]
        found += [
            f"{scheme}://{rest}"
            for scheme in ("hf", "s3", "file", "http", "ftp")
            for rest in ("a", "a/b", "/a", "a b", "")
        ]
        found += [form for choice in schema.get("enum", []) for form in (choice, choice.upper(), f"{choice} ")]
    elif schema.get("type") == "array":
        low, high = schema.get("minItems", 0), schema["maxItems"]
        item = {"name": "a"} if "properties" in schema["items"] else "a"
        found += [[f"a{n}" if item == "a" else item for n in range(size)] for size in (low, high, high + 1)]
        found += [[item] * 2, *([value, item] for value in _beside_bounds(schema["items"]))]
    elif "additionalProperties" in schema:
        found += [{f"example.com/a{n}": "1" for n in range(schema["maxProperties"] + more)} for more in (0, 1)]
        found += [{key: value} for value in _beside_bounds(schema["additionalProperties"]) for key in ("cpu", "a/b")]
        names = ["a b", "A", "-a", "/a", "a/", "", "ä", "a\n", *("a" * size for size in (63, 64, 316, 317, 318))]
        prefixes = ["a", "a/b", "finetune.dev", *("a" * size for size in (252, 253, 254, 317))]
        longest = ["a" * 253 + "/" + "b" * size for size in (63, 64)]
        found += [{key: "1"} for key in [*names, *(f"{prefix}/a" for prefix in prefixes), *longest]]
    return found


def _sometimes_a_float(number: int) -> int | float:
    return float(number) if number % 3 == 0 else number


def _length(schema: Schema) -> Any:
    low, high = schema.get("minLength", 0), schema["maxLength"]
    return lambda text: low <= len(text) <= high and re.search("[\ud800-\udfff]", text) is None
