"""What every model of the API shares: wire names, strictness, bounded scalar types and cross-field rules."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Annotated, Any, ClassVar, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    ModelWrapValidatorHandler,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
    model_validator,
)
from pydantic.alias_generators import to_camel
from pydantic_core import CoreSchema, PydanticCustomError

MAX_INT32 = 2**31 - 1

PathKeys = tuple[str | int, ...]
"""A place in a manifest: `("spec", "dataset", "labels", 0)`."""


@dataclass(frozen=True)
class Rule:
    """A rule over several fields of one object, in the two languages that enforce it.

    `cel` is what the API server evaluates (`self` is the object), `holds` the same in Python. `message` says what is
    wrong and what to do, for both.
    """

    message: str
    cel: str
    holds: Callable[[Any], bool]
    cluster_only: bool = False
    """Holds for jobs of a cluster, not for local runs: asked with the context `IN_A_CLUSTER` only."""
    walks: bool = False
    """Goes through a map, which the API server takes to be dear: where others are asked as one, this stays by itself."""


IN_A_CLUSTER = {"cluster": True}
"""For `model_validate(…, context=IN_A_CLUSTER)`: the verdict of the API server."""


class Model(BaseModel):
    """Base of everything a user can write: camelCase on the wire, no silent conversions, null is absent.

    Unknown fields are ignored, so that an older operator can read a newer manifest; pass `extra="forbid"` to
    `model_validate` to be strict, as the command line is.
    """

    model_config = ConfigDict(
        alias_generator=to_camel,
        extra="ignore",
        frozen=True,
        strict=True,
        use_attribute_docstrings=True,
    )

    rules: ClassVar[tuple[Rule, ...]] = ()

    @classmethod
    def __get_pydantic_json_schema__(cls, core: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        schema = handler(core)
        if cls.rules:
            rules = [{"rule": rule.cel, "message": rule.message} for rule in cls.rules]
            handler.resolve_ref_schema(schema)["x-kubernetes-validations"] = rules
        return schema

    @model_validator(mode="wrap")
    @classmethod
    def _read(cls, data: Any, fields: ModelWrapValidatorHandler[Self], info: ValidationInfo) -> Self:
        if isinstance(data, cls):
            return data  # it was read already, and cannot have changed since
        read = fields(cls._null_is_absent(data))
        read._obey_rules(info)
        return read

    @classmethod
    def _null_is_absent(cls, data: Any) -> Any:
        # So it is to the API server, for every field that is not nullable, and none of ours is.
        if not isinstance(data, dict):
            return data
        known = {field.alias for field in cls.model_fields.values()}
        return {name: value for name, value in data.items() if value is not None or name not in known}

    @field_validator("*", mode="before")
    @classmethod
    def _whole_number(cls, value: Any) -> Any:
        return whole_number(value)

    def _obey_rules(self, info: ValidationInfo) -> None:
        asked = [rule for rule in self.rules if not rule.cluster_only or info.context == IN_A_CLUSTER]
        broken = [rule for rule in asked if not rule.holds(self)]
        if broken:
            text = "; ".join(rule.message for rule in broken)
            raise PydanticCustomError("rules", "{text}", {"text": text, "broken": broken})


class Contract(BaseModel):
    """Base of what programs write for programs: camelCase on the wire, either name in Python, unknown fields ignored."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        validate_by_name=True,
        validate_by_alias=True,
        extra="ignore",
        frozen=True,
        use_attribute_docstrings=True,
    )

    def wire(self) -> dict[str, Any]:
        """The JSON object of this contract: wire names, absent fields left out."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


def whole_number(value: Any) -> Any:
    """`3.0` as 3, anything else as it is: JSON has one kind of number, and `3.0` is an integer to the API server."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def says(text: str) -> dict[str, Any]:
    """What a pattern allows, in words, for messages and the reference. No part of the schema in the cluster."""
    return {"x-says": text}


