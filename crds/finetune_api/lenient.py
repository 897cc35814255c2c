"""Reading what another version wrote: what this one does not understand is left out, in the smallest parts, and is no error."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from finetune_api.base import Contract

C = TypeVar("C", bound=Contract)


def as_much_as_fits(contract: type[C], written: Mapping[str, Any]) -> C:
    """`written` without the parts that are no such contract. Raises ValueError where what it requires is among these."""
    rest: Any = written
    while True:
        try:
            return contract.model_validate(rest)
        except ValidationError as error:
            rest = copy.deepcopy(dict(written)) if rest is written else rest
            problem = error.errors(include_url=False, include_input=False)[0]
            if not (path := [*_reachable(rest, problem["loc"])]):
                raise
            _correct(rest, path, problem)


def _correct(rest: Any, path: list[int | str], problem: ErrorDetails) -> None:
    """Take out of `rest` the part at `path`, which this problem is about, or cut it to its length."""
    *where, last = path
    for key in where:
        rest = rest[key]
    if problem["type"] == "string_too_long":
        rest[last] = rest[last][: problem["ctx"]["max_length"]]
    elif problem["type"] == "too_long":
        rest[last] = rest[last][-problem["ctx"]["max_length"] :]  # the latest are the last
    else:
        del rest[last]


def _reachable(value: Any, path: tuple[int | str, ...]) -> Iterator[int | str]:
    """As much of the path as there is: it also names what is missing, and the alternatives of a type."""
    for key in path:
        if not (isinstance(value, dict) and key in value) and not (isinstance(value, list) and isinstance(key, int)):
            return
        value = value[key]  # type: ignore[index]
        yield key
