"""Importing large libraries in less time: what they do on the way and nobody needs here."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.abc import MetaPathFinder


@contextmanager
def nothing_collected() -> Iterator[None]:
    """Within, no garbage is looked for: classes and functions are made by the ten thousand and stay. Nor are those looked at later."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def spare_pandas() -> None:
    """Let pyarrow take pandas for absent. At the first list that it makes an array of it would import it, to ask whether the list is
    one of pandas'. Where something calls for pandas by its name, pyarrow still imports and uses it."""
    if "pandas" in sys.modules:
        return
    absent = _Absent()
    sys.meta_path.insert(0, absent)
    try:
        import pyarrow as pa

        pa.array([None])
    finally:
        sys.meta_path.remove(absent)


class _Absent(MetaPathFinder):
    def find_spec(self, name: str, path: object, target: object = None) -> None:
        if name == "pandas":
            raise ModuleNotFoundError(name)
