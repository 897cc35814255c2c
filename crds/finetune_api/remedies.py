"""What to do about a value that cannot be: the nearest thing that can."""

from __future__ import annotations

import difflib
import posixpath
import re
import shlex
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

from finetune_api.base import PathKeys
from finetune_api.crd import Schema
from finetune_api.elsewhere import form, known_elsewhere
from finetune_api.placement import is_a_device
from finetune_api.schema import child, job_schema, paths_of
from finetune_api.shown import is_secret, path_text

HUB_PAGE = re.compile(r"https?://(?:www\.)?(?:huggingface\.co|hf\.co)/(?:datasets/)?([\w.-]+(?:/[\w.-]+)?)")
CONTROL = re.compile(r"[\x00-\x1f\x7f]")
BYTES = re.compile(r"([0-9]+(?:\.[0-9]+)?) ?([kmgtp]?)(i?)b?", re.IGNORECASE)
NUMBER = re.compile(r"[-+]?[0-9]+(\.[0-9]+)?([eE][-+]?[0-9]+)?")


@dataclass(frozen=True)
class Fault:
    """A value that its field does not take."""

    kind: str
    """Pydantic's word for what is wrong."""
    value: Any
    keys: PathKeys
    schema: Schema
    """What the field takes."""
    spelt: str | None = None
    """How the file has the value, if it is a number or a boolean."""
    setting: str = ""
    """The `--set path` that gave the value."""


def remedy(fault: Fault) -> str:
    """One sentence."""
    kind, value, schema = fault.kind, fault.value, fault.schema
    match kind:
        case _ if value is None:
            return "Give it a value, or remove it."
        case "model_type" | "dict_type" if isinstance(value, str):
            return _block_remedy(fault)
        case _ if is_secret(value, fault.keys):
            return "Write it in that form; a secret itself never belongs in a manifest."
        case "literal_error" if isinstance(value, bool) and fault.spelt and fault.spelt in schema["enum"]:
            return f"YAML reads {fault.spelt} as a boolean. {_in_quotes(fault, fault.spelt)}"
        case "literal_error":
            near = nearest(value, schema["enum"]) if isinstance(value, str) else None
            if near:
                return f"Did you mean {near}?"
            return f"Write {schema['enum'][0]}." if len(schema["enum"]) == 1 else "Choose one of these."
        case "string_type" if isinstance(value, bool):
            if fault.spelt is None:
                return "YAML reads y, n, yes, no, on and off as booleans too; put the word in quotes."
            return f"YAML reads {fault.spelt} as a boolean. {_in_quotes(fault, fault.spelt)}"
        case "quantity" if near := _nearest_quantity(fault):
            return near
        case "string_type" | "quantity" if isinstance(value, int | float) and _fits(fault.spelt or str(value), schema):
            return _in_quotes(fault, fault.spelt or str(value))
        case "int_type" | "float_type" if isinstance(value, str) and _is_number_for(value, schema):
            return f"Write {fault.setting}={value}." if fault.setting else f"Write {value} without quotes."
        case "bool_type":
            return "Write true or false, without quotes."
        case "not_unique":
            return "Remove one of the two."
        case "string_pattern_mismatch" | "string_too_short" if fault.keys[-1] == "uri" and value:
            return _uri_remedy(fault)
        case "string_pattern_mismatch" if value != value.lower() and _fits(value.lower(), schema):
            return f"Write {value.lower()}, in lower case."
        case "string_pattern_mismatch" if "." in value and _fits(value.replace(".", "-"), schema):
            return f"Write {value.replace('.', '-')}, with a dash."
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
        case "too_long" | "annotations":
            return "Remove some."
        case "string_too_short" | "too_short":
            return "Add to it, or remove it."
        case _:
            return "Write it in that form."


def nearest_field(keys: PathKeys) -> str:
    """The field that was probably meant: the one that other tools call so, one beside it by spelling, or one of that name elsewhere."""
    if known := known_elsewhere(keys):
        return known
    name = str(keys[-1])
    if near := nearest(name, list(child(job_schema(), keys[:-1]).get("properties", {}))):
        return f"Did you mean {near}?"
    everywhere = paths_of(job_schema())
    meant = nearest(name, sorted({str(path[-1]) for path in everywhere}), cutoff=0.85)
    places = [path for path in everywhere if path[-1] == meant]
    return f"Did you mean {path_text(places[0])}?" if len(places) == 1 else ""


