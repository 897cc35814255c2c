"""Reports that came to a replica which does not lead: they are passed on to the one that does, which alone tells them.

A report goes on as it came, with the token of its pod, and whoever leads asks anew whose that is: replicas need not trust each other.
While nobody leads, or the leader is not reached, it waits as long as its trainer does. A report that had to be refused then is kept
for a moment: who knows but that this replica leads next.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
import time
from dataclasses import dataclass
from http import HTTPStatus
from typing import Protocol

import aiohttp

from finetune_api.progress import Progress
from finetune_operator.worlds.kube.leadership import Alone, Leadership
from finetune_operator.worlds.protocol import Key

log = logging.getLogger(__name__)

RELAYED = "X-Finetune-Relayed"
"""Header of a report that is passed on, which nobody passes on again."""
PATIENCE = 4.0
"""Seconds until a trainer is told to try again later; trainers wait for five."""
TRY_SECONDS, PAUSE = 1.5, 0.2
KEPT_SECONDS = 20.0
"""Longer than it takes until another one leads."""
MOST_AT_ONCE = 32
"""Connections to the leader, which lets in more from one address."""
WORTH_A_WARNING = 30.0
"""Seconds: for as long nobody may be reached while another one comes to lead."""


class Unheard(Exception):
    """Nobody could take it in."""


class NotTaken(Exception):
    """The leader's answer to it, other than 200."""

    def __init__(self, status: int, said: str) -> None:
        super().__init__(f"{status}: {said}")
        self.status = status
        self.said = said


@dataclass(frozen=True)
class Letter:
    """A report as it came."""

    authorization: str
    body: bytes
    is_relayed: bool
    """By another replica, for which this one leads."""


class Ear(Protocol):
    def hear(self, key: Key, attempt: str, progress: Progress) -> None: ...


class Relay:
    """Has reports heard by whoever leads: by `ear`, here, or by another replica, which is known by `host` in its certificate."""

    def __init__(self, ear: Ear, leadership: Leadership | Alone, host: str, path: str) -> None:
        self._ear = ear
        self._leadership = leadership
        self._host = host
        self._path = path
        self._trust: ssl.SSLContext | None = None
        self._session: aiohttp.ClientSession | None = None
        self._kept: dict[Key, tuple[float, str, Progress]] = {}
        """The oldest first."""
        self._failing_since: float | None = None
        self._warned = False

    async def __aenter__(self) -> Relay:
        self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=MOST_AT_ONCE, force_close=True))
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._session is not None:
            await self._session.close()

    def trust(self, authority: str) -> None:
        """By this authority, as PEM, replicas know each other from now on."""
        self._trust = ssl.create_default_context(cadata=authority)

    def lead(self) -> None:
        """Take in what was kept, now that this replica leads."""
        self._forget_old()
        for key, (_, attempt, progress) in self._kept.items():
            self._ear.hear(key, attempt, progress)
        self._kept.clear()

    async def hear(self, key: Key, attempt: str, progress: Progress, letter: Letter) -> bool:
        """Have heard what the trainer of this attempt says; returns whether that was elsewhere. Raises Unheard, and NotTaken."""
        deadline = time.monotonic() + PATIENCE
        while not self._leadership.elected.is_set():
            if letter.is_relayed:
                raise Unheard("this replica does not lead")
            if address := self._leadership.leader:
                try:
                    await self._pass_on(address, letter)
                except (aiohttp.ClientError, OSError, TimeoutError) as error:
                    self._say(address, str(error) or type(error).__name__)
                else:
                    self._failing_since, self._warned = None, False
                    self._kept.pop(key, None)
                    return True
            if time.monotonic() + PAUSE > deadline:
                self._keep(key, attempt, progress)
                raise Unheard("no replica that leads is reached")
            await asyncio.sleep(PAUSE)
        self._ear.hear(key, attempt, progress)
        return False

    async def _pass_on(self, address: str, letter: Letter) -> None:
        assert self._session is not None, "enter the relay first"
        assert self._trust is not None, "there is a certificate before anybody is heard"
        async with self._session.post(
            f"https://{address}{self._path}",
            data=letter.body,
            headers={"Host": self._host, "Authorization": letter.authorization, RELAYED: "1"},
            ssl=self._trust,
            server_hostname=self._host,
            timeout=aiohttp.ClientTimeout(total=TRY_SECONDS),
            allow_redirects=False,
        ) as answer:
            if answer.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
                raise aiohttp.ClientPayloadError(f"it answers {answer.status}")
            if answer.status != HTTPStatus.OK:
                raise NotTaken(answer.status, (await answer.text()).strip()[:200])

    def _keep(self, key: Key, attempt: str, progress: Progress) -> None:
        self._forget_old()
        self._kept.pop(key, None)
        self._kept[key] = time.monotonic(), attempt, progress

    def _forget_old(self) -> None:
        while self._kept:
            key, (kept, *_) = next(iter(self._kept.items()))
            if time.monotonic() - kept <= KEPT_SECONDS:
                return
            del self._kept[key]

    def _say(self, address: str, why: str) -> None:
        log.debug("The replica that leads is not reached at %s: %s", address, why)
        self._failing_since = self._failing_since or time.monotonic()
        if not self._warned and time.monotonic() - self._failing_since > WORTH_A_WARNING:
            self._warned = True
            log.warning(
                "Trainers that talk to this replica are not heard: it does not reach the one that leads, at %s (%s). Let the "
                "operator's pods reach each other at that port.", address, why,
            )  # fmt: skip
