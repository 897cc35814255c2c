"""Samples per second of tasks whose examples are of unequal length, each beside plain transformers with the collator that its guide shows.

All in fp32, in batches of 8 of the same real data, in turn. Fails where one is not 1.3 times as fast.
"""

from __future__ import annotations

import json
import statistics
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForMaskedLM, AutoTokenizer

from tests.bench.figures import emit
from tests.bench.jobs import DATA, minilm, run_example
from tests.bench.plain_tasks import LENGTH, STRIDE
from tests.bench.plain_transformers import BATCH
from tests.bench.throughput import printed

STEPS = 60
ROUNDS = 3
BAR = 1.3
SETTINGS: Mapping[str, Any] = {
    "training.maxSteps": STEPS,
    "training.batchSize": BATCH,
    "training.precision": "fp32",
    "training.learningRate": "5e-5",
    "training.weightDecay": 0.01,
    "dataset.validationFraction": 0.02,
}


@dataclass(frozen=True)
class Run:
    """A task through one of the examples."""

    example: str
    data: str
    """Its folder."""
    settings: Mapping[str, Any] = field(default_factory=dict)


STSB = {
    "dataset.splits": "{train: train.csv}",
    "dataset.csv": "{columnNames: [sentence1, sentence2, score]}",
    "dataset.format": "csv",
}
RUNS = {
    "token-classification": Run(
        "wnut17", "wnut17", {"dataset.splits": "{train: train.conll}", "dataset.columns": "null"}
    ),
    "question-answering": Run(
        "squad",
        "xquad",
        {
            "dataset.splits": "{train: xquad.en.json}",
            "dataset.columns": "null",
            "training.maxLength": LENGTH,
            "questionAnswering": f"{{stride: {STRIDE}}}",
        },
    ),
    "text-regression": Run("stsb", "stsb", STSB),
    "sentence-similarity": Run("similarity", "stsb", STSB),
    "fill-mask": Run(
        "news-mask", "wikitext2", {"dataset.splits": "{train: train.jsonl}", "dataset.columns": "{text: text}"}
    ),
}


def main() -> None:
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        masked = _masked_model(folder / "masked")
        slow = []
        for task, run in RUNS.items():
            model = masked if task == "fill-mask" else minilm()
            data = _lines(folder / "texts") if task == "fill-mask" else DATA / run.data
            ours, theirs = [], []
            for _ in range(ROUNDS):
                ours.append(_ours(run, model, data))
                theirs.append(float(printed("tests.bench.plain_tasks", task, str(model), str(STEPS))[-1]))
            ratio = statistics.median(a / b for a, b in zip(ours, theirs, strict=True))
            peer = f"plain transformers {statistics.median(theirs):.1f}/s"
            emit(f"{task} training, fp32", statistics.median(ours), "samples/s", peer=peer, ratio=ratio)
            slow += [f"{task}: {ratio:.2f}"] if ratio < BAR else []
    if slow:
        raise SystemExit(f"not {BAR} times as fast: {', '.join(slow)}")


def _ours(run: Run, model: Path, data: Path) -> float:
    with tempfile.TemporaryDirectory() as output:
        settings = {"model.uri": str(model), **SETTINGS, **run.settings}
        files = run_example(run.example, data, Path(output), settings)
    return BATCH * STEPS / float(files["run"]["durations"]["train"])


def _masked_model(folder: Path) -> Path:
    """MiniLM, whose own weights have no head for masks: with one that is drawn at random, as fast as any."""
    torch.manual_seed(0)
    AutoModelForMaskedLM.from_pretrained(minilm()).save_pretrained(folder)
    AutoTokenizer.from_pretrained(minilm()).save_pretrained(folder)
    return folder


def _lines(folder: Path) -> Path:
    """The lines of wikitext as rows."""
    folder.mkdir()
    lines = (DATA / "wikitext2/valid.txt").read_text("utf-8").splitlines()
    rows = [json.dumps({"text": line.strip()}) for line in lines if line.strip()]
    (folder / "train.jsonl").write_text("\n".join([*rows, ""]))
    return folder


if __name__ == "__main__":
    main()
