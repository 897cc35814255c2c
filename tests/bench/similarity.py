"""`examples/similarity.yaml` and `examples/triplets.yaml` with MiniLM: the dev set of STS-B, and triplets of Korean sentences.

Untuned, the model has the correlation that sentence-transformers gives it; tuned, a higher one, which sentence-transformers finds, too,
with the model that was saved. Of triplets, more texts find the one that follows from them than before, among all others and all
contradictions.
"""

from __future__ import annotations

import csv
import json
import tempfile
from pathlib import Path
from typing import Any

from scipy.stats import spearmanr
from sentence_transformers import SentenceTransformer

from tests.bench.figures import emit
from tests.bench.jobs import DATA, best, run_example

UNTUNED = 0.8672
"""Spearman's correlation of the cosines of the vectors that sentence-transformers gives."""
WITHIN = 0.0005
TRAINED_ON = 600
"""Of 830 triplets."""


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        _scores(Path(name) / "stsb")
        _triplets(Path(name) / "kornli")


def _scores(output: Path) -> None:
    settings = {
        "dataset.splits": "{train: train.csv, validation: dev.csv}",
        "dataset.csv": "{columnNames: [sentence1, sentence2, score]}",
        "training.maxSteps": 60,
    }
    metric = _told("stsb dev Spearman", best(run_example("similarity", DATA / "stsb", output, settings), "spearman"))
    theirs = _spearman(output / "bench/model")
    emit("stsb dev Spearman of the saved model, by sentence-transformers", theirs, "rho")
    assert abs(metric["baseline"] - UNTUNED) <= WITHIN and metric["value"] > metric["baseline"]
    assert abs(metric["value"] - theirs) <= WITHIN


def _spearman(model: Path) -> float:
    with (DATA / "stsb/dev.csv").open(encoding="utf-8", newline="") as file:
        ones, others, scores = zip(*csv.reader(file), strict=True)
    encoder = SentenceTransformer(str(model), device="cpu")
    cosines = encoder.similarity_pairwise(encoder.encode(list(ones)), encoder.encode(list(others)))
    return float(spearmanr(cosines.numpy(), [float(score) for score in scores]).statistic)


def _triplets(folder: Path) -> None:
    """Each premise with what follows from it and what contradicts it."""
    found: dict[str, dict[str, str]] = {}
    with (DATA / "kornli/xnli.dev.ko.tsv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE):
            found.setdefault(row["sentence1"], {})[row["gold_label"]] = row["sentence2"]
    rows = [
        {"anchor": premise, "positive": said["entailment"], "negative": said["contradiction"]}
        for premise, said in found.items()
    ]
    (folder / "data").mkdir(parents=True)
    for name, part in (("train", rows[:TRAINED_ON]), ("dev", rows[TRAINED_ON:])):
        lines = "".join(json.dumps(row) + "\n" for row in part)
        (folder / f"data/{name}.jsonl").write_text(lines, encoding="utf-8")
    settings = {
        "dataset.splits": "{train: train.jsonl, validation: dev.jsonl}",
        "training.batchSize": 32,
        "training.learningRate": 1e-4,
    }
    files = run_example("triplets", folder / "data", folder / "results", settings)
    metric = _told("kornli recall@1", best(files, "recall_at_1"))
    assert metric["value"] > metric["baseline"]


def _told(what: str, metric: dict[str, Any]) -> dict[str, Any]:
    value, untuned = metric["value"], metric["baseline"]
    emit(
        what,
        value,
        "rho" if metric["name"] == "spearman" else "share",
        peer=f"untuned {untuned:.4f}",
        ratio=value / untuned,
    )
    return metric


if __name__ == "__main__":
    main()
