"""Facts of made-up runs, small and whole."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from finetune_api.job import FineTuneJobSpec
from finetune_api.result import MetricResult
from finetune_api.run import identify
from finetune_trainer.data import Examples, Origins, Source
from finetune_trainer.data.survey import LabelRows, SplitSurvey, Survey
from finetune_trainer.report.blocks import Block, Text
from finetune_trainer.report.facts import Moving, ReportFacts
from finetune_trainer.report.suspects import Suspect
from finetune_trainer.scores import Interval, Score, paired_intervals, values
from finetune_trainer.scores.labels import label_scores, log_loss
from finetune_trainer.tasks.label_blocks import label_blocks
from tests.unit.trainer.rows import examples

NASTY = '<script src="https://evil.example/x.js"></script><img src=x onerror=alert(1)> & "quotes" ``` $a$ | {{ 7*7 }}'
SNIPPET = 'from transformers import pipeline\n\nprint(pipeline("text-classification", model="model")("A text."))\n'


def probabilities(
    truth: NDArray[np.int64], labels: int, skill: float, random: np.random.Generator
) -> NDArray[np.float32]:
    logits = random.normal(size=(len(truth), labels)) + skill * np.eye(labels)[truth]
    powers = np.exp(logits)
    return np.asarray(powers / powers.sum(axis=1, keepdims=True), dtype=np.float32)


@dataclass(frozen=True)
class Predictions:
    """What a model of `skill` said about one split, before and after training: probabilities of shape (rows, labels)."""

    split: Any
    examples: Examples
    before: NDArray[np.float32]
    after: NDArray[np.float32]

    @property
    def truth(self) -> NDArray[np.int64]:
        return self.examples.numbers("label")

    def blocks(self, names: Sequence[str]) -> list[Block]:
        return list(
            label_blocks(self.examples, answers(self.before), answers(self.after), names, show=("text", "textPair"))
        )

    def scores(self, probability: NDArray[np.float32]) -> list[Score]:
        """The choosing one first."""
        found = label_scores(self.truth, probability.argmax(axis=1), probability.shape[1])
        return [*sorted(found, key=lambda score: score.name != "f1"), log_loss(self.truth, probability)]


def answers(probability: NDArray[np.float32]) -> pa.Table:
    lists = pa.FixedSizeListArray.from_arrays(pa.array(probability.ravel()), probability.shape[1])
    return pa.table({"probability": lists})


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
    after = probabilities(truth, labels, skill, random)
    return Predictions(
        split,
        examples(texts, second, truth, origins=origins),
        before=probabilities(truth, labels, 0.0, random),
        after=after,
    )


@cache
def _measured(split: Any, rows: int, labels: int) -> tuple[list[MetricResult], dict[tuple[str, str], Interval]]:
    """Metrics of such predictions, and intervals of their differences."""
    part = predictions(split, rows, labels, pairs=False)
    before, after = part.scores(part.before), part.scores(part.after)
    baseline, intervals = values(before), paired_intervals(before, after, seed=42)
    metrics = [
        MetricResult(name=name, split=split, baseline=baseline[name], value=value)
        for name, value in values(after).items()
    ]
    return metrics, {(split, name): interval for name, interval in intervals.items()}


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
    metrics, intervals = [], {}
    for part in parts:
        found, between = _measured(part.split, len(part.examples), len(labels))
        metrics += found
        intervals |= between
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
    train_counts = [1194, 2474] if len(labels) == 2 else [100 + 37 * n for n in range(len(labels))]
    rows_by_split = {part.split: len(part.examples) for part in parts}
    return ReportFacts(
        run=identify(whole),
        spec=whole,
        bases=(whole.model.uri.removeprefix("hf://"),) if whole.model.uri.startswith("hf://") else (),
        metrics=metrics,
        history=history,
        intervals=intervals,
        rows_by_split=rows_by_split,
        blocks_by_split={part.split: part.blocks(labels) for part in parts},
        survey=Survey(
            tuple(SplitSurvey(split, n, 0, 0, 0) for split, n in {"train": 3668, **rows_by_split}.items()),
            {"label": tuple(LabelRows(label, {"train": n}) for label, n in zip(labels, train_counts, strict=True))},
        ),
        suspects=[
            Suspect(
                f"train.tsv, line {n}", labels[0], labels[-1], 6.5 - 0.1 * n, (Text(f"A row of another kind, {n}."),)
            )
            for n in range(2, 5)
        ],
        task_facts={"labels": list(labels)},
        snippet=SNIPPET,
        sources=[Source("train", "train.tsv", 3668), Source("validation", "dev.tsv", rows)],
        train_rows=3668,
        parameters_trained=10_000_000,
        parameters_frozen=12_713_216,
        moving=[Moving("the head", 1e-3, 770), Moving("all else", 5e-5, 9_999_230)],
        has_new_head=True,
        seed=42,
        threads=2,
        precision="bf16",
        micro_batch_size=8,
        activation_checkpointing=True,
        total_steps=1380,
        hardware={"cpu": "AMD EPYC 9B14", "memory": "24.0 GiB"},
        versions={"python": "3.11.2", "torch": "2.13.0", "transformers": "5.23.0"},
        durations={"fetch": 1.25, "baseline": 7.1, "train": 374.2, "evaluate": 6.9},
        data_fingerprint="d" * 64,
        model_fingerprint="e" * 64,
        model_revision="c0ffee" + "0" * 34,
        data_revision="da7a" + "0" * 36,
        best_step=920,
        warnings=[
            f"2 of {rows} validation rows have the text of a training row, so their metrics flatter: dev.tsv, line 3.",
            NASTY,
        ],
    )
