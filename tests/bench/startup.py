"""Seconds from the start of a trainer process to the end of its imports and to its first optimiser step, beside plain transformers.

The peer imports torch and transformers' Trainer, and does one step of the same model on the same rows. Neither process has the
packages that only our tests need. The data are few rows, so that the baseline evaluation, which comes before our first step, takes
next to nothing.
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
from tests.training.absent import ORACLES, without

ROUNDS = 5
ROWS = [
    {"text": f"{thing} is {how}", "label": how}
    for how in ("good", "bad")
    for thing in ("tea", "rain", "a book", "sleep")
]
OUR_IMPORTS = """
from finetune_trainer.imports import nothing_collected, spare_peft
with nothing_collected():
    from finetune_trainer.libraries import prepare_libraries
    prepare_libraries()
    spare_peft()
    import finetune_trainer.engine.session
import os, time
print(time.time(), flush=True)
os._exit(0)
"""
THEIR_FIRST_STEP = """
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer, Trainer, TrainerCallback, TrainingArguments
import json, os, sys, time
print(time.time(), flush=True)

class Told(TrainerCallback):
    def on_step_end(self, *_, **__):
        print(time.time(), flush=True)
        os._exit(0)

model, folder = sys.argv[1:]
rows = [json.loads(line) for line in open(f"{folder}/train.jsonl")]
tokenizer = AutoTokenizer.from_pretrained(model)
model = AutoModelForSequenceClassification.from_pretrained(model, num_labels=2, dtype=torch.float32)
examples = [{**tokenizer(row["text"], padding="max_length", max_length=16), "labels": int(row["label"] == "good")} for row in rows]
arguments = TrainingArguments(
    f"{folder}/out", max_steps=1, per_device_train_batch_size=4, use_cpu=True, report_to="none", disable_tqdm=True
)
Trainer(model, arguments, train_dataset=examples, callbacks=[Told()]).train()
"""


def main() -> None:
    ours: dict[str, list[float]] = {"imports": [], "first step": []}
    theirs: dict[str, list[float]] = {"imports": [], "first step": []}
    for _ in range(ROUNDS):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            for split in ("train", "validation"):
                (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
            ours["first step"].append(_our_first_step(folder))
            imports, first_step = _told(THEIR_FIRST_STEP, [str(minilm()), name], without(["scipy", "sklearn"], folder))
            theirs["imports"].append(imports)
            theirs["first step"].append(first_step)
            ours["imports"] += _told(OUR_IMPORTS, [], without(ORACLES, folder))
    for what, seconds in ours.items():
        ratio = statistics.median(a / b for a, b in zip(seconds, theirs[what], strict=True))
        emit(f"start to {what}", statistics.median(seconds), "s", peer="transformers, the same", ratio=ratio)
        emit(f"start to {what}, transformers", statistics.median(theirs[what]), "s")


def _our_first_step(folder: Path) -> float:
    spec = FineTuneJobSpec.model_validate(
        {
            "task": "text-classification",
            "model": {"uri": minilm().as_uri()},
            "dataset": {"uri": folder.as_uri(), "splits": {"train": "train.jsonl", "validation": "validation.jsonl"}},
            "training": {"maxSteps": 1, "batchSize": 4, "precision": "fp32"},
            "output": {"uri": (folder / "out").as_uri()},
        }
    )
    run = Run(run=identify(spec), owner="bench", spec=spec)
    environment = os.environ | {
        RUN_ENV: run.to_env(),
        PROGRESS_ENV: (folder / "progress").as_uri(),
        RESULT_ENV: str(folder / "result"),
        WORKSPACE_ENV: str(folder / "workspace"),
        **without(ORACLES, folder),
    }
    begin = time.time()
    subprocess.run([sys.executable, "-m", "finetune_trainer"], env=environment, check=True, stdout=sys.stderr)
    reports = [Progress.model_validate_json(line) for line in (folder / "progress").read_text().splitlines()]
    first = next(report for report in reports if report.metric("step"))
    return first.trainer_status.last_updated_time.timestamp() - begin


def _told(program: str, arguments: list[str], environment: dict[str, str]) -> list[float]:
    """Seconds from the program's start to each of the times that it prints."""
    begin = time.time()
    command = [sys.executable, "-c", program, *arguments]
    ended = subprocess.run(command, env=os.environ | environment, check=True, stdout=subprocess.PIPE, text=True)
    return [float(line) - begin for line in ended.stdout.splitlines() if line.replace(".", "").isdigit()]


if __name__ == "__main__":
    main()
