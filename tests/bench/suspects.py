"""Rows with a wrong label among those that result.json calls suspicious, beside cleanlab's ranking by cross-validation.

In 2,000 rows of each data, every tenth label is another one, drawn at random. What counts is the share of these among the suspects, at
most 5 % of the rows. Fails where it is below its bar, or clearly below cleanlab's; where all that the ranking costs whoever trains anyway, which
is to note what is said while training and to ask the trained model again, takes more than 3 % of training, or a fifth of cross-validation.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
from numpy.typing import NDArray

from finetune_api.job import FineTuneJobSpec
from tests.bench import cross_validation, lite0
from tests.bench.figures import emit
from tests.bench.jobs import COLUMNS, DATA, MRPC, minilm, run_example

ROWS, VALIDATION = 2000, 200
WRONG = 0.1
SEED = 7
MOST_OVERHEAD = 0.03
MOST_COST = 1 / 5
SETTINGS = {"dataset.splits": "{train: train.parquet, validation: validation.parquet}", "dataset.columns": "null"}


@dataclass(frozen=True)
class Case:
    """A run of an example."""

    example: str
    rows: Callable[[], pa.Table]
    """All there are, with the roles as columns."""
    bar: float
    """0.8, or where the model knows the labels of other rows less well, two standard errors below what was measured."""
    settings: Mapping[str, Any]
    model: Callable[[Path], Path] = lambda folder: minilm()
    """Its folder; one that is made is made in the given one."""


def banking77() -> pa.Table:
    lines = pyarrow.csv.ParseOptions(newlines_in_values=True)
    table = pyarrow.csv.read_csv(DATA / "banking77/train.csv", parse_options=lines)
    return table.rename_columns({"category": "label"})


def mrpc() -> pa.Table:
    tabs = pyarrow.csv.ParseOptions(delimiter="\t", quote_char=False)
    table = pyarrow.csv.read_csv(MRPC / "train.tsv", parse_options=tabs)
    names = {COLUMNS["text"]: "text", COLUMNS["text_pair"]: "textPair", COLUMNS["label"]: "label"}
    table = table.select(list(names)).rename_columns(names)
    return table.set_column(2, "label", table["label"].cast(pa.string()))


def cifar10() -> pa.Table:
    return pq.read_table(DATA / "cifar10/train.parquet")


def efficientnet(folder: Path) -> Path:
    lite0.save(folder)
    return folder


CASES = {
    "banking77": Case(
        "quickstart",
        banking77,
        bar=0.8,
        settings={"training.epochs": 4, "training.batchSize": 16, "training.learningRate": 2e-4},
    ),
    "cifar10": Case(
        "cifar10",
        cifar10,
        bar=0.8,
        settings={"images.size": 64, "training.epochs": 3, "training.batchSize": 32},
        model=efficientnet,
    ),
    "mrpc": Case("mrpc", mrpc, bar=0.25, settings={"dataset.labels": "null"}),
}


def main() -> None:
    low = [f"{name}: {problem}" for name, case in CASES.items() for problem in measure(name, case)]
    if low:
        raise SystemExit("; ".join(low))


def measure(name: str, case: Case) -> list[str]:
    """Emits figures; returns which of them are not good enough."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        wrong = write(case.rows(), folder / "data")
        settings = {"model.uri": str(case.model(folder / "model")), **SETTINGS, **case.settings}
        files = run_example(case.example, folder / "data", folder / "results", settings)
        suspects = [int(one["row"].rpartition(" ")[2]) - 1 for one in files["result"]["suspects"]]
        judged = cross_validation.judge(FineTuneJobSpec.model_validate(files["run"]["spec"]), folder / "judged")
    found = float(wrong[suspects].mean())
    theirs = {score: float(wrong[order[: len(suspects)]].mean()) for score, order in judged.rankings().items()}
    score, peer = max(theirs.items(), key=lambda one: one[1])
    says = f"cleanlab's {score} by {cross_validation.FOLDS} folds {peer:.3f}"
    emit(f"{name}, wrong labels among {len(suspects)} suspects", found, "share", peer=says, ratio=found / peer)

    noting, durations = judged.noting / judged.stepping, files["run"]["durations"]
    training, asking = durations["train"], durations["suspects"]
    seconds = noting * training + asking
    overhead, cost = seconds / training, seconds / judged.seconds
    emit(f"{name}, noting what is said", 100 * noting, "% of the CPU time of steps")
    emit(f"{name}, asking again", asking, "s", peer=f"training {training:.0f} s", ratio=asking / training)
    says = f"{cross_validation.FOLDS} folds {judged.seconds:.0f} s"
    emit(f"{name}, both", seconds, "s", peer=says, ratio=cost)
    return [
        *([f"{found:.3f} of the suspects are wrong, below {case.bar}"] if found < case.bar else []),
        *([f"{found:.3f} is below {peer:.3f}"] if found < peer - chance(peer, len(suspects)) else []),
        *([f"{100 * overhead:.1f} % overhead"] if overhead > MOST_OVERHEAD else []),
        *([f"{cost:.2f} of the cost of cross-validation"] if cost > MOST_COST else []),
    ]


def chance(share: float, rows: int) -> float:
    """A standard error of a share of so many rows: by less than that, nobody is better."""
    return math.sqrt(share * (1 - share) / rows)


def write(table: pa.Table, folder: Path) -> NDArray[np.bool_]:
    """Write rows to train on, and others to validate with; returns which of the former have a wrong label, in their order."""
    random = np.random.default_rng(SEED)
    table = table.take(random.permutation(len(table))[: ROWS + VALIDATION])
    names = np.unique(table["label"].to_pylist())
    labels = np.searchsorted(names, table["label"].to_pylist())
    wrong = np.zeros(len(table), np.bool_)  # validation rows stay as they are
    wrong[random.choice(ROWS, round(WRONG * ROWS), replace=False)] = True
    labels[wrong] = (labels + random.integers(1, len(names), len(table)))[wrong] % len(names)
    table = table.set_column(table.column_names.index("label"), "label", pa.array(names[labels]))
    folder.mkdir()
    pq.write_table(table[:ROWS], folder / "train.parquet")
    pq.write_table(table[ROWS:], folder / "validation.parquet")
    return wrong[:ROWS]


if __name__ == "__main__":
    main()
