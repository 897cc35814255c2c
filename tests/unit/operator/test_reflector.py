"""The reflector against an API server that does what watches fear."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from kubernetes.client import Configuration

from finetune_operator.worlds.kube import reflector as module
from finetune_operator.worlds.kube.client import Client, Object
from finetune_operator.worlds.kube.reflector import Child, Reflector
from finetune_operator.worlds.protocol import Key
from tests.unit.operator.api_server import GONE, ApiServer, Collection, thing
from tests.unit.operator.waiting import until


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
        self.reflector = Reflector(
            client,
            "/api/v1/things",
            "ours",
            read,
            lambda key: self.changed.append(key.name),
            lambda fact: fact == "has ended",
        )

    def facts(self) -> list[str]:
        return sorted(child.fact for name in "abcd" for child in self.reflector.of(Key("FineTuneJob", "ns", name)))

    async def shows(self, *facts: str) -> None:
        await until(lambda: self.facts() == sorted(facts))


Start = Callable[[Collection], Awaitable[Watching]]


@pytest.fixture
async def start(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Start]:
    monkeypatch.setattr(module, "FIRST_PAUSE", 0.01)
    async with contextlib.AsyncExitStack() as stack:

        async def begin(server: Collection) -> Watching:
            configuration = Configuration()
            configuration.host = await stack.enter_async_context(ApiServer({"/api/v1/things": server}).serving())
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
    server = Collection()
    server.things = [thing(name, 5, fact=name) for name in "abc"]
    server.scripts = [
        [{"type": "ADDED", "object": thing("d", 11, fact="d")}, {"type": "DELETED", "object": thing("a", 12)}]
    ]
    await (await start(server)).shows("b", "c", "d")


async def test_a_deletion_missed_while_the_watch_was_broken_is_found_by_the_next_list(start: Start) -> None:
    server = Collection()
    server.things = [thing("a", 5, fact="a"), thing("b", 6, fact="b")]
    server.later = [thing("a", 5, fact="a")]
    server.scripts = [[{"type": "ERROR", "object": GONE}]]
    watching = await start(server)
    await watching.shows("a")
    assert watching.changed == ["a", "b", "b"]
    assert server.lists == 2


async def test_a_watch_that_ends_goes_on_from_its_last_bookmark_without_another_list(start: Start) -> None:
    server = Collection()
    server.watch_seconds = 0
    bookmark = {"metadata": {"resourceVersion": "77"}, "fact": ""}
    server.scripts = [[{"type": "BOOKMARK", "object": bookmark}]]
    await start(server)
    await until(lambda: len(server.asked_from) >= 2)
    assert server.asked_from[:2] == ["10", "77"]
    assert server.lists == 1


async def test_a_watch_that_falls_silent_is_opened_again(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SILENCE", 0.1)
    server = Collection()
    await start(server)
    await until(lambda: len(server.asked_from) >= 2)
    assert server.lists == 1


async def test_each_event_of_a_watch_shows_that_it_lives(start: Start) -> None:
    server = Collection()
    server.bookmark_seconds = 0.02
    watching = await start(server)
    await until(lambda: bool(server.asked_from))
    await asyncio.sleep(0.5)
    await until(lambda: watching.client.heard.age("things") < 0.3)
    assert len(server.asked_from) == 1


async def test_a_watch_that_is_only_listed_and_never_opened_is_unheard_of(start: Start) -> None:
    server = Collection()
    server.deaf = True
    watching = await start(server)
    await until(lambda: bool(server.asked_from))
    assert watching.reflector.synced.is_set()
    assert not watching.client.heard.ever("things")


async def test_watches_that_end_at_once_are_opened_with_growing_pauses(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FIRST_PAUSE", 0.05)
    server = Collection()
    server.watch_seconds = 0
    started = time.monotonic()
    await start(server)
    await until(lambda: len(server.asked_from) == 5)
    assert time.monotonic() - started >= 0.35, "0.05, 0.1, 0.2 and 0.4 s, or half of each"


async def test_the_first_410_is_followed_by_a_list_at_once_and_the_next_after_a_pause(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FIRST_PAUSE", 60)
    server = Collection()
    server.expired = True
    await start(server)
    await until(lambda: server.lists >= 2)
    await asyncio.sleep(0.15)
    assert server.lists == 2


async def test_410_after_410_is_followed_by_list_after_list(start: Start) -> None:
    server = Collection()
    server.expired = True
    await start(server)
    await until(lambda: server.lists >= 4)


async def test_a_watch_that_has_lived_forgets_earlier_trouble(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FIRST_PAUSE", 60)
    monkeypatch.setattr(module, "SHORTEST_WATCH", 0)
    server = Collection()
    server.scripts = [[{"type": "ERROR", "object": GONE}] for _ in range(3)]
    await start(server)
    await until(lambda: server.lists >= 4)


NO_EVENTS = [
    "<html>busy</html>",
    "[]",
    "null",
    "{}",
    '{"type": "MODIFIED", "object": {"metadata": {"name": "a", "resour',
    '{"type": "MODIFIED"}',
    '{"type": "MODIFIED", "object": {"metadata": {}}}',
    '{"type": "ERROR", "object": {}}',
    '{"type": "ERROR", "object": {"code": 500, "message": "no leader"}}',
    '{"type": "ERROR", "object": {"code": 429}}',
    '{"type": "ERROR", "object": {"code": 504}}',
]


def refused(code: int) -> Callable[[Collection], None]:
    return lambda server: server.refuse_watches.append((code, {}))


def brings(line: str) -> Callable[[Collection], None]:
    return lambda server: server.garbage.append(line)


def is_cut(server: Collection) -> None:
    server.cut_watches = 1


TROUBLES = [
    *(pytest.param(refused(code), id=str(code)) for code in (401, 403, 404, 429, 500, 502, 503, 504)),
    *(pytest.param(brings(f"{line}\n"), id=line) for line in NO_EVENTS),
    pytest.param(is_cut, id="connection reset"),
]


@pytest.mark.parametrize("happens", TROUBLES)
async def test_after_any_trouble_but_410_a_watch_goes_on_from_where_it_was_without_another_list(
    start: Start, happens: Callable[[Collection], None]
) -> None:
    server = Collection()
    server.things = [thing("a", 5, fact="a")]
    server.watch_seconds = 0.02
    server.scripts = [[{"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": "77"}}}]]
    watching = await start(server)
    await until(lambda: "77" in server.asked_from)
    happens(server)
    asked = len(server.asked_from)
    server.scripts = [[], [{"type": "ADDED", "object": thing("b", 78, fact="b")}]]
    await watching.shows("a", "b")
    assert set(server.asked_from[asked:]) <= {"77", "78"}
    assert server.lists == 1


async def test_a_watch_that_breaks_again_and_again_at_one_place_is_got_past_by_a_list(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where an object cannot be decoded."""
    monkeypatch.setattr(module, "LONGEST_PAUSE", 0.02)
    server = Collection()
    server.garbage = ['{"type": "ERROR", "object": {"code": 500}}\n'] * module.MAX_STUCK
    server.later = [thing("a", 9, fact="a")]
    await (await start(server)).shows("a")
    assert (server.lists, len(server.garbage)) == (2, 0)


