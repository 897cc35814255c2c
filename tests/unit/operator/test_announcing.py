"""Events are told beside the work, in their order, and there is an end to how many wait."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from types import SimpleNamespace

import pytest
from aiohttp import web
from kubernetes.client import Configuration

from finetune_operator.worlds.kube import announcing
from finetune_operator.worlds.kube.announcing import MOST_WAITING, WORTH_TELLING, Announcer
from finetune_operator.worlds.kube.client import Client, Object
from finetune_operator.worlds.protocol import Announcement, Key
from tests.unit.operator.api_server import ApiServer
from tests.unit.operator.waiting import until

KEY = Key("FineTuneJob", "ns", "demo")


@pytest.fixture
def server() -> ApiServer:
    return ApiServer({})


@pytest.fixture
async def announcer(server: ApiServer) -> AsyncIterator[Announcer]:
    configuration = Configuration()
    async with server.serving() as configuration.host, Client(configuration) as client:
        yield Announcer(client)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pauses, whatever the API server asks for."""
    monkeypatch.setattr(announcing, "FIRST_PAUSE", 0.01)
    monkeypatch.setattr(announcing, "LONGEST_PAUSE", 0.02)


def says(announcer: Announcer, *reasons: str, kind: str = "Normal") -> None:
    for reason in reasons:
        announcer.say(KEY, "uid", Announcement("Warning" if kind == "Warning" else "Normal", reason, "So it is."))


async def tells(announcer: Announcer) -> None:
    telling = asyncio.create_task(announcer.run())
    await announcer.all_told()
    telling.cancel()


def told(server: ApiServer) -> list[str]:
    return [body["reason"] for body in server.bodies]


async def test_nobody_waits_for_an_event_and_all_are_told_in_their_order(
    server: ApiServer, announcer: Announcer
) -> None:
    says(announcer, "A", "B", "C")
    assert server.bodies == []
    await tells(announcer)
    assert told(server) == ["A", "B", "C"]
    says(announcer, "D")
    await tells(announcer)
    assert told(server) == ["A", "B", "C", "D"]


async def test_with_nothing_to_tell_nobody_waits(announcer: Announcer) -> None:
    async with asyncio.timeout(20):
        await announcer.all_told()


async def test_an_event_that_is_refused_is_lost_and_the_next_one_told(
    server: ApiServer, announcer: Announcer, caplog: pytest.LogCaptureFixture
) -> None:
    server.conflicts = 1
    says(announcer, "A", "B")
    await tells(announcer)
    assert told(server) == ["A", "B"]  # the first one was answered with 409
    assert "An event of ns/demo could not be written" in caplog.text


async def test_beyond_its_end_old_ones_give_way_that_warn_of_nothing(
    server: ApiServer, announcer: Announcer, caplog: pytest.LogCaptureFixture
) -> None:
    says(announcer, "First", kind="Warning")
    says(announcer, *(f"N{number}" for number in range(MOST_WAITING)))
    says(announcer, "Last", kind="Warning")
    with caplog.at_level(logging.WARNING):
        await tells(announcer)
    found = told(server)
    assert len(found) == MOST_WAITING
    assert (found[0], found[1], found[-1]) == ("First", "N2", "Last")
    assert "2 events were not written: there were too many at once." in caplog.text


# ------------------------------------------------------------------------------------- an API server that is not at its best


def status(code: int, message: str = "no", reason: str = "", **details: object) -> web.Response:
    """A Status of the API server."""
    said = {"kind": "Status", "code": code, "message": message, "reason": reason, "details": details}
    return web.json_response(said, status=code)


class Moody:
    """Answers creations of events one after another as the test says, and then as usual."""

    def __init__(self, server: ApiServer, *answers: web.Response | float) -> None:
        self._answers = [*answers]
        self.tried: list[str] = []
        """Reasons, as they arrived."""
        self.taken: list[str] = []
        """Those that were answered as usual."""
        self.slow: set[str] = set()
        """Namespaces of which an event takes as good as for ever."""
        server.answer_write = self._answer

    async def _answer(self, request: web.Request, body: Object) -> web.Response | None:
        self.tried.append(body["reason"])
        if body["metadata"]["namespace"] in self.slow:
            await asyncio.sleep(60)
        answer = self._answers.pop(0) if self._answers else None
        if isinstance(answer, web.Response):
            return answer
        if answer is not None:  # the connection breaks, although all was done
            assert request.transport is not None
            request.transport.close()
        self.taken.append(body["reason"])
        return None


BUSY: dict[str, Callable[[], web.Response]] = {
    "429 with a time": lambda: web.json_response({"message": "too many"}, status=429, headers={"Retry-After": "1"}),
    "429 with a time in its words": lambda: status(429, retryAfterSeconds=1),
    "429 with nonsense": lambda: status(429, retryAfterSeconds="soon"),
    "500": lambda: status(500, 'failed calling webhook "x"'),
    "503 of a proxy": lambda: web.Response(status=503, text="<html>"),
}


