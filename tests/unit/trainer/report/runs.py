"""Facts of made-up runs, small and whole."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from finetune_api.job import FineTuneJobSpec
from finetune_api.result import MetricResult
from finetune_api.run import identify
from finetune_trainer.data import Origins, Source
from finetune_trainer.report import Predictions, ReportFacts
from finetune_trainer.scores import values
from finetune_trainer.scores.labels import label_scores, log_loss
from tests.unit.trainer.rows import examples

NASTY = '<script src="https://evil.example/x.js"></script><img src=x onerror=alert(1)> & "quotes" ``` $a$ | {{ 7*7 }}'
FIRST = ("f1", "accuracy", "macro_f1", "loss")
"""The order of metrics in a result."""


def probabilities(
    truth: NDArray[np.int64], labels: int, skill: float, random: np.random.Generator
) -> NDArray[np.float32]:
    logits = random.normal(size=(len(truth), labels)) + skill * np.eye(labels)[truth]
    powers = np.exp(logits)
    return np.asarray(powers / powers.sum(axis=1, keepdims=True), dtype=np.float32)


def predictions(
    split: Any, rows: int, labels: int, *, pairs: bool, skill: float = 2.5, texts: list[str] | None = None
) -> Predictions:
    random = np.random.default_rng(7)
    truth = random.integers(0, labels, rows)
    origins = Origins(("dev.tsv",), ("line",), np.zeros(rows, np.int32), np.arange(2, rows + 2))
    texts = texts or [
        f"{NASTY} {row}" if row % 3 == 0 else f"An ordinary sentence, number {row}." for row in range(rows)
    ]
    second = [f"Another one, {row}." for row in range(rows)] if pairs else None
    after, before = probabilities(truth, labels, skill, random), probabilities(truth, labels, 0.0, random)
    of_after, of_before = (
        (*label_scores(truth, found.argmax(axis=1), labels), log_loss(truth, found)) for found in (after, before)
    )
    of_rows = examples(texts, second, truth, origins=origins)
    return Predictions(split, of_rows, after, before, after_scores=of_after, before_scores=of_before)


def finished_run(
    *,
    labels: tuple[str, ...] = ("different", "same"),
    pairs: bool = True,
    with_test: bool = False,
    rows: int = 200,
    **spec: Any,
) -> ReportFacts:
    """A finished run whose metrics are those of its predictions."""
    columns = {"text": "a", "textPair": "b"} if pairs else {"text": "a"}
    whole = FineTuneJobSpec.model_validate(
        {
            "task": "text-classification",
            "model": {"uri": "hf://sentence-transformers/all-MiniLM-L6-v2", "revision": "main"},
            "dataset": {"uri": "hf://nyu-mll/glue", "subset": "mrpc", "columns": columns, "labels": list(labels)},
            "method": {"freeze": {"lowestLayers": 2}},
            "output": {"uri": "s3://models/paraphrase"},
            **spec,
        }
    )
    parts = [predictions("validation", rows, len(labels), pairs=pairs)]
    if with_test:
        parts.append(predictions("test", 2 * rows, len(labels), pairs=pairs))
    metrics = [
        MetricResult(name=name, split=part.split, baseline=values(part.before_scores)[name], value=value)
        for part in parts
        for name, value in sorted(values(part.after_scores).items(), key=lambda item: FIRST.index(item[0]))
    ]
    random = np.random.default_rng(3)
    history: list[dict[str, float]] = [
        {"step": 0, "epoch": 0.0, "eval_loss": 0.7, "eval_f1": 0.41, "eval_accuracy": 0.5}
    ]
    for step in range(10, 1380, 10):
        loss = 0.25 + 0.5 * np.exp(-step / 400) + random.normal() * 0.05
        history.append({"step": step, "epoch": step / 459, "loss": loss, "learning_rate": 5e-5 * (1 - step / 1380)})
        if step % 460 == 0:
            f1 = 0.88 - 0.2 * np.exp(-step / 400)
            history.append(
                {"step": step, "epoch": step / 459, "eval_loss": loss + 0.1, "eval_f1": f1, "eval_accuracy": f1 - 0.07}
            )
    return ReportFacts(
        run=identify(whole),
        spec=whole,
        metrics=metrics,
        history=history,
        labels=labels,
        predictions=parts,
        sources=[Source("train", "train.tsv", 3668), Source("validation", "dev.tsv", rows)],
        train_rows=3668,
        parameters_trained=10_000_000,
        parameters_frozen=12_713_216,
        has_new_head=True,
        seed=42,
        threads=2,
        precision="bf16",
        micro_batch_size=8,
        total_steps=1380,
        hardware={"cpu": "AMD EPYC 9B14", "memory": "24.0 GiB"},
        versions={"python": "3.11.2", "torch": "2.13.0", "transformers": "5.23.0"},
        durations={"fetch": 1.25, "baseline": 7.1, "train": 374.2, "evaluate": 6.9},
        data_fingerprint="d" * 64,
        model_fingerprint="e" * 64,
        model_revision="c0ffee" + "0" * 34,
        data_revision="da7a" + "0" * 36,
        best_step=920,
        train_counts=[1194, 2474] if len(labels) == 2 else [100 + 37 * n for n in range(len(labels))],
        warnings=[
            f"2 of {rows} validation rows have the text of a training row, so their metrics flatter: dev.tsv, line 3.",
            NASTY,
        ],
    )
