"""Events are told beside the work, in their order, and there is an end to how many wait."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator

import pytest
from kubernetes.client import Configuration

from finetune_operator.worlds.kube.announcing import MOST_WAITING, Announcer
from finetune_operator.worlds.kube.client import Client
from finetune_operator.worlds.protocol import Announcement, Key
from tests.unit.operator.api_server import ApiServer

KEY = Key("FineTuneJob", "ns", "demo")


@pytest.fixture
def server() -> ApiServer:
    return ApiServer({})


@pytest.fixture
async def announcer(server: ApiServer) -> AsyncIterator[Announcer]:
    configuration = Configuration()
    async with server.serving() as configuration.host, Client(configuration) as client:
        yield Announcer(client)


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
    async with asyncio.timeout(1):
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
