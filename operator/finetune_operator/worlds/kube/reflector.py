"""A local copy of one kind of object, kept true by list and watch.

A watch tells what changes; what changed while it was broken is found by listing again and comparing, so a deletion is never
missed. Own writes are put in at once: nobody decides by a copy that is older than what this process did itself.
"""

from __future__ import annotations

import asyncio
import logging
import math
import random
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Generic, TypeVar

from finetune_operator.worlds.kube.client import TROUBLE, ApiError, Client, Object, WatchError
from finetune_operator.worlds.protocol import Key

log = logging.getLogger(__name__)

T = TypeVar("T")

WATCH_SECONDS = 240
SILENCE = 90.0
"""Seconds without a byte after which a watch is taken for dead; the API server sends a bookmark each minute."""
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 30.0
LONGEST_ASKED_PAUSE = 120.0
"""Seconds that a server may ask to be left alone for."""
SHORTEST_WATCH = 1.0
"""Seconds: a watch that does not last as long has failed, however politely it ended."""
LONG_WATCH = 30.0
"""Seconds: that a watch is cut after as long is the way of load balancers, and no reason to worry anybody."""
MAX_STUCK = 5
"""Watches in a row that were broken at one place by what came out of them."""
REMEMBERED_REMOVALS = 4096


@dataclass(frozen=True)
class Child(Generic[T]):
    """What is kept of an object: whose it is, and the facts it states."""

    job: Key
    owner: str
    """UID of the FineTuneJob."""
    uid: str
    version: int
    fact: T


