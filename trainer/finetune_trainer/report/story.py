"""What the report says, in words and numbers, for the page and for the model card alike."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from finetune_api import kubectl_yaml
from finetune_api.dataset import MeasuredSplit
from finetune_api.job import FineTuneJobSpec
from finetune_api.result import MetricResult
from finetune_trainer.report.facts import Hardware, ReportFacts, Took
from finetune_trainer.report.metrics import metric_name, more_is_better
from finetune_trainer.scores import Interval, resamples_of

CAPITAL_WITHIN = re.compile("[a-z]+[A-Z]")
"""How names begin that stay as they are at the head of a sentence, such as chrF."""

TIMES: dict[Took, str] = {
    "fetch": "Time to fetch model and data",
    "references": "Time to ask the untrained model",
    "baseline": "Time to measure before training",
    "train": "Time to train",
    "save": "Training stood still to save",
    "evaluate": "Time to measure the kept model",
    "suspects": "Time to look for wrong labels",
}
"""What the durations are called, in the order in which they are told."""
HARDWARE: dict[Hardware, str] = {"cpu": "Processor", "memory": "Memory", "gpu": "GPU"}


@dataclass(frozen=True)
class MetricRow:
    """A metric before and after, and how sure the difference is."""

    name: str
    """The metric's key, such as `macro_f1`."""
    split: MeasuredSplit
    rows: int
    baseline: float | None
    value: float
    interval: Interval | None
    """Of value minus baseline."""

    @property
    def title(self) -> str:
        return metric_name(self.name)

    @property
    def difference(self) -> float | None:
        return None if self.baseline is None else self.value - self.baseline

    @property
    def is_better(self) -> bool:
        """Whether the difference is an improvement and not chance."""
        if self.interval is None or not self.interval.is_clear or self.difference is None:
            return False
        return self.difference > 0 if more_is_better(self.name) else self.difference < 0


def metric_rows(facts: ReportFacts) -> list[MetricRow]:
    """All metrics, those of the test rows first if there are any, as the command line shows them; the choosing one leads each split."""
    rows = [
        MetricRow(
            metric.name,
            metric.split,
            facts.rows_by_split.get(metric.split, 0),
            metric.baseline,
            metric.value,
            None if metric.baseline is None else facts.intervals.get((metric.split, metric.name)),
        )
        for metric in facts.metrics
    ]
    return sorted(rows, key=lambda row: row.split != "test")


def resamples(rows: list[MetricRow]) -> str:
    """How many resamples the intervals are of: `5,000 resamples`, or which for which split where they differ."""
    by_split = {row.split: resamples_of(row.rows) for row in rows if row.interval is not None}
    if len(set(by_split.values())) == 1:
        return f"{max(by_split.values()):,} resamples"
    return " and ".join(f"{number:,} resamples of the {split} rows" for split, number in by_split.items())


def headline_metric(rows: list[MetricRow]) -> MetricRow:
    """The metric that the model was chosen by, on rows that it was not chosen on if there are any."""
    return rows[0]


def headline(row: MetricRow) -> str:
    """One sentence: what training did."""
    name = row.title if CAPITAL_WITHIN.match(row.title) else row.title[0].upper() + row.title[1:]
    where = f"on the {row.rows:,} {row.split} rows"
    if row.baseline is None or row.difference is None:
        return f"{name} is {row.value:.3f} {where}."
    if row.difference == 0:
        return f"{name} stayed at {row.value:.3f} {where}."
    moved = "rose" if row.difference > 0 else "fell"
    return f"{name} {moved} from {row.baseline:.3f} to {row.value:.3f} {where}."


def certainty(row: MetricRow) -> str:
    """What the interval means."""
    if row.interval is None or row.difference is None:
        return "There is no baseline of the same rows to compare with."
    interval = f"95 % interval {signed(row.interval.low)} to {signed(row.interval.high)}"
    if row.interval.low == row.interval.high == 0:
        return "Whichever of these rows are measured, it is the same before and after."
    if not row.interval.is_clear:
        return f"The difference of {signed(row.difference)} may be chance ({interval})."
    if not row.is_better:
        return f"The model got worse by {abs(row.difference):.3f} ({interval})."
    return f"That is {signed(row.difference)} ({interval})."


def how_often_right(facts: ReportFacts) -> MetricResult | None:
    """The model's accuracy on the validation rows or, where that is not measured, the metric that it was chosen by if that is a share."""
    shares = [m for m in facts.metrics if m.split == "validation" and more_is_better(m.name) and 0 <= m.value <= 1]
    return next((m for m in shares if m.name == "accuracy"), shares[0] if shares else None)


def forgotten(facts: ReportFacts, rows: list[MetricRow]) -> str:
    """What training made of what the model could do before, of the metric that it was chosen by; empty where nobody asked."""
    row = next((row for row in rows if row.split == "retention"), None)
    if row is None:
        return ""
    said = f"{headline(row)} {certainty(row)} These rows were used neither for training nor for choosing the model."
    if facts.has_new_head:
        return f"{said} Before training, the model had a new head that knew nothing, so there was little to forget."
    return said


def honesty(facts: ReportFacts) -> str:
    """What a reader must know about the rows of the headline, and about the model that it is compared with."""
    if "test" in facts.rows_by_split:
        rows = "The test rows were used neither for training nor for choosing the model."
    else:
        rows = "The kept model was chosen on these same validation rows, so the value flatters a little; a test split would not."
    if facts.has_new_head:
        return f"Before training, the model had a new head that knew nothing. {rows}"
    return rows


GENERIC = re.compile(
    r"(adapters?|base|best|checkpoints?|data|datasets?|final|inputs?|last|latest|main|models?|output|pretrained|results?|weights)"
    r"([-_.]?v?[0-9]+)*|v?[0-9.]+|[0-9a-f]{10}|step-[0-9]+-attempt-[0-9]+"
)
"""Folders that are called by what they hold or by a count, such as `model` in a run's folder, and tell nobody which one it is."""


def base_name(spec: FineTuneJobSpec) -> str:
    """The model as people call it: `owner/name` on the hub, else the last telling part of its URI."""
    return _name(spec.model.uri)


def dataset_name(spec: FineTuneJobSpec) -> str:
    """The data as people call it."""
    name = _name(spec.dataset.uri)
    return f"{name} ({spec.dataset.subset})" if spec.dataset.subset else name


def _name(uri: str) -> str:
    scheme, _, path = uri.partition("://")
    if scheme == "hf":
        return path
    parts = [part for part in path.split("/") if part]
    return next((part for part in reversed(parts) if not GENERIC.fullmatch(part.lower())), parts[-1])


def spec_yaml(spec: FineTuneJobSpec, *, defaults: bool) -> str:
    """The spec as a manifest's YAML, with or without what was left at its default."""
    document: dict[str, Any] = spec.model_dump(
        mode="json", by_alias=True, exclude_none=True, exclude_defaults=not defaults
    )
    return kubectl_yaml.dump({"spec": document})


def signed(value: float) -> str:
    """`+0.361` or `−0.020`, with the minus sign of print."""
    return f"{value:+.3f}".replace("-", "−")


def duration(seconds: float) -> str:
    """`42 s`, `3 min 5 s`, `2 h 10 min`."""
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"
