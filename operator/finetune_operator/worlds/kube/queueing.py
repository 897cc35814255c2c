"""What the labels and annotations of a FineTuneJob ask of Kueue, and where Kueue looks for it: on the Job and on the pod's template."""

from __future__ import annotations

from collections.abc import Mapping

from finetune_operator.worlds.kube import names
from finetune_operator.worlds.protocol import Queueing


def read_queueing(labels: Mapping[str, str] | None, annotations: Mapping[str, str] | None) -> Queueing:
    said, more = labels or {}, annotations or {}
    return Queueing(
        queue=said.get(names.QUEUE_LABEL) or "",
        priority=said.get(names.QUEUE_PRIORITY_LABEL) or "",
        topology=tuple((key, more[key]) for key in names.TOPOLOGY_ANNOTATIONS if key in more),
    )


def labels_of(queueing: Queueing) -> dict[str, str]:
    """Of the Job."""
    said = {names.QUEUE_LABEL: queueing.queue, names.QUEUE_PRIORITY_LABEL: queueing.priority}
    return {key: value for key, value in said.items() if value}
