"""What is wrong with a manifest, said to the person who wrote it: where, what was given, what is allowed, what to do."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from finetune_api.base import KEY_WORDS, PathKeys
from finetune_api.crd import Schema
from finetune_api.job import FineTuneJob
from finetune_api.schema import allowed, child, fields, job_schema, paths_of

WRITTEN_BY_THE_SERVER = frozenset(
    {"uid", "resourceVersion", "generation", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds"}
    | {"managedFields", "selfLink", "ownerReferences", "finalizers"}
)
LONGEST_VALUE = 60
SECRET_NAME = re.compile(r"secret|token|password|passwd|credential|access_?key|api_?key|private", re.IGNORECASE)
SECRET_VALUE = re.compile(
    r"hf_\w{8,}|(AKIA|ASIA)[A-Z0-9]{12,}|gh[pousr]_\w{16,}|eyJ[\w-]{8,}\.|://[^/\s]*:[^/\s]*@|-----BEGIN"
)


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


def validate(document: Mapping[str, Any]) -> FineTuneJob:
    """The job that `document` asks for. Raises InvalidManifest with all problems at once, unknown fields among them.

    What only the server writes (status, metadata.uid, …) is never a problem.
    """
    written: dict[str, Any] = {key: value for key, value in document.items() if key != "status"}
    if isinstance(metadata := written.get("metadata"), dict):
        written["metadata"] = {key: value for key, value in metadata.items() if key not in WRITTEN_BY_THE_SERVER}
    try:
        return FineTuneJob.model_validate(written, extra="forbid")
    except ValidationError as error:
        # Without its cause: Pydantic's text repeats the input, and with it any secret that was put in a wrong place.
        raise InvalidManifest(problems(error, document)) from None


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
    # A manifest.Document knows its lines; that type needs a YAML library, which reading a spec in a cluster does not.
    place = document.place(keys) if hasattr(document, "place") else ""
    if keys and keys[-1] == "[key]":
        yield Problem(
            path_text(keys[:-2]), f"the key {shown(value, ())} does not fit", KEY_WORDS, "Rename the key.", place
        )
        return
    path, schema = path_text(keys), child(job_schema(), keys)
    match kind:
        case "rules":
            for message in details["ctx"]["messages"]:
                yield Problem(path, message, "", "", place)
        case "extra_forbidden":
            near = _nearest_field(keys)
            beside = "" if near else fields(child(job_schema(), keys[:-1]))
            yield Problem(path, "there is no such field", beside, near or "Remove it.", place)
        case "missing":
            choices = schema.get("enum", [])
            line = f"{keys[-1]}: {choices[0]}" if len(choices) == 1 else f"{keys[-1]}:"
            yield Problem(path, "missing", allowed(schema), f"Add `{line}` to {path_text(keys[:-1])}.", place)
        case _:
            yield Problem(
                path, _complaint(kind, value, keys), allowed(schema), _remedy(kind, value, keys, schema), place
            )


def path_text(keys: PathKeys) -> str:
    """`("spec", "labels", 0)` as `spec.labels[0]`; a key with dots or slashes stands in brackets too."""
    text = ""
    for key in keys:
        if SECRET_VALUE.search(str(key)):
            key = "…"
        plain = isinstance(key, str) and re.fullmatch(r"[A-Za-z0-9_-]+", key)
        text += (f".{key}" if text else str(key)) if plain else f"[{key}]"
    return text or "the manifest"


def shown(value: Any, keys: PathKeys) -> str:
    """A value as a message may show it: short, and never a secret."""
    if isinstance(value, dict):
        return _counted(len(value), "field")
    if isinstance(value, list | tuple):
        return _counted(len(value), "item")
    if _secret(value, keys):
        return "what is given (not shown, as it may be secret)"
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= LONGEST_VALUE else f"{text[: LONGEST_VALUE - 2]}…{text[-1]}"


def _secret(value: Any, keys: PathKeys) -> bool:
    named = any(isinstance(key, str) and SECRET_NAME.search(key) for key in keys)
    return named or SECRET_VALUE.search(str(value)) is not None


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _complaint(kind: str, value: Any, keys: PathKeys) -> str:
    text = shown(value, keys)
    match kind:
        case "greater_than" | "greater_than_equal":
            return f"{text} is too small"
        case "less_than" | "less_than_equal":
            return f"{text} is too large"
        case "string_too_short" | "string_too_long":
            return f"{text} has {_counted(len(value), 'character')}"
        case "too_short":
            return f"{text} are too few" if len(value) != 1 else f"{text} is too few"
        case "too_long":
            return f"{text} are too many"
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
            return f"{text} is not a whole number" if kind == "int_type" else f"{text} is a number"
        case list():
            return "this is a list"
        case _:
            return "this is a block of fields"


def _remedy(kind: str, value: Any, keys: PathKeys, schema: Schema) -> str:
    quoted = isinstance(value, int | float) and not isinstance(value, bool) and _fits(str(value), schema)
    match kind:
        case _ if value is None:
            return "Give it a value, or remove it."
        case _ if _secret(value, keys):
            return "Write it in that form; a secret itself never belongs in a manifest."
        case "literal_error":
            near = _nearest(value, schema["enum"]) if isinstance(value, str) else None
            return f"Did you mean {near}?" if near else "Choose one of these."
        case "string_type" if isinstance(value, bool):
            return "YAML reads y, n, yes, no, on and off as booleans too; put the word in quotes."
        case "string_type" | "quantity" if quoted:
            return f'Put it in quotes: "{value}".'
        case "int_type" | "float_type" if isinstance(value, str) and re.fullmatch(
            r"[-+]?[0-9.]+([eE][-+]?[0-9]+)?", value
        ):
            return f"Write {value} without quotes."
        case "bool_type":
            return "Write true or false, without quotes."
        case "not_unique":
            return "Remove one of the two."
        case "string_pattern_mismatch" if keys[-1] == "uri":
            return _uri_remedy(value, keys)
        case "string_pattern_mismatch" if value != value.lower() and _fits(value.lower(), schema):
            return f"Write {value.lower()}, in lower case."
        case "model_type" | "dict_type":
            return "Write its fields below it, one a line: `name: value`."
        case "list_type":
            return "Write it as a list: [first, second]."
        case "greater_than" | "greater_than_equal":
            return "Raise it."
        case "less_than" | "less_than_equal":
            return "Lower it."
        case "string_too_long":
            return "Shorten it."
        case "too_long":
            return "Remove some."
        case "string_too_short" | "too_short":
            return "Add to it, or remove it."
        case _:
            return "Write it in that form."


def _fits(text: str, schema: Schema) -> bool:
    return re.search(schema.get("pattern", ""), text) is not None and len(text) <= schema.get("maxLength", len(text))


def _uri_remedy(value: str, keys: PathKeys) -> str:
    if "://" not in value and keys != ("spec", "output", "uri") and re.fullmatch(r"[\w.-]+(/[\w.-]+)?", value):
        return f"For the hub write hf://{value}. A plain path to a file is for local runs only."
    if value.startswith("hf://datasets/"):
        return f"Leave out `datasets/`: hf://{value.removeprefix('hf://datasets/')}."
    if value.startswith("hf://") and keys == ("spec", "output", "uri"):
        return "Results go to object storage; name a bucket."
    if " " in value:
        return "Write each space as %20." if value.startswith("file:///") else "Remove the spaces."
    return "Begin it with one of these."


def _nearest_field(keys: PathKeys) -> str:
    """A question for the field that was probably meant: one beside it by spelling, or one of that name elsewhere."""
    name = str(keys[-1])
    if near := _nearest(name, list(child(job_schema(), keys[:-1]).get("properties", {}))):
        return f"Did you mean {near}?"
    everywhere = paths_of(job_schema())
    meant = _nearest(name, sorted({str(path[-1]) for path in everywhere}), cutoff=0.85)
    places = [path for path in everywhere if path[-1] == meant]
    return f"Did you mean {path_text(places[0])}?" if len(places) == 1 else ""


def _nearest(word: str, choices: list[str], cutoff: float = 0.6) -> str | None:
    by_form = {_form(choice): choice for choice in choices}
    near = difflib.get_close_matches(_form(word), by_form, n=1, cutoff=cutoff)
    begins = [choice for form, choice in by_form.items() if len(word) > 2 and form.startswith(_form(word))]
    return by_form[near[0]] if near else begins[0] if begins else None


def _form(word: str) -> str:
    return re.sub(r"[-_ ]", "", word.lower())
