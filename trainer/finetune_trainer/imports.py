"""Importing large libraries in less time: what they do on the way and nobody needs here."""

from __future__ import annotations

import gc
import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec


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


def spare_peft() -> None:
    """Let transformers take peft, and accelerate, which peft needs, for absent. It would import them for things that nobody asks of it here;
    whoever imports them still finds them."""
    if "transformers.modeling_utils" in sys.modules:
        return
    found = importlib.util.find_spec

    def others(name: str, package: str | None = None) -> ModuleSpec | None:
        return None if name in ("accelerate", "peft") else found(name, package)

    importlib.util.find_spec = others
    try:
        from transformers.utils import is_accelerate_available, is_peft_available

        for asked in (is_accelerate_available, is_peft_available):
            asked()  # it remembers its answer
    finally:
        importlib.util.find_spec = found


class _Absent(MetaPathFinder):
    def find_spec(self, name: str, path: object, target: object = None) -> None:
        if name == "pandas":
            raise ModuleNotFoundError(name)
