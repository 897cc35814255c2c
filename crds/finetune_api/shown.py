"""Paths and values as messages show them: short, as they are written, and never a secret."""

from __future__ import annotations

import json
import re
from typing import Any

from finetune_api.base import PathKeys

LONGEST_VALUE = 60
SECRET_NAME = re.compile(r"secret|token|password|passwd|credential|access_?key|api_?key|private", re.IGNORECASE)
SECRET_VALUE = re.compile(
    r"hf_\w{8,}|(AKIA|ASIA)[A-Z0-9]{12,}|gh[pousr]_\w{16,}|eyJ[\w-]{8,}\.|://[^/\s]*:[^/\s]*@|-----BEGIN"
)
REFERENCE = re.compile(r"Secret(s|Ref)$", re.IGNORECASE)
"""Fields that name a Secret."""
NAME = re.compile(r"[a-z][a-z0-9-]{0,19}")
"""What is short and plain enough to be such a name and no secret itself."""


def path_text(keys: PathKeys) -> str:
    """`("spec", "labels", 0)` as `spec.labels[0]`; a key with dots or slashes stands in brackets too."""
    text = ""
    for key in keys:
        if SECRET_VALUE.search(str(key)):
            key = "…"
        plain = isinstance(key, str) and re.fullmatch(r"[A-Za-z0-9_-]+", key)
        text += (f".{key}" if text else str(key)) if plain else f"[{key}]"
    return text or "the manifest"


def shown(value: Any, keys: PathKeys, spelt: str | None = None) -> str:
    """A value as a message may show it; `spelt` is how the file has a number or boolean."""
    if isinstance(value, dict):
        return counted(len(value), "field")
    if isinstance(value, list | tuple):
        return counted(len(value), "item")
    if is_secret(value, keys):
        return "what is given (not shown, as it may be secret)"
    return _cut(spelt or json.dumps(value, ensure_ascii=False))


def in_parentheses(values: dict[PathKeys, tuple[Any, str | None]]) -> str:
    """` (given: subset "x", limits {"cpu": 2})` for values by path, each with its spelling; no secrets, no empty parentheses."""
    texts = [
        f"{path_text(keys)} {_cut(json.dumps(value)) if isinstance(value, dict) else shown(value, keys, spelt)}"
        for keys, (value, spelt) in values.items()
        if not is_secret(value, keys)
    ]
    return f" (given: {', '.join(texts)})" if texts else ""


def is_secret(value: Any, keys: PathKeys) -> bool:
    named = any(isinstance(key, str) and SECRET_NAME.search(key) for key in keys)
    field = next((key for key in reversed(keys) if isinstance(key, str)), "")
    if named and REFERENCE.search(field) and isinstance(value, str) and NAME.fullmatch(value):
        return False
    return named or SECRET_VALUE.search(str(value)) is not None


def counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST_VALUE else f"{text[: LONGEST_VALUE - 2]}…{text[-1]}"
