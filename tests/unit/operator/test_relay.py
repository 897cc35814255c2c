"""Reports that reach a replica which does not lead come to the one that does, once, and to nobody who only says so."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from finetune_operator.worlds.kube import relay as module
from finetune_operator.worlds.kube.bearer import Pod
from finetune_operator.worlds.kube.progress_server import ProgressServer
from finetune_operator.worlds.kube.relay import Relay
from tests.cluster.certificates import CertificateAuthority
from tests.unit.operator.test_progress_server import KEY, POD, Place, body, token


class Seat:
    """What a replica knows of who leads."""

    def __init__(self) -> None:
        self.elected = asyncio.Event()
        self.leader = ""


class Replica(Place):
    def __init__(self, folder: Path, authority: CertificateAuthority, host: str = "localhost") -> None:
        own = folder / f"replica-{id(self)}"
        own.mkdir()
        super().__init__(own)
        self.seat = Seat()
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(*authority.issue(f"server-{id(self)}", "server", addresses=[host]))
        self.trust = ssl.create_default_context(cafile=str(authority.certificate))
        self.relay = Relay(self, self.seat, "localhost", "/progress")  # type: ignore[arg-type]
        self.relay.trust(authority.certificate.read_text())
        self.server = ProgressServer(self, self, self.relay, lambda result: self.results.update([result]))  # type: ignore[arg-type]

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def heard_steps(self) -> list[float]:
        return [progress.numbers()["step"] for _, _, progress in self.heard]

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator[Replica]:
        async with self.relay, self.server.serving("127.0.0.1", 0, self.context) as self.port:
            yield self


@pytest.fixture
async def authority(tmp_path: Path) -> CertificateAuthority:
    return CertificateAuthority(tmp_path)


@pytest.fixture
async def leader(tmp_path: Path, authority: CertificateAuthority) -> AsyncIterator[Replica]:
    async with Replica(tmp_path, authority).serving() as replica:
        replica.seat.elected.set()
        yield replica


@pytest.fixture
async def follower(tmp_path: Path, authority: CertificateAuthority) -> AsyncIterator[Replica]:
    async with Replica(tmp_path, authority).serving() as replica:
        yield replica


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also with a machine that stands still for a while."""
    monkeypatch.setattr(module, "PATIENCE", 20.0)
    monkeypatch.setattr(module, "TRY_SECONDS", 20.0)


@pytest.fixture
def hurry(patience: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PATIENCE", 0.5)
    monkeypatch.setattr(module, "PAUSE", 0.05)


async def test_a_report_is_heard_by_the_leader_alone_whoever_it_came_to(leader: Replica, follower: Replica) -> None:
    follower.seat.leader = leader.address
    assert await follower.post(body()) == 200
    assert [(key, attempt) for key, attempt, _ in leader.heard] == [(KEY, POD.name)]
    assert (leader.heard_steps(), follower.heard) == ([4], [])
    assert (leader.results, follower.results) == ({"accepted": 1}, {"relayed": 1})
    assert leader.reviews == 1  # it asks itself whose token that is


async def test_a_leader_that_is_not_known_yet_is_waited_for(leader: Replica, follower: Replica) -> None:
    posting = asyncio.create_task(follower.post(body()))
    await asyncio.sleep(0.5)
    follower.seat.leader = leader.address
    assert await posting == 200
    assert leader.heard_steps() == [4]


async def test_while_the_dead_leader_is_still_called_so_another_one_is_waited_for(
    leader: Replica, follower: Replica
) -> None:
    follower.seat.leader = "127.0.0.1:1"
    posting = asyncio.create_task(follower.post(body()))
    await asyncio.sleep(0.5)
    follower.seat.leader = leader.address
    assert await posting == 200
    assert leader.heard_steps() == [4]


async def test_a_replica_that_comes_to_lead_hears_what_waits(follower: Replica) -> None:
    posting = asyncio.create_task(follower.post(body()))
    await asyncio.sleep(0.5)
    follower.seat.elected.set()
    assert await posting == 200
    assert (follower.heard_steps(), follower.results) == ([4], {"accepted": 1})


@pytest.mark.usefixtures("hurry")
async def test_where_nobody_leads_the_trainer_may_try_again_and_what_it_said_is_kept_for_a_moment(
    follower: Replica, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert await follower.post(body()) == 503
    assert (follower.heard, follower.results) == ([], {"unavailable": 1})
    follower.relay.lead()
    assert follower.heard_steps() == [4]
    assert await follower.post(body()) == 503
    monkeypatch.setattr(module, "KEPT_SECONDS", -1.0)
    follower.relay.lead()
    assert follower.heard_steps() == [4]


@pytest.mark.usefixtures("hurry")
async def test_what_was_passed_on_later_takes_the_place_of_what_is_kept(leader: Replica, follower: Replica) -> None:
    assert await follower.post(body()) == 503
    follower.seat.leader = leader.address
    assert await follower.post(body()) == 200
    follower.relay.lead()
    assert (leader.heard_steps(), follower.heard) == ([4], [])


@pytest.mark.usefixtures("hurry")
async def test_of_two_that_take_each_other_for_the_leader_none_passes_on_what_was_passed_on(
    tmp_path: Path, authority: CertificateAuthority, follower: Replica
) -> None:
    async with Replica(tmp_path, authority).serving() as other:
        follower.seat.leader, other.seat.leader = other.address, follower.address
        assert await follower.post(body()) == 503
        assert set(other.results) == {"unavailable"}
        assert (follower.results, follower.heard, other.heard) == ({"unavailable": 1}, [], [])


async def test_strangers_are_refused_by_the_replica_that_they_come_to(leader: Replica, follower: Replica) -> None:
    follower.seat.leader = leader.address
    assert await follower.post(body(), "Bearer a.b.c") == 401
    assert await follower.post(body(), f"Bearer {token(Pod('ns', 'stranger', 'uid-2'))}") == 403
    assert await follower.post(b"{}") == 400
    assert (leader.results, leader.reviews) == ({}, 0)


async def test_what_the_leader_refuses_is_refused(leader: Replica, follower: Replica) -> None:
    follower.seat.leader = leader.address
    leader.attempts.clear()
    assert await follower.post(body()) == 403
    assert (leader.results, follower.results) == ({"forbidden": 1}, {"not_taken": 1})


@pytest.mark.usefixtures("hurry")
@pytest.mark.parametrize("wrong", ["host", "authority"])
async def test_whoever_cannot_show_the_operators_certificate_gets_neither_report_nor_token(
    tmp_path: Path, authority: CertificateAuthority, follower: Replica, wrong: str
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    theirs = CertificateAuthority(elsewhere) if wrong == "authority" else authority
    async with Replica(elsewhere, theirs, "other.example" if wrong == "host" else "localhost").serving() as imposter:
        imposter.seat.elected.set()
        follower.seat.leader = imposter.address
        assert await follower.post(body()) == 503
        assert (imposter.heard, imposter.results) == ([], {})


@pytest.mark.usefixtures("hurry")
async def test_a_leader_that_is_never_reached_is_said_once(
    follower: Replica, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    follower.seat.leader = "127.0.0.1:1"
    assert await follower.post(body()) == 503
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
    monkeypatch.setattr(module, "WORTH_A_WARNING", 0.0)
    for _ in range(3):
        await follower.post(body())
    [said] = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert "Let the operator's pods reach each other at that port" in said
    assert "127.0.0.1:1" in said
