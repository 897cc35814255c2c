"""Modules that an attempt must do without, as if they were not there: those that the tests have and the trainer's image has not."""

from __future__ import annotations

from pathlib import Path

ABSENT = ("accelerate", "scipy", "sklearn", "transformers.trainer")

_HIDE = f"""\
import importlib.util
import sys

found = importlib.util.find_spec
importlib.util.find_spec = lambda name, package=None: None if name in {ABSENT} else found(name, package)
sys.modules.update(dict.fromkeys({ABSENT}))
"""


def without_what_only_tests_have(folder: Path) -> dict[str, str]:
    """The environment of a Python process that cannot import them; `folder` gets a file for that."""
    (folder / "sitecustomize.py").write_text(_HIDE)
    return {"PYTHONPATH": str(folder)}
