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


def spare_peft() -> None:
    """Let transformers take peft, and accelerate, which peft needs, for absent. It would import them for things that nobody asks of it here;
    whoever imports them still finds them."""
    if "transformers.modeling_utils" in sys.modules:
        return
    with taken_for_absent("accelerate", "peft"):
        from transformers.utils import is_accelerate_available, is_peft_available

        for asked in (is_accelerate_available, is_peft_available):
            asked()  # it remembers its answer


@contextmanager
def taken_for_absent(*names: str) -> Iterator[None]:
    """Within, those of these packages that are not imported yet are not there for whoever looks for them, or imports them."""
    hidden = [name for name in names if name not in sys.modules]
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]
    try:
        yield
    finally:
        for name in hidden:
            del sys.modules[name]


class _Absent(MetaPathFinder):
    def find_spec(self, name: str, path: object, target: object = None) -> None:
        if name == "pandas":
            raise ModuleNotFoundError(name)
