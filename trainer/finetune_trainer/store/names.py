"""Names of files below a folder, as every store can have them."""

from __future__ import annotations


def is_inside(name: str) -> bool:
    """Whether `name` is that of a file below the folder it is relative to, written in the one way there is."""
    return all(part not in ("", ".", "..") for part in name.split("/")) and not any(
        ord(character) < 32 or ord(character) == 127 for character in name
    )
