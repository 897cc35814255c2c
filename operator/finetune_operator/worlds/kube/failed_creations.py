"""Why Jobs have no pods. The Job controller says that only in events, which nobody watches and no cache keeps: each reading of
them is the API server's reading of all events of a namespace. So one list serves all Jobs of a namespace for a while.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import defaultdict
from dataclasses import dataclass, field
from datetime import datetime

from finetune_operator.worlds.kube import names
from finetune_operator.worlds.kube.client import TROUBLE, Client
from finetune_operator.worlds.kube.events import last_seen

log = logging.getLogger(__name__)

INTERVAL = 15.0
"""Seconds between two lists of a namespace's events."""
SELECTOR = "involvedObject.kind=Job,reason=FailedCreate"


@dataclass(frozen=True)
class FailedCreation:
    """The latest that the Job controller said about a Job's pods."""

    time: datetime
    """By the API server's clock."""
    message: str


@dataclass
class _Namespace:
    """What its events said when last listed."""

    listing: asyncio.Lock = field(default_factory=asyncio.Lock)
    due: float = 0.0
    """When to list again, in seconds of the monotonic clock."""
    by_job: dict[str, FailedCreation] = field(default_factory=dict)
    """By the Job's UID."""


class FailedCreations:
    def __init__(self, client: Client) -> None:
        self._client = client
        self._namespaces: defaultdict[str, _Namespace] = defaultdict(_Namespace)

    async def of(self, namespace: str, uid: str) -> FailedCreation | None:
        """About the Job with this UID; what is told may be `INTERVAL` old. Events that cannot be read are no news."""
        known = self._namespaces[namespace]
        async with known.listing:
            if time.monotonic() >= known.due:
                try:
                    known.by_job = await self._list(namespace)
                except TROUBLE as error:
                    log.warning("The events of %s could not be listed: %s", namespace, error or type(error).__name__)
                known.due = time.monotonic() + INTERVAL
        return known.by_job.get(uid)

    async def _list(self, namespace: str) -> dict[str, FailedCreation]:
        found: dict[str, FailedCreation] = {}
        async for page in self._client.pages(names.core_events(namespace), fieldSelector=SELECTOR):
            for event in page["items"]:
                uid, said = (
                    event["involvedObject"].get("uid", ""),
                    FailedCreation(last_seen(event), event.get("message", "")),
                )
                if uid not in found or found[uid].time <= said.time:
                    found[uid] = said
        return found
