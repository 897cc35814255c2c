"""Where trainers tell how far they are: who is heard, and what comes of everybody else."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import ssl
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from finetune_api.progress import Progress
from finetune_operator.worlds.kube import progress_server
from finetune_operator.worlds.kube.bearer import AUDIENCE, Pod, TooManyReviews, claimed
from finetune_operator.worlds.kube.leadership import Alone
from finetune_operator.worlds.kube.progress_server import LONGEST_BODY, ProgressServer
from finetune_operator.worlds.kube.relay import Relay
from finetune_operator.worlds.protocol import Key
from tests.cluster.certificates import CertificateAuthority

KEY = Key("FineTuneJob", "ns", "demo")
POD = Pod("ns", "demo-r-x", "uid-1")


def token(pod: Pod = POD, audience: Any = (AUDIENCE,), **changes: Any) -> str:
    about = {"namespace": pod.namespace, "pod": {"name": pod.name, "uid": pod.uid}}
    claims = {"aud": [*audience], "kubernetes.io": about} | changes
    return f"e30.{base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip('=')}.c2ln"


def body(**status: Any) -> bytes:
    metrics = [{"name": "current_step", "value": "4"}, {"name": "total_steps", "value": "10"}]
    whole = {"lastUpdatedTime": "2026-01-01T00:00:00+00:00", "progressPercentage": 40, "metrics": metrics} | status
    return json.dumps({"trainerStatus": whole}).encode()


class Place:
    """A server, and all that is known around it."""

    def __init__(self, folder: Path) -> None:
        self.attempts = {POD: KEY}
        self.genuine: dict[str, Pod] = {token(): POD}
        self.busy = False
        self.reviews = 0
        self.heard: list[tuple[Key, str, Progress]] = []
        self.results: Counter[str] = Counter()
        authority = CertificateAuthority(folder)
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(*authority.issue("server", "server", addresses=["localhost"]))
        self.trust = ssl.create_default_context(cafile=str(authority.certificate))
        self.port = 0

    # What the server asks.

    def attempt_of(self, namespace: str, pod: str, uid: str) -> Key | None:
        return self.attempts.get(Pod(namespace, pod, uid))

    def hear(self, key: Key, attempt: str, progress: Progress) -> None:
        self.heard.append((key, attempt, progress))

    async def pod_of(self, token: str) -> Pod | None:
        self.reviews += 1
        if self.busy:
            raise TooManyReviews
        return self.genuine.get(token)

    # What others do.

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.port, ssl=self.trust, server_hostname="localhost")

    async def post(
        self, content: bytes, shown: str | None = None, *, path: str = "/progress", method: str = "POST"
    ) -> int:
        reader, writer = await self.connect()
        authorization = f"Bearer {token()}" if shown is None else shown
        head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: {authorization}\r\nContent-Length: {len(content)}"
        writer.write(f"{head}\r\n\r\n".encode() + content)
        answer = await reader.read()
        writer.close()
        return int(answer.split()[1])


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    place = Place(tmp_path)
    relay = Relay(place, Alone(), "localhost", "/progress")
    server = ProgressServer(place, place, relay, lambda result: place.results.update([result]))  # type: ignore[arg-type]
    async with server.serving("127.0.0.1", 0, place.context) as place.port:
        yield place


async def test_a_pod_is_heard_as_itself(place: Place) -> None:
    assert await place.post(body()) == 200
    [(key, attempt, progress)] = place.heard
    assert (key, attempt, progress.numbers()) == (KEY, "demo-r-x", {"step": 4, "total_steps": 10})
    assert place.results == {"accepted": 1}


@pytest.mark.parametrize(
    ("shown", "status"),
    [
        ("", 401),
        ("Basic eA==", 401),
        (f"Bearer {token(audience=['https://kubernetes.default.svc'])}", 401),
        (f"Bearer {token(**{'kubernetes.io': {'namespace': 'ns'}})}", 401),
        (f"Bearer {token(aud=AUDIENCE + '/other')}", 401),
        ("Bearer a.b.c", 401),
        ("Bearer a", 401),
        (f"Bearer {token(Pod('ns', 'stranger', 'uid-2'))}", 403),
        (f"Bearer {token(Pod('other', 'demo-r-x', 'uid-1'))}", 403),
        (f"Bearer {token(Pod('ns', 'demo-r-x', 'uid-of-an-earlier-pod'))}", 403),
    ],
)
async def test_strangers_are_refused_without_a_question_to_the_api_server(
    place: Place, shown: str, status: int
) -> None:
    assert await place.post(body(), shown) == status
    assert (place.heard, place.reviews) == ([], 0)
    assert place.results == {"unauthorized" if status == 401 else "forbidden": 1}


async def test_a_token_that_only_says_whose_it_is_is_refused(place: Place) -> None:
    assert await place.post(body(), f"Bearer {token()}x") == 401
    place.genuine[token(exp=1)] = Pod("ns", "another", "uid-3")
    assert await place.post(body(), f"Bearer {token(exp=1)}") == 401
    assert (place.heard, place.reviews) == ([], 2)


async def test_a_pod_that_ends_while_its_token_is_asked_about_is_refused(place: Place) -> None:
    async def pod_of(_: str) -> Pod:
        place.attempts.clear()
        return POD

    place.pod_of = pod_of  # type: ignore[assignment,method-assign]
    assert await place.post(body()) == 403


async def test_where_the_api_server_is_not_to_be_asked_the_trainer_may_try_again(place: Place) -> None:
    place.busy = True
    assert await place.post(body()) == 503
    assert place.results == {"unavailable": 1}


@pytest.mark.parametrize(
    "value", [None, 7, 1.5, "x" * 5000, [], {}, [7], {"a": {}}, [[]] * 100, "9" * 5000], ids=lambda v: str(v)[:20]
)
@pytest.mark.parametrize(
    "field", ["phase", "message", "trainerStatus", "progressPercentage", "metrics", "value", "name"]
)
async def test_whatever_is_in_a_field_has_an_answer_and_breaks_nothing(
    place: Place, field: str, value: Any, caplog: pytest.LogCaptureFixture
) -> None:
    said = json.loads(body()) | {"phase": "Training"}
    if field in ("progressPercentage", "metrics"):
        said["trainerStatus"][field] = value
    elif field in ("value", "name"):
        said["trainerStatus"]["metrics"][0][field] = value
    else:
        said[field] = value
    assert await place.post(json.dumps(said).encode()) in (200, 400)
    assert caplog.messages == []


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{}",
        b"[" * 10_000,
        b"\xff",
        body(progressPercentage=101),
        body(progressPercentage=-1),
        body(progressPercentage=1e400),
        body(progressPercentage="most"),
        body(estimatedRemainingSeconds=-5),
        body(lastUpdatedTime="yesterday"),
        body(metrics=[{"name": "current_step", "value": "11"}, {"name": "total_steps", "value": "10"}]),
        body(metrics=[{"name": "step", "value": "-1"}]),
        body(metrics={"step": 1}),
    ],
    ids=lambda content: content[:60].decode(errors="replace"),
)
async def test_what_is_no_progress_is_refused_and_counted(place: Place, content: bytes) -> None:
    assert await place.post(content) == 400
    assert (place.heard, place.results) == ([], {"malformed": 1})


async def test_64_kib_are_heard_and_one_byte_more_is_not(place: Place) -> None:
    assert await place.post(body().ljust(LONGEST_BODY)) == 200
    assert await place.post(body().ljust(LONGEST_BODY + 1)) == 413
    assert place.results == {"accepted": 1, "too_large": 1}


async def test_a_body_of_unknown_length_is_read_no_further_than_that(place: Place) -> None:
    reader, writer = await place.connect()
    head = (
        f"POST /progress HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {token()}\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    writer.write(head.encode())
    chunk = b"8000\r\n" + b" " * 0x8000 + b"\r\n"
    writer.write(3 * chunk)
    assert int((await reader.readline()).split()[1]) == 413
    writer.close()
    assert place.heard == []


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/progress"), ("POST", "/"), ("POST", "/metrics"), ("PUT", "/progress")]
)
async def test_nothing_else_is_served(place: Place, method: str, path: str) -> None:
    assert await place.post(body(), method=method, path=path) == 404


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"POST /progress HTTP/1.1\r\nHost: h\r\n",
        f"POST /progress HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {token()}\r\nContent-Length: 9\r\n\r\n{{".encode(),
    ],
    ids=["nothing", "half a head", "half a body"],
)
async def test_slow_senders_are_given_up(place: Place, sent: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress_server, "SECONDS", 0.2)
    reader, writer = await place.connect()
    writer.write(sent)
    async with asyncio.timeout(20):
        await _until_closed(reader)
    writer.close()
    assert place.results == {"slow": 1}


async def test_an_address_has_only_so_many_connections(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress_server, "CONNECTIONS_PER_ADDRESS", 3)
    open_ones = [await place.connect() for _ in range(3)]
    reader, writer = await place.connect()
    async with asyncio.timeout(20):
        await _until_closed(reader)
    writer.close()
    assert place.results == {"crowded": 1}
    for _, other in open_ones:
        other.close()
    async with asyncio.timeout(20):
        while not place.heard:
            try:
                await place.post(body())
            except (OSError, IndexError):
                await asyncio.sleep(0.05)


async def _until_closed(reader: asyncio.StreamReader) -> None:
    with contextlib.suppress(OSError):
        await reader.read()


def test_what_a_token_says_is_read_whoever_wrote_it() -> None:
    assert claimed(token()) == POD
    for odd in ("", ".", "a.W10.c", "a.bnVsbA.c", "a." + "Ww" * 5000 + ".c", token(Pod("ns", 7, "u"))):  # type: ignore[arg-type]
        assert claimed(odd) is None
