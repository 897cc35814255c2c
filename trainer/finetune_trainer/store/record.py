"""Records that prove themselves whole: the JSON objects by which a folder says what is complete, and who may write to it.

A record ends with a `checksum` over all that it says, so that one that was changed or cut is never believed. Version 0.1.0 wrote
records without: such a one counts when it says exactly what that version could say, no word more or less.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from typing import Any, TypeVar

from pydantic import ValidationError
from pydantic_core import from_json

from finetune_api.base import Contract
from finetune_api.result import Artifact
from finetune_trainer.store.names import is_inside

CHECKSUM = "checksum"
HEX = frozenset("0123456789abcdef")

R = TypeVar("R", bound=Contract)


class NotWhole(Exception):
    """Why a record cannot be believed, as the end of a sentence that begins with its name."""


class OtherVersion(NotWhole):
    """It is whole, but of a version that this trainer does not know."""


def seal(record: Contract) -> bytes:
    """The record as JSON with its checksum."""
    said = from_json(record.model_dump_json(by_alias=True, exclude_none=True))
    return json.dumps({**said, CHECKSUM: _checksum(said)}, indent=1, ensure_ascii=False).encode()


def unseal(kind: type[R], data: bytes) -> R:
    """The record in `data`. Raises NotWhole, and OtherVersion for what a newer trainer may have written."""
    try:
        said = from_json(data, allow_inf_nan=False)
    except ValueError:
        raise NotWhole("is no JSON") from None
    if not isinstance(said, dict):
        raise NotWhole("is no JSON object")
    checksum = said.pop(CHECKSUM, None)
    if checksum is not None and checksum != _checksum(said):
        raise NotWhole("does not fit its own checksum")
    if checksum is not None and said.get("version") != 1:
        raise OtherVersion(f"is of version {said.get('version')!r}, this trainer reads version 1")
    try:
        # What is sealed may say more than is known here: a later trainer wrote it.
        return kind.model_validate_json(json.dumps(said), strict=True, extra="ignore" if checksum else "forbid")
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"]))
        raise NotWhole(f"cannot be read: {place}: {first['msg']}") from None


def check_files(files: Iterable[Artifact]) -> None:
    """Raise NotWhole unless these are one or more files inside a folder, each named once."""
    names: set[str] = set()
    for file in files:
        if not is_inside(file.path):
            raise NotWhole(f"names {file.path!r}, which is no file inside its folder")
        if file.path in names:
            raise NotWhole(f"names {file.path!r} twice")
        if file.size < 0 or len(file.sha256) != 64 or not HEX.issuperset(file.sha256):
            raise NotWhole(f"has no size and SHA-256 of {file.path!r}")
        names.add(file.path)
    if not names:
        raise NotWhole("names no files")


def _checksum(said: dict[str, Any]) -> str:
    """SHA-256 (hex) of the object written without spaces, its members sorted by name."""
    return hashlib.sha256(json.dumps(said, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
