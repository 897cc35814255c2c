"""The API's schema for people: what a field takes, in words. Messages and the reference are made from it."""

from __future__ import annotations

from functools import cache

from finetune_api.base import PathKeys
from finetune_api.crd import Schema, structural
from finetune_api.job import FineTuneJob
from finetune_api.status import FineTuneJobStatus

__all__ = ["Schema", "allowed", "child", "fields", "job_schema", "paths_of", "status_schema"]

MOST_FIELDS = 8
"""How many field names a message lists."""


@cache
def job_schema() -> Schema:
    """The structural schema of a FineTuneJob with defaults and with patterns in words."""
    return structural(FineTuneJob.model_json_schema(), for_people=True)


@cache
def status_schema() -> Schema:
    """That of its status."""
    return structural(FineTuneJobStatus.model_json_schema())


def child(schema: Schema, path: PathKeys) -> Schema:
    """The schema of the value at `path`; empty where nothing is known."""
    for key in path:
        schema = (
            schema.get("items", {})
            if isinstance(key, int)
            else schema.get("properties", {}).get(key) or schema.get("additionalProperties", {})
        )
    return schema


def paths_of(schema: Schema, path: PathKeys = ()) -> list[PathKeys]:
    """The paths of all fields below `schema`, list items left out."""
    found: list[PathKeys] = []
    for name, field in schema.get("properties", {}).items():
        found += [(*path, name), *paths_of(field, (*path, name))]
    return found


def allowed(schema: Schema) -> str:
    """What a value may be: `a whole number from 1 to 10000`."""
    if choices := schema.get("enum"):
        return choices[0] if len(choices) == 1 else f"one of {', '.join(choices)}"
    if "x-kubernetes-int-or-string" in schema:
        return str(schema["x-says"])
    match schema.get("type"):
        case "boolean":
            return "true or false"
        case "integer":
            return f"a whole number{_range(schema)}"
        case "number":
            return f"a number{_range(schema)}"
        case "string":
            return _text(schema)
        case "array":
            size = _size("items", schema.get("minItems"), schema.get("maxItems"))
            different = ", all different" if schema.get("x-kubernetes-list-type") == "set" else ""
            return f"a list of {size}{different}, each {allowed(schema['items'])}"
        case _ if "additionalProperties" in schema:
            size = _size("keys", schema.get("minProperties"), schema.get("maxProperties"))
            return f"{size} with values; each value {allowed(schema['additionalProperties'])}"
        case _ if "properties" in schema:
            return f"a block of the fields {fields(schema)}"
        case _:
            return "a block of fields"


def fields(schema: Schema) -> str:
    """The names of an object's fields, required ones first, the rest of a long list left out."""
    names = sorted(schema.get("properties", {}), key=lambda name: name not in schema.get("required", []))
    return ", ".join(names[:MOST_FIELDS]) + (" and more" if len(names) > MOST_FIELDS else "")


def _range(schema: Schema) -> str:
    low, high = schema.get("minimum"), schema.get("maximum")
    if low is None and high is None:
        return ""
    plain = not schema.get("exclusiveMinimum") and not schema.get("exclusiveMaximum")
    if plain and low is not None and high is not None:
        return f" from {low} to {high}"
    parts = []
    if low is not None:
        parts.append(f"{'above' if schema.get('exclusiveMinimum') else 'of at least'} {low}")
    if high is not None:
        parts.append(f"{'below' if schema.get('exclusiveMaximum') else 'at most'} {high}")
    return " " + " and ".join(parts)


def _text(schema: Schema) -> str:
    if schema.get("format") == "date-time":
        return "a time such as 2026-01-31T09:30:00Z"
    low, high = schema.get("minLength"), schema.get("maxLength")
    if "x-says" in schema:
        return f"{schema['x-says']}" + (f", at most {high} characters" if high is not None and 1 < high <= 64 else "")
    return f"text of {_size('characters', low, high)}" if high is not None else "text"


def _size(noun: str, low: int | None, high: int | None) -> str:
    if low and high:
        return f"{low} to {high} {noun}"
    return f"at most {high} {noun}" if high else noun
