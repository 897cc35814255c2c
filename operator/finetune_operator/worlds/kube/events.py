"""Events of a FineTuneJob, as `kubectl describe` shows them, and when those of others happened."""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime

from finetune_api import API_VERSION, KIND
from finetune_operator.worlds.kube.client import Object
from finetune_operator.worlds.kube.facts import time_of
from finetune_operator.worlds.protocol import Announcement, Key

MAX_NOTE_BYTES = 1024
"""Of UTF-8: the API server refuses an event with a longer note."""


def event_of(key: Key, uid: str, announcement: Announcement, now: datetime) -> Object:
    """An events.k8s.io/v1 Event about this FineTuneJob, at the aware time `now`."""
    return {
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": {"name": f"{key.name}.{time.time_ns():x}", "namespace": key.namespace},
        "eventTime": now.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z"),
        "type": announcement.type,
        "reason": announcement.reason,
        "note": _cut(announcement.message),
        "action": "Reconcile",
        "regarding": {
            "apiVersion": API_VERSION,
            "kind": KIND,
            "name": key.name,
            "namespace": key.namespace,
            "uid": uid,
        },
        "reportingController": "finetune-operator",
        "reportingInstance": os.environ.get("HOSTNAME", "finetune-operator")[:128],
    }


def last_seen(event: Object) -> datetime:
    """When this core/v1 Event happened last. How long after the first time is its writer's to say, and when that was the API server's."""
    created = time_of(event["metadata"]["creationTimestamp"])
    assert created is not None
    first = time_of(event.get("firstTimestamp") or event.get("eventTime"))
    series = event.get("series") or {}
    last = time_of(series.get("lastObservedTime") or event.get("lastTimestamp"))
    return created + (last - first) if first and last and last > first else created


def _cut(note: str) -> str:
    text = note.encode()
    if len(text) <= MAX_NOTE_BYTES:
        return note
    # Whole characters only: what a cut has left of the last one is dropped.
    return f"{text[: MAX_NOTE_BYTES - len('…'.encode())].decode(errors='ignore')}…"
