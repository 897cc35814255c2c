"""How problems in data are said: a count, a few places, the nearest name."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence

from finetune_api.failures import FailureReason, JobError
from finetune_trainer.data.examples import Origin, Split

SHOWN = 3
"""Places named in one message; the rest is counted."""


def at(places: Sequence[Origin | str], column: str | None = None) -> str:
    """`train.tsv, line 17, column "text"; train.tsv, line 40, column "text" and 12 more`."""
    where = f', column "{column}"' if column else ""
    named = "; ".join(f"{place}{where}" for place in places[:SHOWN])
    return named if len(places) <= SHOWN else f"{named} and {len(places) - SHOWN:,} more"


def listed(names: Iterable[str], most: int = 20) -> str:
    """`"a", "b", "c"`, cut after `most`."""
    names = list(names)
    text = ", ".join(f'"{name}"' for name in names[:most])
    return text if len(names) <= most else f"{text} and {len(names) - most:,} more"


def nearest(name: str, names: Iterable[str]) -> str:
    """` Did you mean "label"?`, or nothing when no name is near."""
    folded = {other.casefold(): other for other in names}
    found = difflib.get_close_matches(name.casefold(), folded, n=1, cutoff=0.6)
    return f' Did you mean "{folded[found[0]]}"?' if found else ""


def shortened(value: object, most: int = 60) -> str:
    """The value as a reader sees it, cut."""
    text = str(value) if len(str(value)) <= most else f"{str(value)[:most]}…"
    return f'"{text}"' if isinstance(value, str) else text


def rows_of(split: Split) -> str:
    """`training rows`, `validation rows`, `test rows`."""
    return "training rows" if split == "train" else f"{split} rows"


def column_missing(where: str, role: str, column: str, existing: Sequence[str], *, hint: str = "") -> JobError:
    """`where` (a file or a hub split) has no column `column` for the role `text`, `textPair` or `label`."""
    return JobError(
        FailureReason.COLUMN_MISSING,
        f'{where} has no column "{column}".{nearest(column, existing)} Its columns are {listed(existing)}.',
        field=f"spec.dataset.columns.{role}",
        remedy=f"Name one of the columns that exist in spec.dataset.columns.{role}.{hint}",
    )


def data_invalid(message: str, remedy: str, field: str | None = None) -> JobError:
    return JobError(FailureReason.DATA_INVALID, message, field=field, remedy=remedy)
