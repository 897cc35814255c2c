"""The stand-in for an API server that does what watches fear, which a real one does not do when asked.

things = Collection([thing("a", 5)])
async with ApiServer({"/api/v1/things": things}).serving() as url:
    …
"""

from __future__ import annotations

import asyncio
import copy
import json
import ssl
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from typing import Any

from aiohttp import web

from finetune_api import GROUP, KIND, PLURAL, VERSION
from finetune_operator.worlds.kube.client import Object
from tests.unit.operator.story import SPEC

GONE = {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old resource version"}


def thing(name: str, version: int, *, uid: str | None = None, fact: str = "") -> Object:
    return {
        "metadata": {"namespace": "ns", "name": name, "uid": uid or f"uid-{name}", "resourceVersion": str(version)},
        "fact": fact,
    }


def finetunejob(**spec: Any) -> dict[str, Any]:
    meta = {"name": "demo", "namespace": "ns", "uid": "uid", "generation": 1, "resourceVersion": "5"}
    return {"apiVersion": "finetune.dev/v1alpha1", "kind": "FineTuneJob", "metadata": meta, "spec": {**SPEC, **spec}}


class Collection:
    """Lists `things`; each watch gets the events of one script, and then stays silent or ends."""

    def __init__(self, *things: Object) -> None:
        self.things = [*things]
        self.later: list[Object] | None = None
        """What is there from the second list on, if something else."""
        self.version = 10
        self.scripts: list[list[Object]] = []
        self.bookmark_seconds: float | None = None
        """Pause between the bookmarks of a watch that stays; None: it stays silent."""
        self.watch_seconds = 30.0
        self.expired = False
        """Whether every watch is answered with 410."""
        self.refuse_watches: list[tuple[int, dict[str, str]]] = []
        """Codes and headers that the next watches are answered with."""
        self.cut_watches = 0
        """How many watches lose their connection once they have brought their events."""
        self.cut_after = 0.0
        self.deaf = False
        """Whether watches get no answer at all, not even a status line."""
        self.garbage: list[str] = []
        """What the next watches bring instead of events."""
        self.bad_lists: list[str] = []
        """What the next lists bring instead of one."""
        self.refuse_lists = 0
        self.drop_lists = 0
        """How many lists lose their connection before the answer."""
        self.asked_from: list[str] = []
        self.lists = 0
        self.tokens: list[str | None] = []

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.tokens.append(request.headers.get("Authorization"))
        if request.query.get("watch") != "true":
            return self._list(request)
        self.asked_from.append(request.query["resourceVersion"])
        while self.deaf:  # noqa: ASYNC110 (the flag is set by another thread)
            await asyncio.sleep(0.02)
        if self.expired:
            return web.json_response(GONE, status=410)
        if self.refuse_watches:
            code, headers = self.refuse_watches.pop(0)
            return web.json_response(
                {"kind": "Status", "code": code, "message": "not now"}, status=code, headers=headers
            )
        response = web.StreamResponse()
        await response.prepare(request)
        if self.garbage:
            await response.write(self.garbage.pop(0).encode())
        for event in self.scripts.pop(0) if self.scripts else []:
            await response.write(json.dumps(event).encode() + b"\n")
        if self.cut_watches:
            self.cut_watches -= 1
            await asyncio.sleep(self.cut_after)
            assert request.transport is not None
            request.transport.close()
            return response
        await self._stay(response)
        return response

    async def _stay(self, response: web.StreamResponse) -> None:
        if self.bookmark_seconds is None:
            await asyncio.sleep(self.watch_seconds)
            return
        for _ in range(round(self.watch_seconds / self.bookmark_seconds)):
            await asyncio.sleep(self.bookmark_seconds)
            event = {"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": str(self.version)}}}
            await response.write(json.dumps(event).encode() + b"\n")

    def _list(self, request: web.Request) -> web.Response:
        self.lists += 1
        if self.drop_lists:
            self.drop_lists -= 1
            assert request.transport is not None
            request.transport.close()
            return web.Response()
        if self.bad_lists:
            return web.Response(text=self.bad_lists.pop(0))
        if self.refuse_lists:
            self.refuse_lists -= 1
            return web.json_response({"message": "try later"}, status=503)
        if self.lists > 1 and self.later is not None:
            self.things = self.later
        start = int(request.query.get("continue", "0"))
        page = self.things[start : start + 2]
        meta: dict[str, Any] = {"resourceVersion": str(self.version)}
        if start + 2 < len(self.things):
            meta["continue"] = str(start + 2)
        return web.json_response({"kind": "ThingList", "apiVersion": "v1", "items": page, "metadata": meta})


