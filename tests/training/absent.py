"""Modules that a process must do without, as if they were not there."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

ORACLES = ("scipy", "sklearn", "sentence_transformers")
"""Packages that the tests have and the trainer's image has not."""

_HIDE = """\
import importlib.util
import sys

hidden = {hidden}
found = importlib.util.find_spec
importlib.util.find_spec = lambda name, package=None: None if name in hidden else found(name, package)
sys.modules.update(dict.fromkeys(hidden))
"""


def without(modules: Sequence[str], folder: Path) -> dict[str, str]:
    """The environment of a Python process that cannot import these; `folder` gets a file for that."""
    (folder / "sitecustomize.py").write_text(_HIDE.format(hidden=tuple(modules)))
    return {"PYTHONPATH": str(folder)}


def as_in_the_image(folder: Path) -> dict[str, str]:
    """The same of a process that has what the trainer's image has, and no Trainer of transformers, which it must not need."""
    return without([*ORACLES, "transformers.trainer"], folder)
