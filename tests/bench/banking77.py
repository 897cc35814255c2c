"""`examples/quickstart.yaml` with MiniLM on the 77 intents of BANKING77: accuracy on a tenth of the training rows that was held out."""

from __future__ import annotations

import tempfile
from pathlib import Path

from tests.bench.figures import emit
from tests.bench.jobs import DATA, best, run_example

BAR = 0.85
SETTINGS = {
    "dataset.splits": "{train: train.csv}",
    "dataset.columns": "{text: text, label: category}",
    "dataset.validationFraction": 0.1,
    "training.evaluation.metric": "accuracy",
    "training.epochs": 3,
    "training.batchSize": 32,
    "training.learningRate": 2e-4,
}


def main() -> None:
    with tempfile.TemporaryDirectory() as output:
        files = run_example("quickstart", DATA / "banking77", Path(output), SETTINGS)
    accuracy = best(files, "accuracy")["value"]
    emit("banking77 held-out accuracy", accuracy, "share")
    assert accuracy >= BAR


if __name__ == "__main__":
    main()
