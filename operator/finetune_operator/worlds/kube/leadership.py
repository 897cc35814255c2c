"""Which of several operators acts: the one that holds a Lease. The others watch, and are there at once when it is free.

Whoever leads renews the Lease each two seconds. It is another one's only after fifteen seconds without a renewal, and whoever leads
stops acting after ten. Both are measured by monotonic clocks, from when a renewal was asked for and from when it was first seen, so
nobody's date matters. What the Lease cannot promise, as a process may stand still between a look at its clock and a write, the API
server does: a status is written only over the version that was decided on, a Job is made once of a name, and a finished run stays
finished.

The Lease is made by whoever finds none: Argo CD, from version 3 on, passes over Leases unless it is told otherwise, and somebody may delete it.
"""

from __future__ import annotations

import asyncio
import logging
import math
import random
import socket
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import NoReturn

from finetune_api.base import MAX_INT32
from finetune_operator.worlds.kube import names
from finetune_operator.worlds.kube.client import TROUBLE, ApiError, Client, Object

log = logging.getLogger(__name__)

LEASE_SECONDS = 15.0
"""Without a renewal for so long the Lease is free."""
RENEW_DEADLINE = 10.0
"""After so long without a renewal whoever leads does not any longer."""
RETRY_SECONDS = 2.0
"""Between two renewals."""
LOOK_SECONDS = 1.0
"""Between two looks of those who do not lead."""
MOST_SECONDS = 120.0
"""No operator asks for a Lease that lasts longer; one that says so was written by hand, and would keep all others from acting for ever."""
TRY_SECONDS = 3.0
"""For one answer, so that one which never comes leaves time for others."""


@dataclass(frozen=True)
class _Record:
    """The Lease, as it was read."""

    version: str
    """Another one after each renewal."""
    holder: str
    """Empty where nobody holds it."""
    seconds: float
    """How long it is its holder's without a renewal, as that says; another version of the operator may have other times."""
    transitions: int
    address: str
    """Where the holder hears trainers; empty where it does not say."""