class ApiServer:
    """Collections by their paths. A patch is kept, a creation is only answered as if it were."""

    def __init__(self, collections: dict[str, Collection]) -> None:
        self.collections = collections
        self.knows_finetunejobs = True
        self.away = False
        """Whether every connection is closed without an answer."""
        self.breaks_at: set[str] = set()
        """Kinds whose writes lose their connection before the answer."""
        self.refusals: dict[str, tuple[int, Object | str]] = {}
        """By method and kind, what writes are answered with instead: a code, and a Status or whatever a proxy says."""
        self.answer_write: Callable[[web.Request, Object], Awaitable[web.Response | None]] = _as_usual
        """What a write is answered with instead, by the test's own rules; None: as usual."""
        self.conflicts = 0
        """How many writes are answered with 409, as if somebody else had just written."""
        self.writes: list[str] = []
        """Method and kind of each, as it arrives."""
        self.bodies: list[Object] = []
        """Theirs."""

    @asynccontextmanager
    async def serving(self, context: ssl.SSLContext | None = None) -> AsyncIterator[str]:
        """Its address; with a context by HTTPS."""
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._answer)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
            yield f"{'https' if context else 'http'}://127.0.0.1:{runner.addresses[0][1]}"
        finally:
            await runner.cleanup()

    @contextmanager
    def serving_in_a_thread(self) -> Iterator[str]:
        """For tests that wait for processes."""
        started, url = threading.Event(), ""
        stop: Callable[[], object]

        async def serve() -> None:
            nonlocal url, stop
            done, loop = asyncio.Event(), asyncio.get_running_loop()
            async with self.serving() as url:
                stop = partial(loop.call_soon_threadsafe, done.set)
                started.set()
                await done.wait()

        thread = threading.Thread(target=asyncio.run, args=(serve(),))
        thread.start()
        try:
            assert started.wait(60)
            yield url
        finally:
            stop()
            thread.join()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        if self.away:
            assert request.transport is not None
            request.transport.close()
            return web.Response()
        ours = request.path.startswith(f"/apis/{GROUP}/")
        if ours and not self.knows_finetunejobs:
            return web.json_response({"kind": "Status", "code": 404, "message": "page not found"}, status=404)
        if request.method != "GET":
            return await self._write(request)
        if collection := self.collections.get(request.path):
            return await collection.answer(request)
        return web.json_response(self._discovery(request.path))

    async def _write(self, request: web.Request) -> web.Response:
        parts = request.path.removesuffix("/status").split("/")
        plural, name = (parts[-1], "") if request.method == "POST" else (parts[-2], parts[-1])
        self.writes.append(f"{request.method} {plural}")
        body = await request.json()
        self.bodies.append(copy.deepcopy(body))
        if (answer := await self.answer_write(request, body)) is not None:
            return answer
        if plural in self.breaks_at:
            assert request.transport is not None
            request.transport.close()
        if refusal := self.refusals.get(f"{request.method} {plural}"):
            code, said = refusal
            return web.Response(status=code, text=said if isinstance(said, str) else json.dumps(said))
        if self.conflicts:
            self.conflicts -= 1
            return web.json_response(
                {"kind": "Status", "code": 409, "reason": "Conflict", "message": "modified"}, status=409
            )
        if request.method == "POST":
            known = {"metadata": {"uid": "uid", "creationTimestamp": "2026-01-01T00:00:00Z"}}
        else:
            things = next(c.things for path, c in self.collections.items() if path.endswith(f"/{plural}"))
            known = next(thing for thing in things if thing["metadata"]["name"] == name)
        version = {"resourceVersion": str(100 + len(self.writes))}
        status = (known.get("status") or {}) | body.pop("status", {})
        body["status"] = {name: value for name, value in status.items() if value is not None}
        known.update(body | {"metadata": body["metadata"] | known["metadata"] | version})
        return web.json_response(known)

    def _discovery(self, path: str) -> Object:
        """What kopf looks for before it watches."""
        groups = [("apiextensions.k8s.io", "v1"), *([(GROUP, VERSION)] if self.knows_finetunejobs else [])]
        match path:
            case "/api":
                return {"versions": ["v1"]}
            case "/api/v1":
                return {"resources": [_resource("namespaces", "Namespace")]}
            case "/apis":
                return {"groups": [_group(*group) for group in groups]}
            case "/apis/apiextensions.k8s.io/v1":
                return {"resources": [_resource("customresourcedefinitions", "CustomResourceDefinition")]}
            case _:
                return {"resources": [_resource(PLURAL, KIND)]}


async def _as_usual(request: web.Request, body: Object) -> web.Response | None:
    return None


def _group(name: str, version: str) -> Object:
    served = {"groupVersion": f"{name}/{version}", "version": version}
    return {"name": name, "versions": [served], "preferredVersion": served}


def _resource(plural: str, kind: str) -> Object:
    verbs = ["get", "list", "watch", "patch"]
    return {"name": plural, "singularName": kind.lower(), "kind": kind, "namespaced": True, "verbs": verbs}
