"""The real client libraries in a process of its own: they take seconds to import, and read the hub's address only then."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

FETCH = """
import json, sys
from pathlib import Path
from finetune_api.dataset import Dataset
from finetune_api.failures import JobError
from finetune_api.job import Base, Storage
from finetune_api.tasks import TASKS
from finetune_trainer.data import fetch_model, load

def fetched(what, spec, workspace):
    common = dict(storage=Storage(), workspace=workspace, stop=lambda: None)
    if what == "model":
        model = fetch_model(Base.model_validate(spec), **common)
        files = sorted(path.name for path in model.path.iterdir())
        return dict(files=files, revision=model.revision, fingerprint=model.fingerprint)
    task = spec.pop("task", "text-classification")
    dataset = Dataset.model_validate(spec)
    data = load(dataset, TASKS[task].forms[:1], seed=1, **common)
    return dict(train=len(data.train), validation=len(data.validation), labels=data.names["label"], revision=data.revision,
                first=[next(data.train.values("text")), str(data.train.origins[0])], sources=[s.name for s in data.sources])

answers = {}
for number, (name, (what, spec)) in enumerate(json.load(sys.stdin).items()):
    try:
        answers[name] = fetched(what, spec, Path(sys.argv[1]) / str(number))
    except JobError as error:
        answers[name] = dict(reason=error.reason, message=error.message, field=error.field, remedy=error.remedy)
    except Exception as error:
        answers[name] = dict(reason="Internal", message=repr(error), field=None, remedy="")
print(json.dumps(answers))
"""

Answers = dict[str, dict[str, Any]]
"""By name: what was fetched, or the error with its `reason`."""


def fetched(asked: Mapping[str, tuple[str, Any]], address: str, workspace: Path) -> Answers:
    """What one fresh process makes of each of `asked`: `model` or `dataset`, and its spec."""
    home = {
        "HF_HOME": str(workspace / "home"),
        "HF_ENDPOINT": address,
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
    }
    kept = {name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ}
    done = subprocess.run(
        [sys.executable, "-c", FETCH, str(workspace / "work")],
        input=json.dumps(asked),
        env={**kept, **home},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    answers: Answers = json.loads(done.stdout.splitlines()[-1])
    return answers
