"""Memory and time to read and check a million rows of CSV, beside Python's own reader into lists, in turn, in one run.

Each is a process of its own; its memory is what it takes at most (VmHWM) above that of importing the libraries. Fails when ours
takes more than it may.
"""

from __future__ import annotations

import random
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from tests.bench.figures import emit
from tests.bench.jobs import ROOT

ROWS = 1_000_000
ROUNDS = 3
MOST = 600
"""MiB above that of the libraries."""
WORDS = [
    "the",
    "quick",
    "brown",
    "fox",
    "jumps",
    "over",
    "a",
    "lazy",
    "dog",
    "while",
    "seven",
    "wizards",
    "salt",
    "soup",
    "under",
    "bright",
    "stars",
    "near",
    "harbour",
    "walls",
]


def main() -> None:
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "train.csv"
        write(file)
        taken: dict[str, list[tuple[float, float]]] = {"ours": [], "lists": []}
        for _ in range(ROUNDS):
            for name, figures in taken.items():
                figures.append(measured(name, file))
    (ours, seconds), (theirs, listed) = (map(statistics.median, zip(*taken[name], strict=True)) for name in taken)
    emit("memory of 1,000,000 rows of CSV", ours, "MiB", peer="lists of Python's csv", ratio=ours / theirs)
    emit(
        "reading and checking 1,000,000 rows of CSV", seconds, "s", peer="lists of Python's csv", ratio=seconds / listed
    )
    if ours > MOST:
        raise SystemExit(f"1,000,000 rows take {ours:.0f} MiB above the libraries, and may take {MOST}.")


def write(file: Path) -> None:
    """About 66 bytes a row, as many columns as there must be, four labels."""
    draw = random.Random(1)
    with file.open("w") as lines:
        lines.write("text,label\n")
        lines.writelines(f"{' '.join(draw.choices(WORDS, k=10))} {row},{draw.choice('abcd')}\n" for row in range(ROWS))


def measured(name: str, file: Path) -> tuple[float, float]:
    """MiB and seconds."""
    command = [sys.executable, "-m", "tests.bench.data", name, str(file)]
    output = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    memory, seconds = output.split()[-2:]
    return float(memory), float(seconds)


def ours(file: Path) -> Callable[[], object]:
    from finetune_api.dataset import Dataset
    from finetune_api.job import Storage
    from finetune_api.tasks import TASKS
    from finetune_trainer.data import load

    dataset, workspace = Dataset(uri=file.as_uri()), file.parent / "workspace"
    forms = TASKS["text-classification"].forms[:1]
    return lambda: load(dataset, forms, storage=Storage(), workspace=workspace, seed=1, stop=lambda: None)


def lists(file: Path) -> Callable[[], object]:
    import csv

    def read() -> object:
        with file.open(newline="") as lines:
            texts, labels = zip(*list(csv.reader(lines))[1:], strict=True)
        return list(texts), list(labels)

    return read


def peak() -> float:
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) / 1024


if __name__ == "__main__":
    work = {"ours": ours, "lists": lists}[sys.argv[1]](Path(sys.argv[2]))
    before, begin = peak(), time.monotonic()
    kept = work()
    print(peak() - before, time.monotonic() - begin)