class Reflector(Generic[T]):
    """Objects of one kind below `path` (a collection's path), reduced by `read` to what decisions need.

    `read` answers None for an object that is none of ours. `changed` hears the key of the job whose facts changed. What `parting`
    holds true of is still shown after its object was deleted, to whoever had no time to look between the two, until they call
    `forget_parted`.
    """

    def __init__(
        self,
        client: Client,
        path: str,
        selector: str,
        read: Callable[[Object], Child[T] | None],
        changed: Callable[[Key], None],
        parting: Callable[[T], bool] = lambda fact: False,
    ) -> None:
        self._client = client
        self._path = path
        self._plural = path.rsplit("/", 1)[-1]
        self._selector = selector
        self._read = read
        self._changed = changed
        self._parting = parting
        self._children: dict[tuple[str, str], Child[T]] = {}
        self._by_job: dict[Key, dict[tuple[str, str], Child[T]]] = {}
        self._parted: dict[Key, list[tuple[float, Child[T]]]] = {}
        """With when that was, by the monotonic clock."""
        self._shown: dict[Key, int] = {}
        """How many of the parted were there when last asked."""
        self._removed: OrderedDict[str, int] = OrderedDict()
        """By UID the version at which it was deleted, or lost our label: only what is younger can bring it back."""
        self._version = ""
        """Where the next watch goes on; empty when the list must be read again."""
        self.synced = asyncio.Event()

    def of(self, job: Key) -> Iterable[Child[T]]:
        """The children of the FineTuneJob of this name, and of earlier ones of the same name that are not gone yet."""
        parted = self._parted.get(job, [])
        if parted:
            self._shown[job] = len(parted)
        return [*self._by_job.get(job, {}).values(), *(child for _, child in parted)]

    def at(self, namespace: str, name: str) -> Child[T] | None:
        """The child of this name, if it is there."""
        return self._children.get((namespace, name))

    def forget_parted(self, job: Key) -> None:
        """What was shown of gone objects when last asked need not be shown again."""
        rest = self._parted.pop(job, [])[self._shown.pop(job, 0) :]
        if rest:
            self._parted[job] = rest

    def forget_parted_before(self, moment: float) -> None:
        """Nobody will ask for what was gone before this moment of the monotonic clock."""
        for job, parted in [*self._parted.items()]:
            self._shown.pop(job, None)
            self._parted[job] = [(at, child) for at, child in parted if at >= moment]
            if not self._parted[job]:
                del self._parted[job]

    def put(self, obj: Object) -> None:
        """Take in an object as the API server just showed it; one that is older than what is known is ignored."""
        meta = obj["metadata"]
        place = (meta.get("namespace", ""), meta["name"])
        old = self._children.get(place)
        version = _version(obj)
        if version <= self._removed.get(meta["uid"], -1) or (old is not None and version < old.version):
            return
        if old is not None and (old.uid, old.version) == (meta["uid"], version):
            return  # what our own write was answered with
        new = self._read(obj)
        if new is None:
            self._forget(place)
        else:
            self._children[place] = new
            self._by_job.setdefault(new.job, {})[place] = new
            if old is None or old.fact != new.fact:
                self._changed(new.job)

    def drop(self, obj: Object) -> None:
        """Take in that an object is gone, or no longer carries our label."""
        meta = obj["metadata"]
        self._remember_removal(meta["uid"], _version(obj))
        child = self._children.get(place := (meta.get("namespace", ""), meta["name"]))
        if child is not None and child.uid == meta["uid"] and child.version <= _version(obj):
            self._part(place)

    def _part(self, place: tuple[str, str]) -> None:
        """It is gone; its last words may be yet to be heard."""
        child = self._children[place]
        if self._parting(child.fact):
            self._parted.setdefault(child.job, []).append((time.monotonic(), child))
        self._forget(place)

    def lose(self, job: Key, uid: str) -> None:
        """Take in that a child which no watch tells of is gone."""
        for place, child in [*self._by_job.get(job, {}).items()]:
            if child.uid == uid:
                self._forget(place)

    def _remember_removal(self, uid: str, version: int) -> None:
        self._removed[uid] = version
        self._removed.move_to_end(uid)
        if len(self._removed) > REMEMBERED_REMOVALS:
            self._removed.popitem(last=False)

    def _forget(self, place: tuple[str, str]) -> None:
        child = self._children.pop(place, None)
        if child is None:
            return
        siblings = self._by_job[child.job]
        siblings.pop(place, None)
        if not siblings:
            del self._by_job[child.job]
        self._changed(child.job)

    async def run(self) -> None:
        """List, watch, and begin again, for ever: at once after a watch that has lived, after a pause otherwise.

        A watch goes on where the last one ended. The list is read again only when the API server says that this is too long ago
        (410), since whatever else it says may mean that it has too much to do; or when watch after watch breaks at one place.
        """
        self._client.heard.begin(self._plural)
        pause, expired, stuck = FIRST_PAUSE, False, 0
        while True:
            began, place = math.inf, self._version
            error: Exception | None = None
            try:
                if not self._version:
                    self._version = place = await self._list()
                began = time.monotonic()
                await self._watch(self._version)
            except TROUBLE as trouble:
                error = trouble
            if isinstance(error, ApiError):
                self._client.heard.answered(self._plural)
            lived = time.monotonic() - began
            if lived >= SHORTEST_WATCH:
                pause, expired = FIRST_PAUSE, False
            stuck = stuck + 1 if isinstance(error, WatchError) and self._version == place else 0
            if isinstance(error, ApiError) and error.code == HTTPStatus.GONE:
                self._version = ""
                if not expired:  # a list at once heals it, or nothing does
                    expired = True
                    continue
            elif stuck >= MAX_STUCK:
                self._version, stuck = "", 0
            if error is not None or lived < SHORTEST_WATCH:
                await rest(self._plural, error, pause, lived)
                pause = min(pause * 2, LONGEST_PAUSE)

    async def _list(self) -> str:
        seen: set[tuple[str, str]] = set()
        version = ""
        async for page in self._client.pages(self._path, labelSelector=self._selector):
            self._client.heard.answered(self._plural)
            version = page["metadata"]["resourceVersion"]
            for obj in page["items"]:
                seen.add((obj["metadata"].get("namespace", ""), obj["metadata"]["name"]))
                self.put(obj)
        # Younger than the list are only our own writes.
        for place, child in [*self._children.items()]:
            if place not in seen and child.version <= int(version):
                self._remember_removal(child.uid, int(version))
                self._part(place)
        self.synced.set()
        return version

    async def _watch(self, version: str) -> None:
        query = {
            "labelSelector": self._selector,
            "resourceVersion": version,
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(WATCH_SECONDS + random.randrange(60)),  # noqa: S311
        }
        async with self._client.watch(self._path, query, SILENCE) as events:
            try:
                async for event in events:
                    self._client.heard.mark(self._plural)
                    obj = event["object"]
                    match event["type"]:
                        case "DELETED":
                            self.drop(obj)
                        case "ADDED" | "MODIFIED":
                            self.put(obj)
                    self._version = obj["metadata"]["resourceVersion"]
            except TimeoutError:
                # Nothing to tell, and a server that sends no bookmarks: as long as it has seen no such object, none does.
                log.debug("The watch of %s has been silent for %.0f s; opening it again.", self._plural, SILENCE)


async def rest(plural: str, error: Exception | None, pause: float, lived: float) -> None:
    """Say that a watch has broken after so many seconds, and wait about `pause` more, or as long as the API server asks for."""
    said = "it ended at once" if error is None else str(error) or type(error).__name__
    asked = (isinstance(error, ApiError) and error.retry_after) or 0.0
    seconds = max(pause * random.uniform(0.5, 1.0), min(asked, LONGEST_ASKED_PAUSE))  # noqa: S311
    level = logging.INFO if lived >= LONG_WATCH else logging.WARNING
    log.log(level, "The watch of %s broke (%s); again in %.0f s.", plural, said, seconds)
    await asyncio.sleep(seconds)


def _version(obj: Object) -> int:
    # Officially comparable since Kubernetes 1.35, in fact since ever: etcd counts them.
    return int(obj["metadata"]["resourceVersion"])
