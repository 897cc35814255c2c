"""The operator as a process in which what takes minutes takes seconds."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping

_START = """
import importlib, json, sys
for path, value in json.loads(sys.argv.pop(1)).items():
    module, _, name = path.rpartition(".")
    assert hasattr(importlib.import_module(module), name), path
    setattr(importlib.import_module(module), name, value)
from finetune_operator.main import main
main()
"""


def finetune_operator(times: Mapping[str, float]) -> list[str]:
    """The command, with the module's constants at these dotted paths replaced."""
    return [sys.executable, "-c", _START, json.dumps(dict(times))]