class Leadership:
    """The part of one process in the election.

    `lost` is called once it no longer leads, and never comes back: it ends the process, with all that is under way in it.
    """

    def __init__(
        self,
        client: Client,
        namespace: str,
        name: str,
        lost: Callable[[str], NoReturn],
        *,
        identity: str = "",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client = client
        self._path = f"{names.leases(namespace)}/{name}"
        self._where = f"Lease {name} in namespace {namespace}"
        self._lost = lost
        self._clock = clock
        self.identity = identity or f"{socket.gethostname()}_{uuid.uuid4().hex[:8]}"
        """Another one after each start: a process that was killed does not know what it had under way."""
        self.elected = asyncio.Event()
        self.address = ""
        """Where the other replicas reach this one's progress server; they read it in the Lease while this one leads."""
        self._record: _Record | None = None
        self._seen = -math.inf
        """Since when the record has read as it does."""
        self._until = -math.inf
        """While it leads: until when it does without another renewal."""
        self._asked = -math.inf
        """When something was last heard of the Lease."""
        self._trouble = "nobody has answered yet"
        self._said = ""

    # -- what others ask -------------------------------------------------------------------------------------------

    @property
    def leads(self) -> bool:
        return self.elected.is_set() and self._clock() < self._until

    def ensure(self) -> None:
        """To be called before each write: ends the process where it does not lead any longer."""
        if not self.leads:
            why = self._trouble or "this process stood still"
            self._lost(f"the {self._where} was not renewed for {RENEW_DEADLINE:.0f} s: {why}")

    @property
    def leader(self) -> str:
        """Where another replica, which leads, hears trainers: `host:port`. Empty where nobody knows."""
        record = self._record
        if record is None or record.holder in ("", self.identity) or self._clock() >= self._seen + record.seconds:
            return ""
        return record.address

    def away(self) -> str:
        """Why this one could not be elected, in words; empty where it could, or is."""
        silent = self._clock() - self._asked
        return "" if silent <= LEASE_SECONDS else f"the {self._where} cannot be had: {self._trouble}"

    # -- the election ----------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Wait for the Lease, take it, keep it; until cancelled."""
        while True:
            if self.elected.is_set():
                self.ensure()
            try:
                async with asyncio.timeout(self._patience()):
                    await (self._renew() if self.elected.is_set() else self._look())
            except TROUBLE as error:
                self._say(error)
            else:
                self._asked, self._trouble, self._said = self._clock(), "", ""
            await asyncio.sleep(self._pause())

    async def resign(self) -> None:
        """Give the Lease back, so that another one leads at once. Nothing may be under way any more, and `run` be over."""
        if not self.elected.is_set():
            return
        try:
            async with asyncio.timeout(TRY_SECONDS):
                # Read anew: nobody knows what became of a renewal that was cut short.
                record = _read(await self._client.get(self._path))
                if record.holder == self.identity:
                    await self._client.merge(self._path, _given_back(record))
        except TROUBLE as error:
            log.info("The %s is not given back (%s); it is free in %.0f s.", self._where, _words(error), LEASE_SECONDS)
        else:
            log.info("The %s is given back.", self._where)
        self._until = -math.inf

    async def _look(self) -> None:
        """Take the Lease if it is free."""
        try:
            record = _read(await self._client.get(self._path))
        except ApiError as error:
            if error.code != 404:
                raise
            if self._record is not None and not self._is_free(self._record):
                return  # whoever holds it makes it again, or is gone by then
            record = await self._make()
        self._take_in(record)
        if self._is_free(record):
            try:
                await self._write(record)
            except ApiError as error:
                if error.code != 409:
                    raise
                return  # another one was faster
            log.info("Leading: the %s is held as %s.", self._where, self.identity)
            self.elected.set()

    async def _renew(self) -> None:
        assert self._record is not None
        try:
            await self._write(self._record)
        except ApiError as error:
            if error.code not in (404, 409):
                raise
            record = await self._make() if error.code == 404 else _read(await self._client.get(self._path))
            if record.holder not in ("", self.identity):
                self._lost(f"the {self._where} is held by {record.holder}")
            await self._write(record)

    async def _make(self) -> _Record:
        """The Lease, which nobody holds unless another one was faster."""
        name = self._path.rpartition("/")[2]
        lease = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": name}}
        record = _read(await self._client.apply(self._path, lease))
        log.info("The %s was not there, and is made.", self._where)
        return record

    def _is_free(self, record: _Record) -> bool:
        return record.holder in ("", self.identity) or self._clock() >= self._seen + record.seconds

    async def _write(self, record: _Record) -> None:
        """Make the Lease ours, for a while, unless it has changed since it was read."""
        asked = self._clock()
        body = _held(record, self.identity, self.address, self._client.clock.now())
        self._take_in(_read(await self._client.merge(self._path, body)))
        self._until = asked + RENEW_DEADLINE

    def _take_in(self, record: _Record) -> None:
        before, self._record = self._record, record
        if before is None or before.version != record.version:
            self._seen = self._clock()
        if record.holder not in ("", self.identity) and (before is None or before.holder != record.holder):
            log.info("Following: the %s is held by %s.", self._where, record.holder)

    def _patience(self) -> float:
        return max(0.0, min(TRY_SECONDS, self._until - self._clock())) if self.elected.is_set() else TRY_SECONDS

    def _pause(self) -> float:
        if self.elected.is_set():
            return max(0.0, min(RETRY_SECONDS, self._until - self._clock()))
        look = LOOK_SECONDS * random.uniform(0.8, 1.0)  # noqa: S311
        if self._record is None or not self._record.holder:
            return look
        free = self._seen + self._record.seconds - self._clock()
        return min(look, free) if free > 0 else look

    def _say(self, error: Exception) -> None:
        if isinstance(error, TimeoutError) and self._said:
            return  # what was said before tells more than that there was no time for an answer
        self._trouble = _words(error)
        if isinstance(error, ApiError) and error.code == 404:
            self._trouble = f"it cannot be made, as its namespace is not there ({self._trouble})"
        if isinstance(error, ApiError) and error.code == 403:
            self._trouble = f"grant this account get, create and patch of it ({self._trouble})"
        if self._trouble != self._said:
            self._said = self._trouble
            log.warning("The %s cannot be had: %s", self._where, self._trouble)


class Alone:
    """Of an operator that was told of no Lease: it acts from the start, and is the only one, as whoever started it has to see to."""

    def __init__(self) -> None:
        self.elected = asyncio.Event()
        self.elected.set()
        self.address = ""

    leads = True
    leader = ""

    def ensure(self) -> None:
        pass

    def away(self) -> str:
        return ""

    async def run(self) -> None:
        await asyncio.Event().wait()

    async def resign(self) -> None:
        pass


def _read(lease: Object) -> _Record:
    """Whatever somebody has written into it by hand; a Lease that was never held says nothing."""
    meta, spec = lease["metadata"], lease.get("spec") or {}
    return _Record(
        version=meta["resourceVersion"],
        holder=spec.get("holderIdentity") or "",
        seconds=min(spec.get("leaseDurationSeconds") or LEASE_SECONDS, MOST_SECONDS),
        transitions=spec.get("leaseTransitions") or 0,
        address=(meta.get("annotations") or {}).get(names.ADDRESS_ANNOTATION) or "",
    )


def _held(before: _Record, identity: str, address: str, now: datetime) -> Object:
    time_ = now.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    spec: Object = {"holderIdentity": identity, "leaseDurationSeconds": math.ceil(LEASE_SECONDS), "renewTime": time_}
    if before.holder != identity:
        spec |= {"acquireTime": time_, "leaseTransitions": min(before.transitions + 1, MAX_INT32)}
    annotations = {names.ADDRESS_ANNOTATION: address or None}
    return {"metadata": {"resourceVersion": before.version, "annotations": annotations}, "spec": spec}


def _given_back(record: _Record) -> Object:
    meta = {"resourceVersion": record.version, "annotations": {names.ADDRESS_ANNOTATION: None}}
    return {"metadata": meta, "spec": {"holderIdentity": None, "acquireTime": None, "renewTime": None}}


def _words(error: Exception) -> str:
    return str(error) or type(error).__name__