@pytest.mark.parametrize("answer", BUSY)
async def test_what_a_busy_api_server_does_not_take_is_told_again_and_in_order(
    answer: str, server: ApiServer, announcer: Announcer, quick: None
) -> None:
    moody = Moody(server, BUSY[answer](), BUSY[answer]())
    says(announcer, "A", "B")
    await tells(announcer)
    assert moody.tried == ["A", "A", "A", "B"]
    assert moody.taken == ["A", "B"]


REFUSED: dict[str, Callable[[], web.Response]] = {
    "a quota of events": lambda: status(403, 'events "x" is forbidden: exceeded quota: few'),
    "no right": lambda: status(403, 'events.events.k8s.io is forbidden: User "u" cannot create resource "events"'),
    "a namespace that goes": lambda: status(403, "forbidden", causes=[{"reason": "NamespaceTerminating"}]),
    "no namespace": lambda: status(404, 'namespaces "ns" not found'),
    "a field": lambda: status(422, "note: too long"),
    "a conflict": lambda: status(409, "try again", "Conflict"),
}


@pytest.mark.parametrize("answer", REFUSED)
async def test_what_is_refused_is_lost_with_a_line_in_the_log(
    answer: str, server: ApiServer, announcer: Announcer, caplog: pytest.LogCaptureFixture
) -> None:
    moody = Moody(server, REFUSED[answer]())
    says(announcer, "A", "B")
    await tells(announcer)
    assert moody.tried == ["A", "B"]
    assert caplog.text.count("An event of ns/demo could not be written") == 1


async def test_what_was_told_although_the_answer_was_lost_is_not_told_twice_nor_taken_for_lost(
    server: ApiServer, announcer: Announcer, caplog: pytest.LogCaptureFixture, quick: None
) -> None:
    moody = Moody(server, 0.0, status(409, "already exists", "AlreadyExists"))
    says(announcer, "A", "B")
    await tells(announcer)
    assert moody.tried == ["A", "A", "B"]
    names = [body["metadata"]["name"] for body in server.bodies]
    assert names[0] == names[1] != names[2], "by this name the API server knows it"
    assert "could not be written" not in caplog.text


@pytest.mark.usefixtures("quick")
async def test_what_nobody_takes_for_minutes_is_lost(
    server: ApiServer, announcer: Announcer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    moody = Moody(server, *(status(500) for _ in range(2)))
    clock = SimpleNamespace(monotonic=lambda: 0.0 if len(moody.tried) < 2 else WORTH_TELLING + 1)
    monkeypatch.setattr(announcing, "time", clock)
    says(announcer, "A", "B")
    await tells(announcer)
    assert moody.tried == ["A", "A", "B"]
    assert caplog.text.count("could not be written") == 1


async def test_a_defect_loses_an_event_and_nothing_else(
    server: ApiServer, announcer: Announcer, caplog: pytest.LogCaptureFixture
) -> None:
    says(announcer, "A", "B")
    announcer._waiting["ns"][0].body["note"] = object()
    await tells(announcer)
    assert told(server) == ["B"]
    assert "An event of ns/demo could not be written." in caplog.text


async def test_a_namespace_in_which_events_take_long_holds_up_no_other(server: ApiServer, announcer: Announcer) -> None:
    moody = Moody(server)
    moody.slow = {"slow"}
    telling = asyncio.create_task(announcer.run())
    for number in range(20):
        announcer.say(Key("FineTuneJob", "slow", f"j{number}"), "uid", Announcement("Normal", "Slow", "…"))
    says(announcer, "A", "B")
    await until(lambda: moody.taken == ["A", "B"])
    assert moody.tried.count("Slow") == 1
    telling.cancel()


async def test_a_flood_in_one_namespace_is_lost_there_and_memory_has_an_end(
    server: ApiServer, announcer: Announcer, caplog: pytest.LogCaptureFixture
) -> None:
    says(announcer, "Quiet")
    flood = Key("FineTuneJob", "flood", "demo")
    for number in range(3 * MOST_WAITING):
        announcer.say(flood, "uid", Announcement("Normal" if number % 2 else "Warning", f"F{number}", "…"))
    assert sum(map(len, announcer._waiting.values())) == MOST_WAITING
    assert "events wait to be written: from now on old ones are not" in caplog.text
    await tells(announcer)
    reasons = told(server)
    assert "Quiet" in reasons
    numbers = [int(reason[1:]) for reason in reasons if reason != "Quiet"]
    assert numbers == sorted(numbers)
    assert numbers[-1] == 3 * MOST_WAITING - 1
    assert announcer._waiting == {}


async def test_who_is_about_to_end_tells_first_what_warns_of_something_and_rests_for_no_longer_than_it_has(
    server: ApiServer, announcer: Announcer
) -> None:
    moody = Moody(server, web.json_response({}, status=429, headers={"Retry-After": "30"}))
    telling = asyncio.create_task(announcer.run())
    says(announcer, "N1", "N2")
    says(announcer, "W1", kind="Warning")
    says(announcer, "N3")
    says(announcer, "W2", kind="Warning")
    await until(lambda: moody.tried)
    await asyncio.sleep(0.05)
    async with asyncio.timeout(20):
        await announcer.all_told(hurry=True)
    assert moody.taken == ["W1", "W2", "N1", "N2", "N3"]
    telling.cancel()
