"""What the libraries are told before they are imported."""

from __future__ import annotations

import os

from finetune_trainer.imports import spare_pandas
from finetune_trainer.threads import available_threads


def prepare_libraries(processes: int = 1) -> int:
    """Tell the libraries how many threads to start, where so many processes share the machine, and return it. Before they are imported:
    OpenMP reads the environment once."""
    threads = available_threads(processes=processes)
    os.environ["OMP_NUM_THREADS"] = os.environ["RAYON_NUM_THREADS"] = str(threads)
    os.environ["TOKENIZERS_PARALLELISM"] = "true"
    # Their progress bars and hints are written for a terminal and a developer, not for the log of a job.
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    spare_pandas()
    return threads
