"""`make bench`: every measurement, or those named: `python -m tests.bench startup throughput`."""

from __future__ import annotations

import importlib
import sys

MEASUREMENTS = (
    "startup",
    "throughput",
    "ragged",
    "pictures",
    "evaluation",
    "mrpc",
    "banking77",
    "stsb",
    "goemotions",
    "wnut17",
    "similarity",
    "e2e_nlg",
    "clip",
    "twemoji",
    "fsdd",
    "store",
    "data",
    "operator_200",
)

if __name__ == "__main__":
    for name in sys.argv[1:] or MEASUREMENTS:
        importlib.import_module(f"tests.bench.{name}").main()
