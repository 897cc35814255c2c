"""What kopf gets to hear of a watch: whole events, and an end where anything else comes."""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator

import aiohttp
import pytest
from kubernetes.client import Configuration

from finetune_operator.worlds.kube import kopf_watch as module
from finetune_operator.worlds.kube.client import Client, Object
from finetune_operator.worlds.kube.kopf_watch import WatchOfKopf
from finetune_operator.worlds.kube.reflector import MAX_STUCK
from tests.unit.operator.api_server import GONE, ApiServer, Collection, thing
from tests.unit.operator.test_reflector import NO_EVENTS

ADDED = {"type": "ADDED", "object": thing("a", 11)}
PATH = "/api/v1/things"


class Kopf:
    """As much of it as reads a watch."""

    def __init__(self, client: Client, session: aiohttp.ClientSession) -> None:
        self.client = client
        self._session = session

    async def hears(self) -> list[Object]:
        """The events of one watch to its end."""
        query = {"watch": "true", "resourceVersion": "10"}
        async with self._session.get(self.client.server + PATH, params=query) as response:
            read = b"".join([chunk async for chunk in response.content.iter_chunked(1024)])
        return [json.loads(line) for line in read.splitlines()]


@pytest.fixture
def server() -> Collection:
    server = Collection()
    server.watch_seconds = 0.1
    return server


@pytest.fixture
async def kopf(server: Collection, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Kopf]:
    monkeypatch.setattr(module, "FIRST_PAUSE", 0.01)
    monkeypatch.setattr(module, "SHORTEST_WATCH", 0.05)
    configuration = Configuration()
    async with (
        ApiServer({PATH: server}).serving() as configuration.host,
        Client(configuration) as client,
        WatchOfKopf(client).new_session() as session,
    ):
        client.heard.begin("things")
        yield Kopf(client, session)


async def test_events_come_through_and_are_signs_of_life(
    server: Collection, kopf: Kopf, caplog: pytest.LogCaptureFixture
) -> None:
    bookmark = {"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": "77"}}}
    server.scripts = [[ADDED, bookmark]]
    assert await kopf.hears() == [ADDED, bookmark]
    assert kopf.client.heard.ever("things")
    assert caplog.messages == []


async def test_what_is_known_already_is_no_news_to_kopf_but_a_sign_of_life(server: Collection, kopf: Kopf) -> None:
    own, theirs = ({"type": "MODIFIED", "object": thing("a", version)} for version in (12, 13))
    server.scripts = [[ADDED, own, theirs, {"type": "DELETED", "object": thing("a", 12)}]]
    known = WatchOfKopf(kopf.client, lambda obj: bool(obj["metadata"]["resourceVersion"] == "12"))
    async with known.new_session() as session:
        heard = await Kopf(kopf.client, session).hears()
    assert [(event["type"], event["object"]["metadata"]["resourceVersion"]) for event in heard] == [
        ("ADDED", "11"),
        ("MODIFIED", "13"),
        ("DELETED", "12"),
    ]


@pytest.mark.parametrize("line", [*NO_EVENTS, '{"type": "ADDED", "obj'])
async def test_a_watch_ends_where_something_else_comes_and_kopf_goes_on_from_there(
    server: Collection, kopf: Kopf, line: str, caplog: pytest.LogCaptureFixture
) -> None:
    server.garbage = [f"{json.dumps(ADDED)}\n{line}\n"]
    assert await kopf.hears() == [ADDED]
    [said] = caplog.messages
    assert said.startswith("The watch of things broke (")


async def test_a_line_that_the_end_of_the_stream_cuts_is_not_heard(server: Collection, kopf: Kopf) -> None:
    server.garbage = [f'{json.dumps(ADDED)}\n{{"type": "ADDED", "obj']
    assert await kopf.hears() == [ADDED]


@pytest.mark.parametrize("shortest", [0.0, 60.0])
async def test_a_connection_that_breaks_is_an_end_too_and_worth_a_warning_only_at_once(
    server: Collection,
    kopf: Kopf,
    shortest: float,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(module, "SHORTEST_WATCH", shortest)
    server.scripts, server.cut_watches = [[ADDED]], 1
    assert await kopf.hears() == [ADDED]
    assert [record.levelno for record in caplog.records] == ([logging.WARNING] if shortest else [])


async def test_a_place_that_is_too_old_is_told_at_once(server: Collection, kopf: Kopf) -> None:
    server.garbage = [json.dumps({"type": "ERROR", "object": GONE}) + "\n"]
    assert await kopf.hears() == [module.TOO_OLD]


async def test_a_place_at_which_each_watch_breaks_is_told_to_be_too_old(server: Collection, kopf: Kopf) -> None:
    server.garbage = ["null\n"] * (MAX_STUCK + 1)
    heard = [await kopf.hears() for _ in range(MAX_STUCK + 1)]
    assert heard == [[]] * (MAX_STUCK - 1) + [[module.TOO_OLD], []]


async def test_a_refusal_reaches_kopf_as_it_is_and_shows_that_somebody_watches(server: Collection, kopf: Kopf) -> None:
    server.refuse_watches = [(503, {})]
    before = kopf.client.heard._answered["things"]
    [status] = await kopf.hears()
    assert status["code"] == 503
    assert kopf.client.heard._answered["things"] > before
