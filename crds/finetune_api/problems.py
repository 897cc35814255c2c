"""What is wrong with a manifest, said to the person who wrote it: where, what was given, what is allowed, what to do."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from finetune_api.base import IN_A_CLUSTER, KEY_WORDS, PathKeys, Rule
from finetune_api.job import FineTuneJob
from finetune_api.remedies import Fault, nearest_field, remedy
from finetune_api.schema import Schema, allowed, child, fields, job_schema, status_schema
from finetune_api.shown import counted, in_parentheses, is_secret, path_text, shown

WRITTEN_BY_THE_SERVER = frozenset(
    {"uid", "resourceVersion", "generation", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds"}
    | {"managedFields", "selfLink", "ownerReferences", "finalizers"}
)
MADE_UP = "xxxxx"
"""For the characters that the API server adds to a generateName."""
NOT_SHOWN = ("hub", "storage")
"""Blocks whose unknown fields are likely to be credentials, whatever they are called."""


@dataclass(frozen=True)
class Problem:
    """One thing to correct."""

    path: str
    """Where, as the manifest has it: `spec.dataset.labels[1]`."""
    value: str
    """What was given there, and why it cannot be. Never a secret."""
    allowed: str
    """What can be there; empty when `value` says it all."""
    remedy: str
    """What to do; empty when `value` says it all."""
    place: str = ""
    """File and line, if the manifest came from a file."""

    def __str__(self) -> str:
        first = f"{self.place + ': ' if self.place else ''}{self.path}: {self.value}."
        if self.allowed:
            first += f" Allowed: {self.allowed}."
        return f"{first}\n    {self.remedy}" if self.remedy else first


class InvalidManifest(Exception):
    """A manifest with problems, all of them."""

    def __init__(self, problems: list[Problem]) -> None:
        self.problems = problems
        super().__init__("\n".join(map(str, problems)))


def validate(document: Mapping[str, Any], *, cluster: bool = False) -> FineTuneJob:
    """The job that `document` asks for. Raises InvalidManifest with all problems at once, unknown fields among them.

    With `cluster` the verdict is that of the API server, without it that of a local run. What only the server writes (status,
    metadata.uid, …) is never a problem, but for fields that are not there.
    """
    written: dict[str, Any] = {key: value for key, value in document.items() if key != "status"}
    made_up = ""
    if isinstance(metadata := written.get("metadata"), dict):
        metadata = {key: value for key, value in metadata.items() if key not in WRITTEN_BY_THE_SERVER}
        if metadata.get("generateName") == "":
            del metadata["generateName"]  # as if it were not there
        if cluster and not metadata.get("name") and isinstance(metadata.get("generateName"), str):
            made_up = metadata.pop("generateName")
            metadata["name"] = made_up + MADE_UP
        written["metadata"] = metadata
    unknown = list(_unknown_in_status(document)) if cluster else []
    try:
        job = FineTuneJob.model_validate(written, extra="forbid", context=IN_A_CLUSTER if cluster else None)
    except ValidationError as error:
        found = [
            _about_generate_name(problem, document) if made_up else problem for problem in problems(error, document)
        ]
        # Without its cause: Pydantic's text repeats the input, and with it any secret that was put in a wrong place.
        raise InvalidManifest(found + unknown) from None
    if unknown:
        raise InvalidManifest(unknown)
    return job


def _about_generate_name(problem: Problem, document: Mapping[str, Any]) -> Problem:
    if problem.path != "metadata.name":
        return problem
    keys = ("metadata", "generateName")
    value = f"{problem.value.replace(MADE_UP, '')}, with the {len(MADE_UP)} characters that the API server adds"
    remedy = problem.remedy.replace(MADE_UP, "")
    return replace(problem, path=path_text(keys), value=value, remedy=remedy, place=_place(document, keys))


def _unknown_in_status(document: Mapping[str, Any]) -> Iterator[Problem]:
    """The server takes no status from a manifest, but looks for slips of the pen in it all the same."""

    def look(value: Any, keys: PathKeys, schema: Schema) -> Iterator[Problem]:
        for index, item in enumerate(value if isinstance(value, list) else ()):
            yield from look(item, (*keys, index), child(schema, (index,)))
        for name, item in value.items() if isinstance(value, dict) and "properties" in schema else ():
            if inner := child(schema, (name,)):
                yield from look(item, (*keys, name), inner)
            else:
                said = "there is no such field"
                yield Problem(
                    path_text((*keys, name)), said, fields(schema), "Remove it.", _place(document, (*keys, name))
                )

    yield from look(document.get("status"), ("status",), status_schema())


def problems(error: ValidationError, document: Mapping[str, Any], within: PathKeys = ()) -> list[Problem]:
    """Everything that `error` says about `document`, in words, in the order of the file if it came from one.

    `within` is where in a manifest the document belongs: `("spec",)` for the error of a spec alone.
    """
    found = [problem for details in error.errors(include_url=False) for problem in _problems(details, document, within)]
    return sorted(found, key=_line)


def _line(problem: Problem) -> int:
    line = problem.place.rpartition(":")[2]
    return int(line) if line.isdecimal() else 0


def _problems(details: ErrorDetails, document: Mapping[str, Any], within: PathKeys) -> Iterator[Problem]:
    keys = (*within, *details["loc"])
    kind, value = details["type"], details["input"]
    path, schema, place = path_text(keys), child(job_schema(), keys), _place(document, keys)
    if keys and keys[-1] == "[key]":
        key = f"the key {shown(value, ())} does not fit"
        yield Problem(path_text(keys[:-2]), key, KEY_WORDS, "Rename the key.", place)
        return
    match kind:
        case "rules":
            for rule in details["ctx"]["broken"]:
                read = _fields_read(rule, value, keys)
                given = {name: (read[name], _spelt(document, (*keys, *name))) for name in read}
                places = [_place(document, (*keys, *name)) for name in read] or [place]
                blamed = next((place for place in places if place.startswith("--set")), places[0])
                yield Problem(path, rule.message + in_parentheses(given), "", "", blamed)
        case "extra_forbidden":
            hidden = is_secret(value, keys) or keys[1:2] in [(block,) for block in NOT_SHOWN]
            said = "there is no such field"
            said += "" if hidden else f" (given: {shown(value, keys, _spelt(document, keys))})"
            beside = fields(child(job_schema(), keys[:-1]))
            yield Problem(path, said, beside, nearest_field(keys) or "Remove it.", place)
        case "missing":
            choices = schema.get("enum", [])
            line = f"{keys[-1]}: {choices[0]}" if len(choices) == 1 else f"{keys[-1]}:"
            yield Problem(path, "missing", allowed(schema), f"Add `{line}` to {path_text(keys[:-1])}.", place)
        case _:
            setting = document.set_by.get(keys, "") if hasattr(document, "set_by") else ""
            fault = Fault(kind, value, keys, schema, _spelt(document, keys), setting)
            yield Problem(path, _complaint(fault), allowed(schema), remedy(fault), place)


# A manifest.Document knows how it is written; that type needs a YAML library, which reading a spec in a cluster does not.


def _place(document: Mapping[str, Any], keys: PathKeys) -> str:
    return str(document.place(keys)) if hasattr(document, "place") else ""


def _spelt(document: Mapping[str, Any], keys: PathKeys) -> str | None:
    return document.source.texts.get(keys) if hasattr(document, "source") else None


def _fields_read(rule: Rule, block: Any, keys: PathKeys) -> dict[PathKeys, Any]:
    """The fields that `rule` asks about, by their paths in `block`, with their values where the manifest gives them."""
    found: dict[PathKeys, Any] = {}
    for names in re.findall(r"self\)?((?:\.\??\w+)+)", rule.cel):
        value: Any = block
        path: PathKeys = ()
        for name in names.replace("?", "").split(".")[1:]:
            if isinstance(value, dict) and name in value and child(job_schema(), (*keys, *path, name)):
                value, path = value[name], (*path, name)
        if path and value is not None and "properties" not in child(job_schema(), (*keys, *path)):
            found[path] = value
    return found


def _complaint(fault: Fault) -> str:
    value, text = fault.value, shown(fault.value, fault.keys, fault.spelt)
    match fault.kind:
        case "greater_than" | "greater_than_equal":
            return f"{text} is too small"
        case "less_than" | "less_than_equal":
            return f"{text} is too large"
        case "string_too_short" | "string_too_long":
            return f"{text} has {counted(len(value), 'character')}"
        case "too_short":
            return f"{text} are too few" if len(value) != 1 else f"{text} is too few"
        case "too_long":
            return f"{text} are too many"
        case "annotations":
            return "together they are too long"
        case "string_pattern_mismatch" | "quantity":
            return f"{text} does not fit"
        case "literal_error" if isinstance(value, str):
            return f"{text} is no choice here"
        case "not_unique":
            return "an item is given twice"
    match value:
        case None:
            return "empty (null)"
        case bool():
            return f"{text} is a boolean"
        case str():
            return f"{text} is text"
        case int():
            return f"{text} is a number"
        case float():
            return f"{text} is not a whole number" if fault.kind == "int_type" else f"{text} is a number"
        case list():
            return "this is a list"
        case _:
            return "this is a block of fields"