NAME_WORDS = "lower-case letters, digits and dashes, beginning and ending with a letter or digit"
DnsLabel = Annotated[
    str,
    Field(pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", min_length=1, max_length=63, json_schema_extra=says(NAME_WORDS)),
]
"""A name of lower-case letters, digits and dashes, as Kubernetes uses for most objects."""

OBJECT_NAME = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"
SAYS_OBJECT_NAME = says("lower-case letters, digits, dashes and dots, beginning and ending with a letter or digit")
ObjectName = Annotated[
    str, Field(pattern=OBJECT_NAME, min_length=1, max_length=253, json_schema_extra=SAYS_OBJECT_NAME)
]
"""A Kubernetes object name: lower-case letters, digits, dashes and dots."""

KEY_WORDS = "a name such as `disk` or `example.com/disk`"
LabelKey = Annotated[
    str,
    Field(
        # The lengths, 253 and 63, stand in the pattern, because that is all a cluster can ask of a map's keys.
        pattern=r"^([a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$",
        min_length=1,
        max_length=317,
        json_schema_extra=says(KEY_WORDS),
    ),
]
LabelValue = Annotated[
    str,
    Field(
        pattern=r"^([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$",
        max_length=63,
        json_schema_extra=says("letters, digits, dashes, dots and underscores"),
    ),
]

# Parts of a path: none is empty, `.` or `..`, and none holds a control character, since object stores cannot address such. A space is
# a slip more often than a name. The keys of object stores are taken as written; in a file's URI, characters may be escaped, but no
# dot, slash or control character, which would only hide one.
_KEY = r"(/(\.?[^/.\x00-\x20\x7f]|\.\.[^/\x00-\x20\x7f])[^/\x00-\x20\x7f]*)"
_BUCKET = rf"(s3|gs|az)://[A-Za-z0-9][-A-Za-z0-9._]*{_KEY}*/?"
_ESCAPED = "%(2[0-9A-Da-d]|[3-689A-Fa-f][0-9A-Fa-f]|7[0-9A-Ea-e])"
_LETTER = rf"([^/.%#?\x00-\x20\x7f]|{_ESCAPED})"
_FILE = rf"file://(/(\.?{_LETTER}|\.\.(\.|{_LETTER}))(\.|{_LETTER})*)+/?"
_HUB = r"hf://[A-Za-z0-9][-A-Za-z0-9._]*(/[A-Za-z0-9][-A-Za-z0-9._]*)?"

InputUri = Annotated[
    str,
    Field(
        pattern=f"^({_HUB}|{_BUCKET}|{_FILE})$",
        min_length=6,
        max_length=1024,
        json_schema_extra=says(
            "hf://owner/name, s3://bucket/path, gs://bucket/path, az://container/path or file:///path, with no empty part, . or .. in "
            "the path"
        ),
    ),
]
OutputUri = Annotated[
    str,
    Field(
        pattern=f"^({_BUCKET}|{_FILE})$",
        min_length=6,
        max_length=1024,
        json_schema_extra=says(
            "s3://bucket/path, gs://bucket/path, az://container/path or, in local runs, file:///path, with no empty part, . or .. in "
            "the path"
        ),
    ),
]

Duration = Annotated[
    str,
    Field(
        pattern=r"^([0-9]{1,6}h)?([0-9]{1,6}m)?([0-9]{1,6}s)?$",
        min_length=2,
        max_length=20,
        json_schema_extra=says("a length of time such as 90s, 10m or 1h30m"),
    ),
]
"""A length of time such as `90s`, `10m` or `1h30m`."""

_QUANTITY = re.compile(r"^[0-9]+(\.[0-9]+)?(m|k|M|G|T|P|Ki|Mi|Gi|Ti|Pi|[eE][0-9]{1,2})?$", re.ASCII)
_MAX_QUANTITY = 2**53 - 1


def _quantity(value: Any) -> Any:
    value = whole_number(value)
    if isinstance(value, str):
        fits = len(value) <= 32 and _QUANTITY.fullmatch(value) is not None
    else:
        fits = isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _MAX_QUANTITY
    if not fits:
        raise PydanticCustomError("quantity", "not a quantity")
    return value


Quantity = Annotated[
    int | str,
    BeforeValidator(_quantity),
    WithJsonSchema(
        {
            "x-kubernetes-int-or-string": True,
            "minimum": 0,
            "maximum": _MAX_QUANTITY,
            "pattern": _QUANTITY.pattern,
            "maxLength": 32,
            **says('a whole number, or a number with a unit such as "500m", "1.5" or "16Gi"'),
        }
    ),
]
"""A Kubernetes quantity such as `4`, `500m` or `16Gi`."""

_UNITS = {"": Fraction(1), "m": Fraction(1, 1000)}
_UNITS |= {unit: Fraction(1000) ** power for power, unit in enumerate(["k", "M", "G", "T", "P"], start=1)}
_UNITS |= {unit: Fraction(1024) ** power for power, unit in enumerate(["Ki", "Mi", "Gi", "Ti", "Pi"], start=1)}


def amount(quantity: int | str) -> Fraction:
    """What a `Quantity` amounts to: `amount("1.5Ki") == 1536`."""
    text = str(quantity)
    number = text.rstrip("mkKMGTPi")
    return Fraction(number) * _UNITS[text[len(number) :]]


def _without_nulls(value: Any) -> Any:
    return {key: item for key, item in value.items() if item is not None} if isinstance(value, dict) else value


NULL_IS_ABSENT = BeforeValidator(_without_nulls)
"""For the values of a map, as `Model` has it for its fields. Stands last, so that bounds count what remains."""


def all_different(values: list[str]) -> list[str]:
    """Refuses a list that names something twice."""
    twice = list(dict.fromkeys(value for value in values if values.count(value) > 1))
    if twice:
        raise PydanticCustomError("not_unique", "{twice} twice", {"twice": ", ".join(twice)})
    return values


def seconds(duration: str) -> int:
    """Seconds in a `Duration`: `seconds("1h30m") == 5400`."""
    total, number = 0, ""
    for character in duration:
        if character.isdigit():
            number += character
        else:
            total += int(number) * {"h": 3600, "m": 60, "s": 1}[character]
            number = ""
    return total
