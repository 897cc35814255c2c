"""`examples/mrpc.yaml` with MiniLM, three epochs, batches of 8: F1 on the dev set as the median of three seeds, and how long training
stands still to save. Fails where that is a second a save, or a hundredth of the run.
"""

from __future__ import annotations

import statistics
import tempfile
from pathlib import Path

from tests.bench.figures import emit
from tests.bench.jobs import run_mrpc

SEEDS = (42, 43, 44)
EPOCHS = 3
"""Of the example; each ends with a save."""


def main() -> None:
    scores, seconds, saving = [], [], []
    for seed in SEEDS:
        with tempfile.TemporaryDirectory() as folder:
            files = run_mrpc(Path(folder), {"training.seed": seed})
        first = files["result"]["metrics"][0]
        assert (first["name"], first["split"]) == ("f1", "validation")
        emit(f"mrpc dev F1, seed {seed}", first["value"], "F1")
        scores.append(first["value"])
        durations = files["run"]["durations"]
        seconds.append(durations["train"])
        saving.append(durations["save"])
    emit("mrpc dev F1, median of 3 seeds", statistics.median(scores), "F1")
    emit("mrpc training, median of 3 seeds", statistics.median(seconds), "s")
    stood, share = statistics.median(saving), statistics.median(a / b for a, b in zip(saving, seconds, strict=True))
    emit("mrpc training stands still to save, for each of 3 epochs", stood / EPOCHS, "s", peer="all steps", ratio=share)
    assert stood < EPOCHS and share < 0.01, f"it stood still for {stood:.2f} s, {100 * share:.2f} % of the run"


if __name__ == "__main__":
    main()
