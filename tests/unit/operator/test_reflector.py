"""The reflector against an API server that does what watches fear."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from aiohttp import web
from kubernetes.client import Configuration

from finetune_operator.worlds.kube import reflector as module
from finetune_operator.worlds.kube.client import Client, Object
from finetune_operator.worlds.kube.reflector import Child, Reflector
from finetune_operator.worlds.protocol import Key

GONE = {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old resource version"}


def thing(name: str, version: int, *, uid: str | None = None, fact: str = "") -> Object:
    return {
        "metadata": {"namespace": "ns", "name": name, "uid": uid or f"uid-{name}", "resourceVersion": str(version)},
        "fact": fact,
    }


class Server:
    """Lists `things`; each watch gets the events of one script, and then stays silent or ends."""

    def __init__(self) -> None:
        self.things: list[Object] = []
        self.later: list[Object] | None = None
        """What is there from the second list on, if something else."""
        self.version = 10
        self.scripts: list[list[Object]] = []
        self.asked_from: list[str] = []
        self.lists = 0
        self.tokens: list[str | None] = []
        self.end_watches = False
        self.refuse_lists = 0

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.tokens.append(request.headers.get("Authorization"))
        if request.query.get("watch") != "true":
            return self._list(request)
        self.asked_from.append(request.query["resourceVersion"])
        response = web.StreamResponse()
        await response.prepare(request)
        for event in self.scripts.pop(0) if self.scripts else []:
            await response.write(json.dumps(event).encode() + b"\n")
        if not self.end_watches:
            await asyncio.sleep(30)
        return response

    def _list(self, request: web.Request) -> web.Response:
        self.lists += 1
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
        return web.json_response({"items": page, "metadata": meta})


def read(obj: Object) -> Child[str] | None:
    if obj["fact"] == "not ours":
        return None
    meta = obj["metadata"]
    key = Key("FineTuneJob", "ns", meta["name"])
    return Child(job=key, owner="owner", uid=meta["uid"], version=int(meta["resourceVersion"]), fact=obj["fact"])


class Watching:
    """A reflector under way, and what it said."""

    def __init__(self, client: Client) -> None:
        self.changed: list[str] = []
        self.client = client
        self.reflector = Reflector(client, "/api/v1/things", "ours", read, lambda key: self.changed.append(key.name))

    def facts(self) -> list[str]:
        return sorted(child.fact for name in "abcd" for child in self.reflector.of(Key("FineTuneJob", "ns", name)))

    async def shows(self, *facts: str) -> None:
        async with asyncio.timeout(3):
            while self.facts() != sorted(facts):  # noqa: ASYNC110 (it announces keys, not states)
                await asyncio.sleep(0.01)


Start = Callable[[Server], Awaitable[Watching]]


@pytest.fixture
async def start(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Start]:
    monkeypatch.setattr(module, "FIRST_PAUSE", 0.01)
    async with contextlib.AsyncExitStack() as stack:

        async def begin(server: Server) -> Watching:
            app = web.Application()
            app.router.add_get("/api/v1/things", server.answer)
            runner = web.AppRunner(app, shutdown_timeout=0.1)
            await runner.setup()
            stack.push_async_callback(runner.cleanup)
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            configuration = Configuration()
            configuration.host = f"http://127.0.0.1:{runner.addresses[0][1]}"
            tokens = iter(range(1000))

            def rotate(changed: Configuration) -> None:
                changed.api_key["BearerToken"] = f"bearer token-{next(tokens)}"

            configuration.refresh_api_key_hook = rotate
            client = await stack.enter_async_context(Client(configuration))
            watching = Watching(client)
            task = asyncio.create_task(watching.reflector.run())
            stack.callback(task.cancel)
            return watching

        yield begin


async def test_it_lists_all_pages_and_follows_the_watch(start: Start) -> None:
    server = Server()
    server.things = [thing(name, 5, fact=name) for name in "abc"]
    server.scripts = [
        [{"type": "ADDED", "object": thing("d", 11, fact="d")}, {"type": "DELETED", "object": thing("a", 12)}]
    ]
    await (await start(server)).shows("b", "c", "d")


async def test_a_deletion_missed_while_the_watch_was_broken_is_found_by_the_next_list(start: Start) -> None:
    server = Server()
    server.things = [thing("a", 5, fact="a"), thing("b", 6, fact="b")]
    server.later = [thing("a", 5, fact="a")]
    server.scripts = [[{"type": "ERROR", "object": GONE}]]
    watching = await start(server)
    await watching.shows("a")
    assert watching.changed == ["a", "b", "b"]
    assert server.lists == 2


async def test_a_watch_that_ends_goes_on_from_its_last_bookmark_without_another_list(start: Start) -> None:
    server = Server()
    server.end_watches = True
    bookmark = {"metadata": {"resourceVersion": "77"}, "fact": ""}
    server.scripts = [[{"type": "BOOKMARK", "object": bookmark}]]
    watching = await start(server)
    async with asyncio.timeout(3):
        while len(server.asked_from) < 2:  # noqa: ASYNC110 (the server is a list)
            await asyncio.sleep(0.01)
    assert server.asked_from[:2] == ["10", "77"]
    assert server.lists == 1
    assert watching.client.heard.age("things") < 3


async def test_a_server_that_refuses_is_asked_again(start: Start) -> None:
    server = Server()
    server.refuse_lists = 2
    server.things = [thing("a", 5, fact="a")]
    await (await start(server)).shows("a")


async def test_own_writes_are_seen_at_once_and_older_news_of_them_is_ignored(start: Start) -> None:
    server = Server()
    server.things = [thing("a", 5, fact="old")]
    watching = await start(server)
    await watching.shows("old")
    watching.reflector.put(thing("a", 30, fact="new"))
    watching.reflector.put(thing("a", 20, fact="between"))
    assert watching.facts() == ["new"]


async def test_a_deleted_object_does_not_come_back_by_a_late_answer(start: Start) -> None:
    server = Server()
    server.things = [thing("a", 5, fact="a")]
    watching = await start(server)
    await watching.shows("a")
    watching.reflector.drop(thing("a", 9))
    watching.reflector.put(thing("a", 8, fact="late"))
    assert watching.facts() == []
    watching.reflector.put(thing("a", 12, uid="another", fact="again"))
    assert watching.facts() == ["again"]


async def test_news_that_states_the_same_facts_wakes_nobody(start: Start) -> None:
    server = Server()
    server.things = [thing("a", 5, fact="a")]
    watching = await start(server)
    await watching.shows("a")
    heard = len(watching.changed)
    watching.reflector.put(thing("a", 6, fact="a"))
    assert len(watching.changed) == heard


async def test_lines_longer_than_64_kib_are_read(start: Start) -> None:
    server = Server()
    long = "x" * 200_000
    server.scripts = [[{"type": "ADDED", "object": thing("a", 11, fact=long)}]]
    await (await start(server)).shows(long)


async def test_every_request_carries_the_token_of_that_moment(start: Start) -> None:
    server = Server()
    server.end_watches = True
    await (await start(server)).shows()
    async with asyncio.timeout(3):
        while len(server.tokens) < 3:  # noqa: ASYNC110 (the server is a list)
            await asyncio.sleep(0.01)
    assert server.tokens[:3] == ["bearer token-0", "bearer token-1", "bearer token-2"]
