"""Samples per second on MRPC beside two peers of plain transformers, in turn, in one run on one machine."""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.bench.figures import emit
from tests.bench.jobs import ROOT, run_mrpc

STEPS = 100
ROUNDS = 3
PEERS = {"padded to 512": ("max_length", 20), "dynamic padding": ("longest", STEPS)}


def main() -> None:
    ours: dict[str, list[float]] = {"auto": [], "fp32": []}
    theirs: dict[str, list[float]] = {name: [] for name in PEERS}
    for _ in range(ROUNDS):
        for precision, rates in ours.items():
            rates.append(_ours(precision))
        for name, (padding, steps) in PEERS.items():
            theirs[name].append(_theirs(padding, steps))
    for precision, rates in ours.items():
        rate = statistics.median(rates)
        for name in PEERS:
            # Round by round: the machine's speed drifts between rounds more than within one.
            ratio = statistics.median(a / b for a, b in zip(rates, theirs[name], strict=True))
            emit(f"mrpc training, precision {precision}", rate, "samples/s", peer=f"transformers, {name}", ratio=ratio)
    for name, rates in theirs.items():
        emit(f"mrpc training, transformers, {name}", statistics.median(rates), "samples/s")


def _ours(precision: str) -> float:
    with tempfile.TemporaryDirectory() as folder:
        settings = {"training.maxSteps": STEPS, "training.precision": precision}
        seconds = run_mrpc(Path(folder), settings)["run"]["durations"]["train"]
    return 8 * STEPS / float(seconds)


def _theirs(padding: str, steps: int) -> float:
    command = [sys.executable, "-m", "tests.bench.plain_transformers", padding, str(steps)]
    output = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    return float(output.split()[-1])


if __name__ == "__main__":
    main()
