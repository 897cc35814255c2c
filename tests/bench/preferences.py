"""Preferences: SmolLM2-135M-Instruct learns which of two answers is preferred (DPO), from pairs of LLaMA-Factory's; 100 are held out.

Of the 300 pairs those are taken whose prompt leaves room for answers within what is read. Fails where of those held out fewer than 60 % get
the right order. Adapters are trained (LoRA); a busy core takes half an hour.
"""

from __future__ import annotations

import json
import tempfile
from hashlib import sha256
from pathlib import Path

from tests.bench.figures import emit
from tests.bench.jobs import DATA, best, run_example
from tests.bench.smollm2 import smollm2

LEAST = 0.60
HELD = 100
LONGEST = 1500
"""Characters of a prompt, with all that was said before it: about 340 tokens, but for scripts of which a token is a letter or less."""
SETTINGS = {
    "dataset.splits": "{train: train.jsonl, validation: validation.jsonl}",
    "method": "{type: lora}",
    "training.epochs": 1,
    "training.batchSize": 4,
    "training.learningRate": "5e-4",
    "training.warmupRatio": 0.1,
    "training.maxLength": 512,
    "textGeneration": "{objective: dpo, samples: 2, maxNewTokens: 32}",
    "resources": "{}",
}


def main() -> None:
    rows = json.loads((DATA / "preference/dpo_en_demo.json").read_text("utf-8"))
    rows = [row for row in rows if sum(len(turn["value"]) for turn in row["conversations"]) <= LONGEST]
    rows.sort(key=lambda row: sha256(json.dumps(row["conversations"]).encode()).digest())
    with tempfile.TemporaryDirectory() as scratch:
        data = Path(scratch) / "data"
        data.mkdir()
        for name, part in (("validation", rows[:HELD]), ("train", rows[HELD:])):
            (data / f"{name}.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in part), encoding="utf-8")
        files = run_example("preferences", data, Path(scratch) / "output", {"model.uri": str(smollm2()), **SETTINGS})
    accuracy, margin = (best(files, f"reward_{name}") for name in ("accuracy", "margin"))
    emit(
        "reward accuracy of 100 pairs held out",
        accuracy["value"],
        "",
        peer="untuned",
        ratio=accuracy["value"] / accuracy["baseline"],
    )
    emit("reward margin of 100 pairs held out", margin["value"], "nats")
    durations = files["run"]["durations"]
    emit(f"asking the untrained model of {len(rows)} pairs", durations["references"], "s")
    emit(f"training by {len(rows) - HELD} pairs", durations["train"], "s")
    if accuracy["value"] < LEAST:
        raise SystemExit(f"the reward accuracy is {accuracy['value']:.3f} only, and may be no less than {LEAST}")


if __name__ == "__main__":
    main()
