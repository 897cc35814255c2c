"""`examples/mrpc.yaml` with MiniLM, three epochs, batches of 8: F1 on the dev set as the median of three seeds."""

from __future__ import annotations

import statistics
import tempfile
from pathlib import Path

from tests.bench.figures import emit
from tests.bench.jobs import run_mrpc

SEEDS = (42, 43, 44)


def main() -> None:
    scores, seconds = [], []
    for seed in SEEDS:
        with tempfile.TemporaryDirectory() as folder:
            files = run_mrpc(Path(folder), {"training.seed": seed})
        first = files["result"]["metrics"][0]
        assert (first["name"], first["split"]) == ("f1", "validation")
        emit(f"mrpc dev F1, seed {seed}", first["value"], "F1")
        scores.append(first["value"])
        seconds.append(files["run"]["durations"]["train"])
    emit("mrpc dev F1, median of 3 seeds", statistics.median(scores), "F1")
    emit("mrpc training, median of 3 seeds", statistics.median(seconds), "s")


if __name__ == "__main__":
    main()
