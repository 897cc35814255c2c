"""How problems in data are said: a count, a few places, the nearest name."""

from __future__ import annotations

import difflib
import json
import reprlib
from collections.abc import Iterable, Sequence

from finetune_api.failures import FailureReason, JobError
from finetune_trainer.data.alike import look
from finetune_trainer.data.examples import HUB_SPLIT, Origin, Origins, Split

SHOWN = 3
"""Places named in one message; the rest is counted."""
LONGEST_NAME = 80
"""Characters shown of one name."""


def at(places: Sequence[Origin | str] | Origins, column: str | None = None, *, count: int | None = None) -> str:
    """`train.tsv, line 17, column "text"; train.tsv, line 40, column "text" and 12 more`; of `count` places the first are enough."""
    where = f', column "{column}"' if column else ""
    named = "; ".join(f"{places[place]}{where}" for place in range(min(SHOWN, len(places))))
    count = len(places) if count is None else count
    return named if count <= SHOWN else f"{named} and {count - SHOWN:,} more"


def listed(names: Iterable[str], most: int = 20) -> str:
    """`"a", "b", "c"`, cut after `most`, and each of them if it is long."""
    names = list(names)
    text = ", ".join(shortened(name, LONGEST_NAME) for name in names[:most])
    return text if len(names) <= most else f"{text} and {len(names) - most:,} more"


def nearest(name: str, names: Iterable[str]) -> str:
    """` Did you mean "label"?`, or nothing when no name is near."""
    names = list(names)
    for other in names:
        if look(other) == look(name) and other != name:
            return f" Did you mean {spelt(other)}? It looks the same, but for blanks or how its characters are written."
    folded = {other.casefold(): other for other in names if len(other) <= 2 * len(name) + LONGEST_NAME}
    found = difflib.get_close_matches(name.casefold(), folded, n=1, cutoff=0.6)
    return f" Did you mean {shortened(folded[found[0]], LONGEST_NAME)}?" if found else ""


def shortened(value: object, most: int = 60) -> str:
    """The value as a reader sees it, cut; what would not show, or would act on a terminal, as its escape."""
    if not isinstance(value, str):
        return _other.repr(value)
    text = "".join(one if one.isprintable() else ascii(one)[1:-1] for one in value[:most])
    return f'"{text}"' if len(value) <= most else f'"{text}…"'


def spelt(text: str) -> str:
    """The text, and where that does not show how it is written, so that look-alikes can be told apart."""
    return shortened(text) if text.isascii() or not text.isprintable() else f"{shortened(text)} ({text[:60]!a})"


# `reprlib` looks neither at the end of long values nor at the bottom of deep ones.
_other = reprlib.Repr()
_other.maxlong = _other.maxother = _other.maxstring = 60


def empty_to_the_hub(origins: Origins) -> str:
    """What the reader of a hub dataset must know of values that are empty."""
    if origins.files[:1] and origins.files[0].startswith(HUB_SPLIT):
        return " In CSV files the hub's library takes words such as NA, None, null and nan for empty."
    return ""


def said_of_json(error: ValueError | RecursionError) -> str:
    """Why Python's reader of JSON does not take a text; the line where the text has several."""
    if isinstance(error, json.JSONDecodeError):
        line = f"line {error.lineno}, " if "\n" in error.doc.rstrip() else ""
        return f"{error.msg} at {line}character {error.colno}"
    if isinstance(error, RecursionError):
        return "lists or objects that are nested too deep"
    return "a number of too many digits" if "digits" in str(error) else str(error)


def rows_of(split: Split) -> str:
    """`training rows`, `validation rows`, `test rows`."""
    return "training rows" if split == "train" else f"{split} rows"


def column_missing(where: str, role: str, column: str, existing: Sequence[str], *, hint: str = "") -> JobError:
    """`where` (a file or a hub split) has no column `column` for the role `text`, `textPair` or `label`."""
    return JobError(
        FailureReason.COLUMN_MISSING,
        f'{where} has no column "{column}".{nearest(column, existing)} Its columns are {listed(existing) or "none"}.',
        field=f"spec.dataset.columns.{role}",
        remedy=f"Name one of the columns that exist in spec.dataset.columns.{role}.{hint}",
    )


def columns_repeat(where: str, role: str, column: str, count: int) -> JobError:
    """`where` has `count` columns of this name, which is to be the one for `role`."""
    return data_invalid(
        f'{where} has {count} columns called "{column}"',
        "Give each column a name of its own.",
        f"spec.dataset.columns.{role}",
    )


def data_invalid(message: str, remedy: str, field: str | None = None) -> JobError:
    return JobError(FailureReason.DATA_INVALID, message, field=field, remedy=remedy)
