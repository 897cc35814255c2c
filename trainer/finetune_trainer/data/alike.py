"""Texts that look the same to a reader and are different ones to a computer."""

from __future__ import annotations

import re
import unicodedata
from typing import Any

# Unicode's Default_Ignorable_Code_Point: zero-width blanks and joiners, soft hyphens, direction marks, variation selectors.
_UNSEEN = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f"
    "\u3164\ufe00-\ufe0f\ufeff\uffa0\U000e0000-\U000e0fff]"
)


def look(text: str) -> str:
    """Equal for texts that differ only in how Unicode writes the same characters (composed or not, wide or narrow), in
    characters that nobody sees, in which blanks they hold, or in blanks around them."""
    if not text.isascii():
        text = unicodedata.normalize("NFKC", _UNSEEN.sub("", text))
    return text.strip()


WRITTEN_FOR_NOTHING = frozenset(
    {
        "nan",
        "NaN",
        "None",
        "null",
        "NULL",
        "NA",
        "N/A",
        "n/a",
        "<NA>",
        "#N/A",
        "NaT",
        "undefined",
        "#REF!",
        "#VALUE!",
        "#NAME?",
    }
)
"""As pandas, Excel, databases and programming languages write that there is no value."""

SAID = {"true": True, "1": True, "1.0": True, "false": False, "0": False, "0.0": False}
"""As texts write whether something is so, in any case."""


def is_blank(text: str) -> bool:
    """Whether nobody sees anything of `text`."""
    if text and text[0].isalnum() and not _UNSEEN.match(text):
        return False
    return not look(text)


def said(value: Any) -> bool | None:
    """Whether a value says true or false; None for one that says neither."""
    if isinstance(value, str):
        return SAID.get(value.strip().lower())
    return SAID.get(str(value).lower()) if isinstance(value, bool | int | float) else None
