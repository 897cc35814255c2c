"""What the model said before training, as every checkpoint keeps it: a resumed run compares with the same."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa

from finetune_trainer.engine.measure import LOSS, WEIGHT, Split

EARLIER = "baseline.npz"
"""Of versions before 0.3, which knew one task: the probabilities of the labels by split, shape (rows, labels)."""


def write_before(folder: Path, split: str, answers: pa.Table) -> None:
    """Put the answers to one split into `folder`."""
    with pa.ipc.new_file(folder / _file(split), answers.schema) as writer:
        writer.write_table(answers)


def read_before(folder: Path, split: Split) -> pa.Table:
    """The answers to one split that `write_before`, or an earlier version, put into `folder`."""
    if (folder / _file(split.name)).exists():
        with pa.memory_map(str(folder / _file(split.name))) as file:
            return pa.ipc.open_file(file).read_all()
    probability = np.load(folder / EARLIER)[split.name]
    true = probability[np.arange(len(split.examples)), split.examples.numbers("label")]
    loss = -np.log(np.maximum(true, np.finfo(np.float32).tiny).astype(np.float64))
    return pa.table(
        {
            "probability": pa.FixedSizeListArray.from_arrays(pa.array(probability.reshape(-1)), probability.shape[1]),
            LOSS: loss,
            WEIGHT: np.ones(len(loss)),
        }
    )


def _file(split: str) -> str:
    return f"before-{split}.arrow"
