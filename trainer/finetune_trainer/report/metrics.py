"""What metrics are called, and which way is better, as the API's tasks say it."""

from __future__ import annotations

from finetune_api.tasks import TASKS

_METRICS = {metric.name: metric for task in TASKS.values() for form in task.forms for metric in form.metrics}


def metric_name(name: str) -> str:
    """As people write it."""
    metric = _METRICS.get(name)
    return metric.shown or name if metric else name


def hub_name(name: str) -> str:
    """As the cards of the hub's models have it."""
    metric = _METRICS.get(name)
    return metric.hub or name if metric else name


def more_is_better(name: str) -> bool:
    return name not in _METRICS or _METRICS[name].more_is_better
