"""The files of a folder, and which of them a split names: as the trainer reads them, and as the command line asks whether they are there."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from glob import has_magic
from pathlib import Path

from finetune_api.patterns import matcher


def below(folder: Path) -> list[str]:
    """All files, relative to `folder` and sorted, also those in folders that links lead to, but for a link to where it lies in itself. Hidden
    ones are nobody's data. Raises PermissionError where this user may not look."""

    def walk(path: str, prefix: str, around: frozenset[str]) -> Iterator[str]:
        real = os.path.realpath(path)
        if real in around:
            return
        with os.scandir(path) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if entry.is_dir():
                    yield from walk(entry.path, f"{prefix}{entry.name}/", around | {real})
                elif entry.is_file():
                    yield prefix + entry.name

    return sorted(walk(str(folder), "", frozenset()))


def not_hidden(names: Iterable[str]) -> list[str]:
    """Those of which no part begins with a dot, sorted."""
    return sorted(name for name in names if not any(part.startswith(".") for part in name.split("/")))


def of_split(pattern: str, existing: Sequence[str]) -> list[str]:
    """Those of the `existing` that a split names: the file of that path; what matches a pattern (`*`, `?`, `[…]`, `**` for any folders); else
    what begins so: `train` is `train.csv`, `train-00000.parquet` and everything in `train/`. Raises ValueError for what is no pattern."""
    if pattern in existing:
        return [pattern]
    if has_magic(pattern):
        return list(filter(matcher(pattern), existing))
    return [name for name in existing if name.startswith(pattern)]