def nearest(word: str, choices: list[str], cutoff: float = 0.6) -> str | None:
    """The choice that `word` is most like, if any is like it."""
    wanted = form(word)
    by_form = {form(choice): choice for choice in choices}
    # Short words are soon alike: `nodes` and `model` share three letters in order.
    near = difflib.get_close_matches(wanted, by_form, n=1, cutoff=cutoff if len(wanted) > 5 else max(cutoff, 0.7))
    begins = [choice for other, choice in by_form.items() if len(word) > 2 and other.startswith(wanted)]
    return by_form[near[0]] if near else begins[0] if begins else None


def _in_quotes(fault: Fault, text: str) -> str:
    quoted = f'"{text}"'
    if fault.setting:
        return f"Put it in quotes, and these in quotes for the shell: {fault.setting}={shlex.quote(quoted)}"
    return f"Put it in quotes: {quoted}."


def _block_remedy(fault: Fault) -> str:
    """For text where a block stands: mostly the one field that the block must have."""
    required = fault.schema.get("required", [])
    if len(required) != 1:
        return "Write its fields below it, one a line: `name: value`."
    if is_secret(fault.value, fault.keys):
        return f"Write {{{required[0]}: …}} with the Secret's name; a secret itself never belongs in a manifest."
    inner = child(fault.schema, (required[0],))
    value = fault.value if _fits(fault.value, inner) else "…"
    return f"Write {{{required[0]}: {value}}}."


def _fits(text: str, schema: Schema) -> bool:
    return re.search(schema.get("pattern", ""), text) is not None and len(text) <= schema.get("maxLength", len(text))


def _nearest_quantity(fault: Fault) -> str:
    """For a part of a device, and for a unit as people write it, such as 16GB; empty for others."""
    if is_a_device(str(fault.keys[-1])):
        return "A device is counted; write a whole number, such as 1."
    if not isinstance(fault.value, str) or not (found := BYTES.fullmatch(fault.value)):
        return ""
    number, letter, binary = found[1], found[2].upper(), found[3].lower()
    meant = f"{number}{'k' if letter == 'K' and not binary else letter}{binary}"
    return f"Write {meant}." if _fits(meant, fault.schema) else ""


def _is_number_for(text: str, schema: Schema) -> bool:
    """Whether `text`, without its quotes, is a number that `schema` takes."""
    if not NUMBER.fullmatch(text):
        return False
    number, low, high = float(text), schema["minimum"], schema["maximum"]
    above = number > low if schema.get("exclusiveMinimum") else number >= low
    below = number < high if schema.get("exclusiveMaximum") else number <= high
    return above and below and (schema["type"] == "number" or number.is_integer())


def _plain_path(uri: str) -> str:
    """`uri` with what its path amounts to: no empty part, no `.` and no `..` in it."""
    scheme, _, rest = uri.partition("://")
    place, _, path = rest.partition("/")
    return f"{scheme}://{place}{posixpath.normpath('/' + path.lstrip('/'))}"


def _uri_remedy(fault: Fault) -> str:
    value, is_output = fault.value, fault.keys == ("spec", "output", "uri")
    page = HUB_PAGE.match(value)
    scheme, _, rest = value.partition(":")
    for meant in (
        f"hf://{page[1]}" if page else "",
        f"{scheme.lower()}:{rest}",
        f"file:///{rest.lstrip('/')}" if scheme.lower() == "file" else "",
        f"hf://{value.removeprefix('hf://datasets/')}" if value.startswith("hf://datasets/") else "",
        _plain_path(value),
    ):
        if meant and meant != value and _fits(meant, fault.schema):
            return f"Write {meant}."
    if not re.match(r"[A-Za-z0-9+.-]+:", value):
        here = "A plain path is for local runs only"
        if is_output:
            return f"{here}; in a cluster results go to a bucket."
        if re.fullmatch(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?", value):
            return f"For the hub write hf://{value}. {here}."
        return f"{here}; for a cluster put the files into a bucket and name that."
    if value.startswith("hf://") and is_output:
        return "Results go to object storage; name a bucket."
    if CONTROL.search(unquote(value) if value.startswith("file:") else value):
        return "Remove the line break or other control character; what has one in its name must be renamed."
    if " " in value:
        return "Write each space as %20." if value.startswith("file:///") else "Remove the spaces."
    return "Begin it with one of these."
