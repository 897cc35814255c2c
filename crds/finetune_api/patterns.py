"""File patterns, matched in time that grows with the lengths of pattern and name only, whatever the pattern.

`*`, `?` and `[…]` stay within one part of a path, as in a shell; a part that is `**` is any number of folders. A regular
expression over the whole path would backtrack for hours at `*a*a*a*a*b`, and nothing interrupts Python's `re`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from fnmatch import translate

ANY_FOLDERS = "**"


def matcher(pattern: str) -> Callable[[str], bool]:
    """Whether a path matches `pattern`. Raises ValueError when `**` is only a piece of a part."""
    parts = pattern.split("/")
    if any(ANY_FOLDERS in part and part != ANY_FOLDERS for part in parts):
        raise ValueError("** must stand alone between slashes, as in **/*.csv")
    if parts[-1] == ANY_FOLDERS:
        parts.append("*")  # a file in those folders
    # One part's expression never backtracks over a `*` but its last: `translate` makes atomic groups.
    wanted = [None if part == ANY_FOLDERS else re.compile(translate(part)).match for part in parts]

    def matches(path: str) -> bool:
        given = path.split("/")
        at = part = 0
        retry: tuple[int, int] | None = None  # where to go on when the last `**` takes one folder more
        while at < len(given):
            matches_here = wanted[part] if part < len(wanted) else None
            if part < len(wanted) and matches_here is None:
                part += 1
                retry = (at + 1, part)
            elif matches_here is not None and matches_here(given[at]):
                at, part = at + 1, part + 1
            elif retry is not None:
                at, part = retry
                retry = (at + 1, part)
            else:
                return False
        return part == len(wanted)

    return matches
