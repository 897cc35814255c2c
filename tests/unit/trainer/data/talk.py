"""Messages and files of them, as people send them."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from finetune_api.tasks import Form
from finetune_trainer.data import Data
from tests.unit.trainer.data.folders import load_forms, written

DEV = {"splits": {"validation": "dev.jsonl"}}
WEATHER = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def assistant(text: str, **more: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": text, **more}


def load_lines(folder: Path, forms: Iterable[Form], *lines: Any) -> Data:
    """The data of JSON lines, which are both to train on and to validate with."""
    content = "".join(f"{json.dumps(line, ensure_ascii=False)}\n" for line in lines)
    return load_forms(written(folder, {"train.jsonl": content, "dev.jsonl": content}), *forms, **DEV)
