"""A small valid FineTuneJob, and changed copies of it."""

from __future__ import annotations

import copy
from typing import Any

from finetune_api.manifest import path_keys

REMOVED: Any = object()
"""As a value: the field is not there."""

MINIMAL = {
    "apiVersion": "finetune.dev/v1alpha1",
    "kind": "FineTuneJob",
    "metadata": {"name": "paraphrase"},
    "spec": {
        "task": "text-classification",
        "model": {"uri": "hf://google-bert/bert-base-uncased"},
        "dataset": {"uri": "hf://nyu-mll/glue"},
        "output": {"uri": "s3://models/paraphrase"},
    },
}


def job(changes: dict[str, Any] | None = None) -> dict[str, Any]:
    """The minimal job with values put at paths: `job({"spec.training.epochs": 5})`."""
    document = copy.deepcopy(MINIMAL)
    for path, value in (changes or {}).items():
        target: Any = document
        *parents, last = path_keys(path)
        for key in parents:
            target = target[key] if isinstance(target, list) else target.setdefault(key, {})
        if value is REMOVED:
            del target[last]
        else:
            target[last] = value
    return document
