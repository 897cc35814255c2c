"""Seconds from the start of a trainer process to its first optimiser step, beside importing torch and transformers alone.

The data are few rows, so that the baseline evaluation, which comes before the first step, takes next to nothing.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from finetune_api.job import FineTuneJobSpec
from finetune_api.progress import Progress
from finetune_api.run import PROGRESS_ENV, RESULT_ENV, RUN_ENV, WORKSPACE_ENV, Run, identify
from tests.bench.figures import emit
from tests.bench.jobs import minilm

ROUNDS = 5
IMPORTS = "import torch; from transformers import AutoModelForSequenceClassification, AutoTokenizer, Trainer"
ROWS = [
    {"text": f"{thing} is {how}", "label": how}
    for how in ("good", "bad")
    for thing in ("tea", "rain", "a book", "sleep")
]


def main() -> None:
    ours, imports = [], []
    for _ in range(ROUNDS):
        ours.append(_first_step())
        imports.append(_imports())
    ratio = statistics.median(a / b for a, b in zip(ours, imports, strict=True))
    emit("start to first step", statistics.median(ours), "s", peer="importing torch and transformers", ratio=ratio)


def _first_step() -> float:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for split in ("train", "validation"):
            (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
        spec = FineTuneJobSpec.model_validate(
            {
                "task": "text-classification",
                "model": {"uri": minilm().as_uri()},
                "dataset": {
                    "uri": folder.as_uri(),
                    "splits": {"train": "train.jsonl", "validation": "validation.jsonl"},
                },
                "training": {"maxSteps": 1, "batchSize": 4},
                "output": {"uri": (folder / "out").as_uri()},
            }
        )
        run = Run(run=identify(spec), owner="bench", spec=spec)
        environment = os.environ | {
            RUN_ENV: run.to_env(),
            PROGRESS_ENV: (folder / "progress").as_uri(),
            RESULT_ENV: str(folder / "result"),
            WORKSPACE_ENV: str(folder / "workspace"),
        }
        begin = time.time()
        subprocess.run([sys.executable, "-m", "finetune_trainer"], env=environment, check=True, stdout=sys.stderr)
        reports = [Progress.model_validate_json(line) for line in (folder / "progress").read_text().splitlines()]
        first = next(report for report in reports if report.metric("step"))
        return first.trainer_status.last_updated_time.timestamp() - begin


def _imports() -> float:
    begin = time.time()
    subprocess.run([sys.executable, "-c", IMPORTS], check=True)
    return time.time() - begin


if __name__ == "__main__":
    main()
