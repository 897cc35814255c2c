"""`examples/cifar10.yaml` with EfficientNet-lite0, pretrained on ImageNet, on 5,000 images: accuracy on a thousand others."""

from __future__ import annotations

import tempfile
from pathlib import Path

from tests.bench import lite0
from tests.bench.figures import emit
from tests.bench.jobs import DATA, run_example

BAR = 0.85
SETTINGS = {
    "dataset.splits": "{train: train.parquet, test: test.parquet}",
    "dataset.columns": "null",
    # Of 32 × 32 pixels, which a convolution of stride two would have halved before it has seen anything. Cutting off more costs time.
    "images": "{size: 160, augment: [flip]}",
    "training.epochs": 4,
    "training.batchSize": 32,
    "training.precision": "fp32",  # a depthwise convolution in bf16 is the slower one on a CPU
}


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        lite0.save(folder / "model")
        settings = {"model.uri": str(folder / "model"), **SETTINGS}
        files = run_example("cifar10", DATA / "cifar10", folder / "results", settings)
    measured = {(metric["name"], metric["split"]): metric["value"] for metric in files["result"]["metrics"]}
    accuracy = measured["accuracy", "test"]
    emit("cifar10 test accuracy", accuracy, "share")
    emit("cifar10 training", files["run"]["durations"]["train"], "s")
    assert accuracy >= BAR


if __name__ == "__main__":
    main()
