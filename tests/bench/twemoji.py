"""`examples/clip.yaml` with a small CLIP that knows nothing yet, on 1,554 pictures of emoji and their names.

Recall at 1 among the 174 that are held out, both ways. Fails below ten times chance.
"""

from __future__ import annotations

import csv
import tempfile
from pathlib import Path

from tests.bench import towers
from tests.bench.figures import emit
from tests.bench.jobs import DATA, run_example

TWEMOJI = DATA / "twemoji"
TIMES = 10
SETTINGS = {
    "dataset.splits": "{train: train.csv, validation: validation.csv}",
    "dataset.columns": "{text: caption}",
    "images.augment": "null",
    "training.epochs": 30,
    "training.batchSize": 64,
    "training.learningRate": 1e-3,
    "training.precision": "fp32",  # nothing here is large enough to gain by less
}


def main() -> None:
    with (TWEMOJI / "train.csv").open(encoding="utf-8", newline="") as file:
        texts = [row["caption"] for row in csv.DictReader(file)]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = towers.save(folder / "model", texts, side=64, patch=16)
        files = run_example("clip", TWEMOJI, folder / "results", {"model.uri": model, **SETTINGS})
    first = files["result"]["metrics"][0]
    assert (first["name"], first["split"]) == ("recall_at_1", "validation")
    chance = 1 / sum(source["rows"] for source in files["run"]["sources"] if source["split"] == "validation")
    emit("twemoji recall at 1", first["value"], "share", peer=f"chance {chance:.4f}", ratio=first["value"] / chance)
    emit("twemoji training", files["run"]["durations"]["train"], "s")
    assert first["value"] >= TIMES * chance, f"{first['value']:.3f} is below {TIMES} × {chance:.4f}"


if __name__ == "__main__":
    main()
