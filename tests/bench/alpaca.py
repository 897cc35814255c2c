"""Instructions: SmolLM2-135M-Instruct learns to answer as Alpaca does, in 36 steps of 16 of its rows; a tenth of the 999 is held out.

Fails where the loss on these does not fall by 5 %. Adapters are trained (LoRA): two cores take minutes for that.
"""

from __future__ import annotations

import json
import tempfile
from hashlib import sha256
from pathlib import Path

from tests.bench.figures import emit
from tests.bench.jobs import DATA, best, run_example
from tests.bench.smollm2 import smollm2

LESS = 0.05
SETTINGS = {
    "dataset.splits": "{train: train.jsonl, validation: validation.jsonl}",
    "dataset.validationFraction": "null",
    "method": "{type: lora}",
    "training.epochs": 1,
    "training.maxSteps": 36,
    "training.batchSize": 16,
    "training.learningRate": "5e-4",
    "training.warmupRatio": 0.1,
    "training.maxLength": 256,
    "textGeneration": "{samples: 4, maxNewTokens: 64}",
    "resources": "{}",
}


def main() -> None:
    rows = json.loads((DATA / "alpaca/alpaca_en_demo.json").read_text("utf-8"))
    rows = [row for row in rows if row["output"].strip()]
    held = [sha256(row["instruction"].encode()).digest()[0] < 26 for row in rows]
    with tempfile.TemporaryDirectory() as scratch:
        data = Path(scratch) / "data"
        data.mkdir()
        for name, wanted in (("train", False), ("validation", True)):
            part = [json.dumps(row) for row, is_held in zip(rows, held, strict=True) if is_held == wanted]
            (data / f"{name}.jsonl").write_text("\n".join([*part, ""]), encoding="utf-8")
        files = run_example("alpaca", data, Path(scratch) / "output", {"model.uri": str(smollm2()), **SETTINGS})
    loss = best(files, "loss")
    before, after = loss["baseline"], loss["value"]
    emit("alpaca loss of a token on rows held out", after, "nats", peer="untuned", ratio=after / before)
    emit("alpaca loss of a token, untuned", before, "nats")
    emit("alpaca training", files["run"]["durations"]["train"], "s")
    if after > (1 - LESS) * before:
        raise SystemExit(f"the loss fell from {before:.4f} to {after:.4f} only")


if __name__ == "__main__":
    main()
