"""`examples/mrpc-lora.yaml` with MiniLM, three epochs with warm-up: F1 on the dev set for two seeds, beside peft and transformers' Trainer on
the same rows with the same settings. Fails where either is hardly better than calling all pairs by the more frequent label, or both are
below the peer's.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.bench.figures import emit
from tests.bench.jobs import COLUMNS, MRPC, ROOT, best, run_example

SEEDS = (42, 43)
RATE, EPOCHS, WARMUP = 5e-4, 3, 0.1
MAJORITY = 0.812
"""F1 of one label for all pairs."""
CLEARLY = 0.03


def main() -> None:
    found = {"ours": [ours(seed) for seed in SEEDS], "peft and Trainer": [peer(seed) for seed in SEEDS]}
    for name, scores in found.items():
        for seed, score in zip(SEEDS, scores, strict=True):
            emit(f"mrpc dev F1 with adapters, {name}, seed {seed}", score, "F1")
    mine, theirs = found.values()
    mean, their_mean = statistics.fmean(mine), statistics.fmean(theirs)
    emit("mrpc dev F1 with adapters, mean", mean, "F1", peer="peft and Trainer", ratio=mean / their_mean)
    if min(mine) < MAJORITY + CLEARLY or max(mine) < min(theirs):
        raise SystemExit(f"F1 of {mine}, and of {theirs} by peft and Trainer")


def ours(seed: int) -> float:
    columns = {"text": COLUMNS["text"], "textPair": COLUMNS["text_pair"], "label": COLUMNS["label"]}
    settings = {
        "dataset.columns": json.dumps(columns),
        "dataset.splits": "{train: train.tsv, validation: dev.tsv}",
        "training.seed": seed,
        "training.learningRate": RATE,
        "training.epochs": EPOCHS,
        "training.warmupRatio": WARMUP,
        "resources": "{}",
    }
    with tempfile.TemporaryDirectory() as folder:
        score = best(run_example("mrpc-lora", MRPC, Path(folder), settings), "f1")["value"]
    assert isinstance(score, float)
    return score


def peer(seed: int) -> float:
    command = [sys.executable, "-m", "tests.bench.plain_lora", *map(str, (seed, RATE, EPOCHS, WARMUP))]
    said = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout
    return float(said.split()[-1])


if __name__ == "__main__":
    main()
