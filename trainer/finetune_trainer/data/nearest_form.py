"""Which form data was probably meant to have, where it has none: so that what is missing is said of that one."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence


def nearest_form(forms: Sequence[Mapping[str, str]], existing: Collection[str], plain: int) -> int:
    """Of forms, by their columns (role → column), the first of those that lack fewest: one whose columns are all there, if there is one; else one
    that lacks columns called like their roles. `plain` where the data has no column of any."""
    lacking = [{role: column for role, column in columns.items() if column not in existing} for columns in forms]
    some = [number for number, columns in enumerate(forms) if len(lacking[number]) < len(columns)]
    renamed = [sum(role != column for role, column in columns.items()) for columns in lacking]
    return min(some, key=lambda number: (len(lacking[number]), renamed[number]), default=plain)
