"""What only reading a whole file tells is found out once."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, wraps
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


def remembered(question: Callable[Concatenate[Path, P], R]) -> Callable[Concatenate[Path, P], R]:
    """`question` of a file, whose answer is kept while the file stays the same: by its place, size and time of the last change."""

    @lru_cache(maxsize=1024)
    def asked(path: Path, _version: tuple[int, ...], *args: P.args, **kwargs: P.kwargs) -> R:
        return question(path, *args, **kwargs)

    @wraps(question)
    def answer(path: Path, /, *args: P.args, **kwargs: P.kwargs) -> R:
        stat = path.stat()
        return asked(path, (stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns), *args, **kwargs)  # type: ignore[arg-type]  # words

    return answer
