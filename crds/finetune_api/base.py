"""What every model of the API shares: wire names, strictness, bounded scalar types and cross-field rules."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic.alias_generators import to_camel
from pydantic_core import PydanticCustomError

MAX_INT32 = 2**31 - 1


@dataclass(frozen=True)
class Rule:
    """A rule over several fields of one object, in the two languages that enforce it.

    `cel` is what the API server evaluates (`self` is the object), `holds` the same in Python. `message` says what is
    wrong and what to do, for both. A rule about updates (`oldSelf`) or about the cluster only has no `holds`.
    """

    message: str
    cel: str
    holds: Callable[[Any], bool] | None = None


class Model(BaseModel):
    """Base of everything a user can write: camelCase on the wire, no silent conversions, nulls refused.

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

    @model_validator(mode="before")
    @classmethod
    def _refuse_nulls(cls, data: Any) -> Any:
        # The API server refuses null for a field that is not nullable, and none of ours is.
        if isinstance(data, dict):
            for name, value in data.items():
                if value is None:
                    raise PydanticCustomError(
                        "null_field",
                        "{name} is null; give it a value or remove the line",
                        {"name": name},
                    )
        return data

    @model_validator(mode="after")
    def _obey_rules(self) -> Self:
        for rule in self.rules:
            if rule.holds is not None and not rule.holds(self):
                raise PydanticCustomError("rule", "{message}", {"message": rule.message})
        return self


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


def _whole_number(value: Any) -> Any:
    # JSON has one kind of number: `3.0` is the integer 3 to the API server, so it is to us.
    return int(value) if isinstance(value, float) and value.is_integer() else value


Integer = Annotated[int, BeforeValidator(_whole_number)]
"""A whole number; `3.0` is one, `"3"` and `true` are not."""

DnsLabel = Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", min_length=1, max_length=63)]
"""A name of lower-case letters, digits and dashes, as Kubernetes uses for most objects."""

ObjectName = Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$", min_length=1, max_length=253)]
"""A Kubernetes object name: lower-case letters, digits, dashes and dots."""

LabelKey = Annotated[
    str,
    Field(
        pattern=r"^([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$",
        min_length=1,
        max_length=317,
    ),
]
LabelValue = Annotated[str, Field(pattern=r"^([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$", max_length=63)]

Duration = Annotated[str, Field(pattern=r"^([0-9]+h)?([0-9]+m)?([0-9]+s)?$", min_length=2, max_length=20)]
"""A length of time such as `90s`, `10m` or `1h30m`."""

Quantity = Annotated[
    Annotated[int, Field(ge=0)]
    | Annotated[
        str, Field(pattern=r"^[0-9]+(\.[0-9]+)?(m|k|M|G|T|P|Ki|Mi|Gi|Ti|Pi|[eE][0-9]+)?$", min_length=1, max_length=32)
    ],
    BeforeValidator(_whole_number),
]
"""A Kubernetes quantity such as `4`, `500m` or `16Gi`."""


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
