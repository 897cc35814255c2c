"""The events of pods that wait without saying why. Nobody watches events, and no cache keeps them: each list is the API server's
reading of all events of a namespace. So they are asked for rarely, one pod after another, beside whoever decides.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from finetune_operator.worlds.kube import names
from finetune_operator.worlds.kube.client import TROUBLE, Client, Object
from finetune_operator.worlds.kube.event_words import Told, told_by
from finetune_operator.worlds.protocol import Key

log = logging.getLogger(__name__)

PATIENCE = 15.0
"""Seconds that a pod may wait without a reason, on a node or for one, before its events are asked for."""
INTERVAL = 30.0
"""Seconds between two lists of a pod's events."""
PACE = 0.5
"""Seconds between two lists of whichever pods."""


@dataclass
class _Pod:
    key: Key
    node: str | None
    due: float
    """When to ask next, in seconds of the monotonic clock."""
    told: Told | None = None


class PodEvents:
    """`changed` hears the key of a job of whose pods they say something new. `run` is to run beside it."""

    def __init__(self, client: Client, changed: Callable[[Key], None]) -> None:
        self._client = client
        self._changed = changed
        self._pods: dict[str, _Pod] = {}
        """By UID."""
        self._of: defaultdict[Key, set[str]] = defaultdict(set)
        self._news = asyncio.Event()

    def of(self, key: Key, waiting: Mapping[str, str | None]) -> dict[str, Told]:
        """What events say of these pods of a job, which are all that wait for no known reason: by UID, with the node of each."""
        for uid in self._of[key] - waiting.keys():
            self._of[key].discard(uid)
            del self._pods[uid]
        for uid, node in waiting.items():
            self._follow(key, uid, node)
        if not self._of[key]:
            del self._of[key]
        return {uid: told for uid in waiting if (told := self._pods[uid].told) is not None}

    def _follow(self, key: Key, uid: str, node: str | None) -> None:
        pod, due = self._pods.get(uid), time.monotonic() + PATIENCE
        if pod is None:
            self._pods[uid] = _Pod(key, node, due)
            self._of[key].add(uid)
            self._news.set()
        elif pod.node != node:  # it waits for something else now
            pod.node, pod.told = node, None
            pod.due = max(due, pod.due)

    async def run(self) -> None:
        """Ask for the events of one pod after another, for ever."""
        while True:
            self._news.clear()
            uid, pod = min(self._pods.items(), key=lambda item: item[1].due, default=("", None))
            rest = (pod.due if pod else math.inf) - time.monotonic()
            if pod is None or rest > 0:
                # In this very task: of one that is made meanwhile kopf thinks that it is its own, and cancels it.
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(rest if pod else None):
                        await self._news.wait()
                continue
            pod.due = time.monotonic() + INTERVAL
            await self._ask(uid, pod)
            await asyncio.sleep(PACE)

    async def _ask(self, uid: str, pod: _Pod) -> None:
        node, found = pod.node, list[Object]()
        try:
            selector = f"involvedObject.uid={uid}"
            async for page in self._client.pages(names.core_events(pod.key.namespace), fieldSelector=selector):
                found += page["items"]
        except TROUBLE as error:
            log.warning("The events of %s could not be listed: %s", pod.key.namespace, error or type(error).__name__)
            return
        if self._pods.get(uid) is not pod or pod.node != node:
            return
        told = told_by(found, node)
        if told != pod.told:
            pod.told = told
            self._changed(pod.key)
