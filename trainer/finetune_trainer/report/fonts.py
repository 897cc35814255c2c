"""Fonts for the words of users, in whatever script they write."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from functools import cache

from matplotlib.font_manager import findfont, fontManager, get_font

FONT = "DejaVu Sans"
"""Comes with matplotlib, so it is the same everywhere: Latin, Greek, Cyrillic, Arabic, Hebrew and many signs."""
NO_WORDS = ("cm", "DejaVu", "Last Resort", "STIX")
"""How the families begin that come with matplotlib too, and have boxes, mathematics, or no more than `FONT`."""


def families(texts: Iterable[str]) -> list[str] | None:
    """Font families, each asked for what the ones before it lack, that together have every character of `texts`.

    `FONT`, and as many of those installed here as it takes. None where some character is in none of them.
    """
    missing = {character for text in texts for character in text if not _is_invisible(character)}
    chosen, missing = [FONT], missing - _found(findfont(FONT), missing)
    files = _installed() if missing else {}
    while missing:
        best = max(files, key=lambda family: len(_found(files[family], missing)), default=None)
        found = _found(files[best], missing) if best else set()
        if not best or not found:
            return None
        chosen.append(best)
        missing -= found
    return chosen


def _is_invisible(character: str) -> bool:
    """Joiners, variation selectors and marks of direction: they shape their neighbours and need no glyph."""
    return unicodedata.category(character) == "Cf" or "\ufe00" <= character <= "\ufe0f"


def _found(file: str, characters: set[str]) -> set[str]:
    font = get_font(file)
    return {character for character in characters if font.get_char_index(ord(character))}


@cache
def _installed() -> dict[str, str]:
    """The file of each family installed here that can be drawn with, upright and near ordinary weight, by their names."""
    files: dict[str, str] = {}
    for entry in sorted(fontManager.ttflist, key=lambda entry: (entry.name, abs(int(entry.weight) - 400), entry.fname)):
        if entry.style != "normal" or entry.name.startswith(NO_WORDS) or entry.name in files:
            continue
        try:
            if get_font(entry.fname).scalable:  # pictures of one size, as some fonts of emoji are, cannot be drawn
                files[entry.name] = entry.fname
        except (OSError, RuntimeError):  # damaged, or gone since matplotlib listed it
            continue
    return files
