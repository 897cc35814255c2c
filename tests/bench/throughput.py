"""Samples per second on MRPC beside two peers of plain transformers, and beside what the machine's matrix products alone would allow.

All in turn, in one run on one machine. The peers run with the C library's allocator as it is, which gives memory back between
steps; the product has it kept (`engine/allocator.py`).
"""

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
ALLOCATOR = "the C library's allocator as it is"


def main() -> None:
    ours: dict[str, list[float]] = {"auto": [], "fp32": []}
    limits: dict[str, list[float]] = {name: [] for name in ours}
    theirs: dict[str, list[float]] = {name: [] for name in PEERS}
    for _ in range(ROUNDS):
        for precision, rates in ours.items():
            rate, computed_in = _ours(precision)
            rates.append(rate)
            limits[precision].append(_limit(computed_in))
        for name, (padding, steps) in PEERS.items():
            theirs[name].append(_theirs(padding, steps))
    for precision, rates in ours.items():
        rate = statistics.median(rates)
        for name in PEERS:
            # Round by round: the machine's speed drifts between rounds more than within one.
            ratio = statistics.median(a / b for a, b in zip(rates, theirs[name], strict=True))
            peer = f"transformers, {name}, {ALLOCATOR}"
            emit(f"mrpc training, precision {precision}", rate, "samples/s", peer=peer, ratio=ratio)
        share = statistics.median(a / b for a, b in zip(rates, limits[precision], strict=True))
        peer = "its matrix products alone"
        emit(f"mrpc training, precision {precision}", rate, "samples/s", peer=peer, ratio=share)
    for name, rates in theirs.items():
        emit(f"mrpc training, transformers, {name}", statistics.median(rates), "samples/s")


def _ours(precision: str) -> tuple[float, str]:
    """Samples a second, and the precision that `auto` was."""
    with tempfile.TemporaryDirectory() as folder:
        settings = {"training.maxSteps": STEPS, "training.precision": precision}
        run = run_mrpc(Path(folder), settings)["run"]
    return 8 * STEPS / float(run["durations"]["train"]), str(run["precision"])


def _limit(precision: str) -> float:
    """Samples a second if nothing but the products of matrices took time."""
    speed, operations = map(float, printed("tests.bench.matrices", precision))
    return speed / operations


def _theirs(padding: str, steps: int) -> float:
    return float(printed("tests.bench.plain_transformers", padding, str(steps))[-1])


def printed(module: str, *arguments: str) -> list[str]:
    command = [sys.executable, "-m", module, *arguments]
    return subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.split()


if __name__ == "__main__":
    main()
