"""`make bench`: every measurement, or those named: `python -m tests.bench startup throughput`."""

from __future__ import annotations

import subprocess
import sys

from tests.bench.jobs import ROOT

MEASUREMENTS = (
    "startup",
    "throughput",
    "precision",
    "ragged",
    "pictures",
    "evaluation",
    "mrpc",
    "mrpc_lora",
    "banking77",
    "stsb",
    "goemotions",
    "wnut17",
    "xquad",
    "similarity",
    "e2e_nlg",
    "alpaca",
    "preferences",
    "toolcall",
    "cifar10",
    "clip",
    "twemoji",
    "fsdd",
    "suspects",
    "store",
    "data",
    "operator_200",
    "api_server",
    "operator_1000",
    "operator_5000",
    "operator_reports",
)
MORE_PACKAGES = frozenset({"alpaca", "cifar10", "preferences", "suspects", "toolcall"})
"""Those that need the dependency group `bench`. Not all run with it: beside torchvision, transformers as a peer takes other ways."""

if __name__ == "__main__":
    for name in sys.argv[1:] or MEASUREMENTS:
        python = str(ROOT / ".venv-bench/bin/python") if name in MORE_PACKAGES else sys.executable
        measured = subprocess.run([python, "-m", f"tests.bench.{name}"], cwd=ROOT, check=False)
        if measured.returncode:
            raise SystemExit(measured.returncode)
