"""Which form data was probably meant to have, where it has none: so that what is missing is said of that one."""

from __future__ import annotations

from collections.abc import Collection, Sequence


def nearest_form(forms: Sequence[Collection[str]], existing: Collection[str], plain: int) -> int:
    """Of forms, by their columns, the first of those that lack fewest: one whose columns are all there, if there is one. `plain` where the
    data has no column of any."""
    lacking = [len(set(columns) - set(existing)) for columns in forms]
    some = [number for number, columns in enumerate(forms) if lacking[number] < len(set(columns))]
    return min(some, key=lambda number: lacking[number], default=plain)
