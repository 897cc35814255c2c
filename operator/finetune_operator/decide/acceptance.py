"""Whether a trained model reaches what `spec.acceptance` asks for, by what was measured of it. What is unknown is not reached."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from finetune_api.acceptance import Acceptance
from finetune_api.status import MetricStatus
from finetune_api.tasks import TASKS
from finetune_operator.decide.case import Case


def shortfall(case: Case, metrics: Sequence[MetricStatus]) -> str:
    """What the model lacks, in a sentence; empty when it is accepted."""
    asked = case.job.spec.get("acceptance")
    if asked is None:
        return ""
    try:  # by itself, as all else of a spec may be beyond this operator
        acceptance = Acceptance.model_validate(asked)
    except ValidationError:
        return "This operator cannot read spec.acceptance, so nobody knows whether the model reaches it"
    split = "test" if _has_test_rows(case.job.spec, metrics) else "validation"
    name = acceptance.metric or _chosen_by(case.job.spec, metrics)
    found = next((metric for metric in metrics if (metric.name, metric.split) == (name, split)), None)
    if found is None:
        asked_for = (
            f"{name or 'the metric that the best model was chosen by'}{' of the test rows' if split == 'test' else ''}"
        )
        return f"spec.acceptance asks for {asked_for}, whose value is unknown here, so nobody knows whether the model reaches it"
    lacks = list(_lacks(acceptance, found, _more_is_better(str(case.job.spec.get("task")), found.name)))
    return f"{found.name} of the {found.split} rows {', and '.join(lacks)}" if lacks else ""


def _has_test_rows(spec: Mapping[str, Any], metrics: Sequence[MetricStatus]) -> bool:
    """Those of validation stand in for no test rows, neither where the metric is not defined for these nor where a long result was cut."""
    return bool(_at(spec, "dataset", "splits", "test")) or any(metric.split == "test" for metric in metrics)


def _chosen_by(spec: Mapping[str, Any], metrics: Sequence[MetricStatus]) -> str | None:
    """The metric that the best model was chosen by. It comes first, unless it is not defined, as a correlation with answers that are all
    the same: then another one does, which says nothing of what was asked for. None where it is nowhere."""
    written = _at(spec, "training", "evaluation", "metric")
    if isinstance(written, str):
        return written
    facts = TASKS.get(str(spec.get("task")))
    forms = facts.forms if facts else ()
    chosen = {form.default_metric(metric.labels).name for form in forms for metric in form.metrics}
    known = {metric.name for form in forms for metric in form.metrics}
    first = metrics[0].name if metrics else None
    if first not in known:  # of a trainer of somebody's own, or of a task that only another version knows
        return first
    return next((metric.name for metric in metrics if metric.name in chosen), None)


def _at(spec: Mapping[str, Any], *path: str) -> Any:
    """What a spec says there, which nobody may be able to read as a whole; None for nothing."""
    found: Any = spec
    for name in path:
        found = found.get(name) if isinstance(found, Mapping) else None
    return found


def _lacks(acceptance: Acceptance, found: MetricStatus, more_is_better: bool | None) -> Iterator[str]:
    value, before = found.value, found.baseline
    if acceptance.min is not None and value < acceptance.min:
        yield f"is {apart(value, acceptance.min)}, below the {acceptance.min:g} of spec.acceptance.min"
    if acceptance.max is not None and value > acceptance.max:
        yield f"is {apart(value, acceptance.max)}, above the {acceptance.max:g} of spec.acceptance.max"
    if not acceptance.better_than_baseline:
        return
    if before is None:
        yield "is unknown of the model before training, so nobody knows whether it is better"
    elif more_is_better is None:
        yield f"was {before:.4g} before training and is {value:.4g}, and this operator does not know whether more of it is better"
    elif value == before or (value > before) is not more_is_better:
        yield f"was {apart(before, value)} before training and is {apart(value, before)}, which is not better"


def _more_is_better(task: str, name: str) -> bool | None:
    """None of a metric that only another version, or a trainer of somebody's own, knows."""
    forms = TASKS[task].forms if task in TASKS else ()
    return next((metric.more_is_better for form in forms for metric in form.metrics if metric.name == name), None)


def apart(value: float, other: float) -> str:
    """`value` in so many digits, four at least, that it does not read like `other`, which it is not."""
    for digits in range(4, 18):
        text = f"{value:.{digits}g}"
        if value == other or text != f"{other:.{digits}g}":
            break
    return text
