"""What lies between kopf and the API server: its watch hears only whole events.

Over anything else kopf would end itself; where a watch just ends, it goes on from there. So here a watch ends instead, after a
pause. Only where it ends again and again at one place is kopf told that the place is too old, upon which it lists anew. Nor does it
hear of what is known already, which is each write of our own: what kopf does with an event costs as much as the decision.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator, Callable
from http import HTTPStatus
from typing import Any

import aiohttp

from finetune_operator.worlds.kube.client import Client, Object, WatchError, events
from finetune_operator.worlds.kube.reflector import (
    FIRST_PAUSE,
    LONGEST_PAUSE,
    MAX_STUCK,
    SHORTEST_WATCH,
    SILENCE,
    rest,
)

log = logging.getLogger(__name__)

TOO_OLD = {"type": "ERROR", "object": {"kind": "Status", "code": HTTPStatus.GONE, "reason": "Expired"}}


class WatchOfKopf:
    """A watch of one kind by kopf, with its session."""

    def __init__(self, client: Client, known: Callable[[Object], bool] = lambda obj: False) -> None:
        self._client = client
        self._known = known
        self._broken = 0
        """How many times in a row it was broken by what came, before any event."""

    def new_session(self) -> aiohttp.ClientSession:
        return self._client.new_session(self._between)

    async def _between(
        self, request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        response = await handler(request)
        plural = request.url.name
        self._client.heard.answered(plural)
        if response.ok and request.url.query.get("watch") == "true":
            body: Any = _Body(response.content, self._whole(plural, response.content))
            response.content = body
        return response

    async def _whole(self, plural: str, content: aiohttp.StreamReader) -> AsyncIterator[bytes]:
        began = time.monotonic()
        error: Exception | None = None
        try:
            stream = events(content)
            while True:
                async with asyncio.timeout(SILENCE):  # not across a yield: kopf may never come back
                    event = await anext(stream)
                self._broken = 0
                self._client.heard.mark(plural)
                if event["type"] != "MODIFIED" or not self._known(event["object"]):
                    yield _line(event)
        except StopAsyncIteration:
            pass
        except TimeoutError:
            log.debug("The watch of %s has been silent for %.0f s; opening it again.", plural, SILENCE)
        except (WatchError, aiohttp.ClientError) as trouble:
            error = trouble
        lived = time.monotonic() - began
        if isinstance(error, WatchError) and (error.code == HTTPStatus.GONE or self._broken + 1 >= MAX_STUCK):
            self._broken = 0
            yield _line(TOO_OLD)
        elif isinstance(error, WatchError) or lived < SHORTEST_WATCH:
            await rest(plural, error, min(FIRST_PAUSE * 2**self._broken, LONGEST_PAUSE), lived)
            self._broken += 1
        else:
            self._broken = 0


class _Body:
    """The body of an answer, of which kopf reads these chunks."""

    def __init__(self, content: aiohttp.StreamReader, chunks: AsyncIterator[bytes]) -> None:
        self._content = content
        self._chunks = chunks

    def iter_chunked(self, _: int) -> AsyncIterator[bytes]:
        return self._chunks

    def __getattr__(self, name: str) -> Any:
        return getattr(self._content, name)


def _line(event: Any) -> bytes:
    return json.dumps(event).encode() + b"\n"
