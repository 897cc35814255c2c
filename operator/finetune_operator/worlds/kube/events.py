"""Events of a FineTuneJob, as `kubectl describe` shows them."""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime

from finetune_api import API_VERSION, KIND
from finetune_operator.decide.announce import Announcement
from finetune_operator.worlds.kube.client import Object
from finetune_operator.worlds.protocol import Key

MAX_NOTE = 1024


def event_of(key: Key, uid: str, announcement: Announcement, now: datetime) -> Object:
    """An events.k8s.io/v1 Event about this FineTuneJob, at the aware time `now`."""
    note = announcement.message
    return {
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": {"name": f"{key.name}.{time.time_ns():x}", "namespace": key.namespace},
        "eventTime": now.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z"),
        "type": announcement.type,
        "reason": announcement.reason,
        "note": note if len(note) <= MAX_NOTE else f"{note[: MAX_NOTE - 1]}…",
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
