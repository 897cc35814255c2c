"""`examples/clip-labels.yaml` with a small CLIP that knows nothing yet, on 5,000 images of CIFAR-10 with captions made of their labels.

Zero-shot accuracy on the thousand that it is tested with, beside logistic regression on 16 × 16 pixels of the same images. Fails where
it is not 4 points above.
"""

from __future__ import annotations

import io
import json
import tempfile
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from tests.bench import towers
from tests.bench.figures import emit
from tests.bench.jobs import DATA, run_example

CIFAR = DATA / "cifar10"
ABOVE = 0.04
PROMPTS = ["a photo of a {}.", "a blurry photo of a {}.", "a photo of a small {}."]
SETTINGS = {
    "dataset.splits": "{train: train.parquet, test: test.parquet}",
    "dataset.columns": "null",
    "contrastive.prompts": json.dumps(PROMPTS),
    "images.augment": "[flip]",
    "training.epochs": 16,
    "training.batchSize": 64,
    "training.learningRate": 1e-3,
    "training.precision": "fp32",  # nothing here is large enough to gain by less
}


def main() -> None:
    peer = of_pixels()
    labels = pq.read_table(CIFAR / "train.parquet", columns=["label"])["label"].unique().to_pylist()
    texts = [prompt.replace("{}", label) for prompt in PROMPTS for label in labels]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = towers.save(folder / "model", texts, side=32, patch=8)
        files = run_example("clip-labels", CIFAR, folder / "results", {"model.uri": model, **SETTINGS})
    found = {(one["name"], one["split"]): one["value"] for one in files["result"]["metrics"]}
    accuracy = found["zero_shot_accuracy", "test"]
    name = f"logistic regression {peer:.4f}"
    emit("cifar10 zero-shot accuracy, small CLIP", accuracy, "share", peer=name, ratio=accuracy / peer)
    emit("cifar10 training, small CLIP", files["run"]["durations"]["train"], "s")
    assert accuracy >= peer + ABOVE, f"{accuracy:.3f} is not {ABOVE} above {peer:.3f}"


def of_pixels() -> float:
    """Test accuracy of logistic regression."""
    (seen, labels), (held_out, truth) = (_pixels(split) for split in ("train", "test"))
    # Of four penalties the best on the test split, in favour of the peer.
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.003, max_iter=100))
    return float((model.fit(seen, labels).predict(held_out) == truth).mean())


def _pixels(split: str) -> tuple[NDArray[np.float64], NDArray[np.str_]]:
    table = pq.read_table(CIFAR / f"{split}.parquet")
    images = (Image.open(io.BytesIO(one["bytes"])).convert("RGB") for one in table["image"].to_pylist())
    small = [np.asarray(image.resize((16, 16), Image.Resampling.BOX)).ravel() / 255 for image in images]
    return np.array(small), np.array(table["label"].to_pylist())


if __name__ == "__main__":
    main()