@pytest.mark.parametrize(
    "asks",
    [
        {"Retry-After": "1"},
        {"Retry-After": "Thu, 01 Jan 2026 12:00:01 GMT", "Date": "Thu, 01 Jan 2026 12:00:00 GMT"},
    ],
)
async def test_a_server_that_asks_to_be_left_alone_is(start: Start, asks: dict[str, str]) -> None:
    server = Collection()
    server.refuse_watches = [(429, asks)]
    began = time.monotonic()
    await start(server)
    await until(lambda: len(server.asked_from) == 2)
    assert time.monotonic() - began >= 1


async def test_a_watch_without_anything_to_tell_is_opened_again_without_a_warning(
    start: Start, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Its server may send no bookmarks, close it after a while, or have a load balancer before it that cuts it."""
    monkeypatch.setattr(module, "SHORTEST_WATCH", 0.05)
    monkeypatch.setattr(module, "LONG_WATCH", 0.05)
    monkeypatch.setattr(module, "SILENCE", 0.1)
    server = Collection()
    await start(server)
    await until(lambda: len(server.asked_from) >= 3)
    server.watch_seconds = 0.06
    await until(lambda: len(server.asked_from) >= 6)
    server.cut_after = 0.06
    server.cut_watches = 2
    await until(lambda: server.cut_watches == 0 and len(server.asked_from) >= 9)
    assert [line for line in caplog.records if line.levelno >= logging.WARNING] == []


async def test_a_list_that_is_no_json_is_asked_for_again(start: Start) -> None:
    server = Collection()
    server.bad_lists = ["<html>busy</html>", "[]", "null", "{}", '{"items": []}', '{"items": [], "metadata": {}}']
    server.things = [thing("a", 5, fact="a")]
    await (await start(server)).shows("a")
    assert server.lists == 7


async def test_a_server_that_refuses_is_asked_again(start: Start) -> None:
    server = Collection()
    server.refuse_lists = 2
    server.things = [thing("a", 5, fact="a")]
    await (await start(server)).shows("a")


async def test_own_writes_are_seen_at_once_and_older_news_of_them_is_ignored(start: Start) -> None:
    server = Collection()
    server.things = [thing("a", 5, fact="old")]
    watching = await start(server)
    await watching.shows("old")
    watching.reflector.put(thing("a", 30, fact="new"))
    watching.reflector.put(thing("a", 20, fact="between"))
    assert watching.facts() == ["new"]


async def test_a_deleted_object_does_not_come_back_by_a_late_answer(start: Start) -> None:
    server = Collection()
    server.things = [thing("a", 5, fact="a")]
    watching = await start(server)
    await watching.shows("a")
    watching.reflector.drop(thing("a", 9))
    watching.reflector.put(thing("a", 8, fact="late"))
    watching.reflector.put(thing("a", 9, fact="late"))
    assert watching.facts() == []
    watching.reflector.put(thing("a", 12, uid="another", fact="again"))
    assert watching.facts() == ["again"]


async def test_an_object_whose_label_is_removed_and_put_back_is_seen_again(start: Start) -> None:
    """A watch by label calls that a deletion, of the version that the change has made."""
    server = Collection()
    server.things = [thing("a", 5, fact="a")]
    server.scripts = [
        [{"type": "DELETED", "object": thing("a", 11)}, {"type": "ADDED", "object": thing("a", 12, fact="back")}]
    ]
    await (await start(server)).shows("back")


async def test_the_last_words_of_a_deleted_object_are_shown_until_they_were_taken_in(start: Start) -> None:
    """An end and a deletion may come so fast that nobody looks between them."""
    watching, key = await start(Collection()), Key("FineTuneJob", "ns", "b")
    watching.reflector.put(thing("a", 20, fact="runs"))
    watching.reflector.drop(thing("a", 21))
    assert watching.facts() == []
    watching.reflector.put(thing("b", 22, fact="has ended"))
    watching.reflector.drop(thing("b", 23))
    assert watching.facts() == watching.facts() == ["has ended"]
    watching.reflector.put(thing("b", 24, uid="next", fact="has ended"))
    watching.reflector.drop(thing("b", 25, uid="next"))
    watching.reflector.forget_parted(key)  # what was never shown stays
    assert watching.facts() == ["has ended"]
    watching.reflector.forget_parted(key)
    assert watching.facts() == []
    assert not watching.reflector._parted
    assert not watching.reflector._shown


async def test_last_words_that_another_operator_hears_are_kept_for_a_while_only(start: Start) -> None:
    watching = await start(Collection())
    for version in (20, 22):
        watching.reflector.put(thing("b", version, uid=str(version), fact="has ended"))
        watching.reflector.drop(thing("b", version + 1, uid=str(version)))
        between = time.monotonic()
        await asyncio.sleep(0.01)
        watching.reflector.forget_parted_before(between - 60)
    assert watching.facts() == ["has ended", "has ended"]
    watching.reflector.forget_parted_before(between)
    assert not watching.reflector._parted
    assert watching.facts() == []


async def test_the_last_words_of_an_object_whose_deletion_was_missed_are_shown_too(start: Start) -> None:
    server = Collection()
    server.things = [thing("a", 5, fact="has ended")]
    server.later = []
    server.scripts = [[{"type": "ERROR", "object": GONE}]]
    watching, key = await start(server), Key("FineTuneJob", "ns", "a")
    await until(
        lambda: key in watching.reflector._parted
    )  # the second list is taken in; until then it is there as ever
    await watching.shows("has ended")
    watching.reflector.forget_parted(key)
    assert watching.facts() == []


async def test_what_a_list_no_longer_shows_does_not_come_back_by_a_late_answer(start: Start) -> None:
    server = Collection()
    server.things = [thing("a", 5, fact="a")]
    server.later = []
    server.scripts = [[{"type": "ERROR", "object": GONE}]]
    watching = await start(server)
    await until(lambda: server.lists == 2)
    await watching.shows()
    watching.reflector.put(thing("a", 10, fact="late"))
    assert watching.facts() == []
    watching.reflector.put(thing("a", 11, fact="back"))
    assert watching.facts() == ["back"]


async def test_removals_are_not_remembered_without_end(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "REMEMBERED_REMOVALS", 2)
    watching = await start(Collection())
    for version in range(20, 30):
        watching.reflector.drop(thing(f"t{version}", version))
    watching.reflector.drop(thing("t28", 40))
    watching.reflector.drop(thing("t30", 41))
    assert watching.reflector._removed == {"uid-t28": 40, "uid-t30": 41}


async def test_news_that_states_the_same_facts_wakes_nobody(start: Start) -> None:
    server = Collection()
    server.things = [thing("a", 5, fact="a")]
    watching = await start(server)
    await watching.shows("a")
    heard = len(watching.changed)
    watching.reflector.put(thing("a", 6, fact="a"))
    assert len(watching.changed) == heard


async def test_lines_longer_than_64_kib_are_read(start: Start) -> None:
    server = Collection()
    long = "x" * 200_000
    server.scripts = [[{"type": "ADDED", "object": thing("a", 11, fact=long)}]]
    await (await start(server)).shows(long)


async def test_every_request_carries_the_token_of_that_moment(start: Start) -> None:
    server = Collection()
    server.watch_seconds = 0
    await (await start(server)).shows()
    await until(lambda: len(server.tokens) >= 3)
    assert server.tokens[:3] == ["bearer token-0", "bearer token-1", "bearer token-2"]
