"""Images a second in training, beside transformers' Trainer with a DataLoader whose workers decode beside the steps.

CIFAR-10 as JPEG, resized to 64 × 64 pixels and mirrored at random, a ResNet-18, batches of 32, fp32, in turn; the peer with the number of
workers that is the fastest of two. Fails where ours is slower.
"""

from __future__ import annotations

import io
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
from PIL import Image
from torch.utils.data import Dataset
from transformers import AutoImageProcessor, AutoModelForImageClassification

from finetune_trainer.threads import available_threads
from tests.bench.evaluation import save_resnet
from tests.bench.figures import emit
from tests.bench.jobs import DATA, run_example
from tests.bench.plain_transformers import rate
from tests.bench.throughput import printed

STEPS, BATCH = 40, 32
ROUNDS = 3
WORKERS = ("1", "2")
CIFAR10 = DATA / "cifar10"
SETTINGS = {
    "dataset.columns": "null",
    "dataset.splits": "{train: train.parquet}",
    "dataset.validationFraction": 0.02,
    "images": "{augment: [flip]}",
    "training.batchSize": BATCH,
    "training.maxSteps": STEPS,
    "training.precision": "fp32",
}


def main() -> None:
    with tempfile.TemporaryDirectory() as scratch:
        model = save_resnet(Path(scratch) / "model")
        ours: list[float] = []
        theirs: dict[str, list[float]] = {workers: [] for workers in WORKERS}
        for number in range(ROUNDS):
            output = Path(scratch) / str(number)
            files = run_example("cifar10", CIFAR10, output, {"model.uri": str(model), **SETTINGS})
            ours.append(BATCH * STEPS / float(files["run"]["durations"]["train"]))
            for workers, rates in theirs.items():
                rates.append(float(printed("tests.bench.pictures", str(model), workers)[-1]))
    workers, peer = max(theirs.items(), key=lambda one: statistics.median(one[1]))
    ratio = statistics.median(a / b for a, b in zip(ours, peer, strict=True))
    says = f"Trainer, {workers} workers, {statistics.median(peer):.0f}/s"
    emit("image-classification training, fp32", statistics.median(ours), "images/s", peer=says, ratio=ratio)
    if ratio < 1:
        raise SystemExit(f"{ratio:.2f} times as fast as transformers' Trainer")


class Pictures(Dataset[dict[str, Any]]):
    """As guides write it: an image is decoded, processed and altered when it is asked for."""

    def __init__(self, model: str) -> None:
        table = pq.read_table(CIFAR10 / "train.parquet")
        self._files = [image["bytes"] for image in table["image"].to_pylist()]
        names = table["label"].to_pylist()
        self._labels = [sorted(set(names)).index(name) for name in names]
        self._processor = AutoImageProcessor.from_pretrained(model)

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> dict[str, Any]:
        image = Image.open(io.BytesIO(self._files[index])).convert("RGB")
        pixels = self._processor(image, return_tensors="pt")["pixel_values"][0]
        return {"pixel_values": pixels.flip(-1) if np.random.rand() < 0.5 else pixels, "labels": self._labels[index]}


def peer(model: str, workers: int) -> None:
    torch.set_num_threads(available_threads())
    loaded = AutoModelForImageClassification.from_pretrained(model, dtype=torch.float32)
    arguments = {"per_device_train_batch_size": BATCH, "dataloader_num_workers": workers, "weight_decay": 0.01}
    print(rate(loaded, Pictures(model), None, STEPS, remove_unused_columns=False, **arguments))


if __name__ == "__main__":
    peer(sys.argv[1], int(sys.argv[2])) if len(sys.argv) > 1 else main()
