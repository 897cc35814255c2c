"""The certificate by which pods know the operator: made once, renewed in time, and known by clients that know its authority."""

from __future__ import annotations

import base64
import copy
import ssl
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest
from aiohttp import web
from cryptography import x509
from kubernetes.client import Configuration

from finetune_operator.worlds.kube.certificate import (
    CA,
    CA_KEY,
    CERTIFICATE,
    EARLY,
    KEY,
    LIFETIME,
    Certificate,
    UnusableSecret,
    complete,
)
from finetune_operator.worlds.kube.client import Client, Object

NOW = datetime(2026, 1, 1, tzinfo=UTC)
HOSTS = ("progress.ns.svc", "progress.ns.svc.cluster.local")


def read(text: str) -> x509.Certificate:
    return x509.load_pem_x509_certificate(text.encode())


def greets(server: ssl.SSLContext, authority: str, host: str) -> None:
    """A client that trusts this authority shakes hands with the server; raises what it finds wrong."""
    client = ssl.create_default_context(cadata=authority)
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ours = client.wrap_bio(to_client, to_server, server_hostname=host)
    theirs = server.wrap_bio(to_server, to_client, server_side=True)
    for _ in range(4):
        for side in (ours, theirs):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
    assert ours.version() is not None


# ------------------------------------------------------------------------------------------------------ what is made


def test_an_empty_secret_gets_an_authority_for_ten_years_and_a_certificate_for_ninety_days() -> None:
    made = complete({}, HOSTS, NOW)
    ca, leaf = read(made[CA]), read(made[CERTIFICATE])
    assert ca.not_valid_after_utc == NOW + timedelta(days=3650)
    assert leaf.not_valid_after_utc == NOW + timedelta(days=90)
    leaf.verify_directly_issued_by(ca)
    assert set(made) == {CA, CA_KEY, CERTIFICATE, KEY}


def test_what_is_good_stays_to_the_letter() -> None:
    made = complete({}, HOSTS, NOW)
    assert complete(made, HOSTS, NOW + LIFETIME - EARLY - timedelta(seconds=1)) == made


def test_in_its_last_month_a_certificate_is_made_anew_by_the_same_authority() -> None:
    made = complete({}, HOSTS, NOW)
    later = complete(made, HOSTS, NOW + LIFETIME - EARLY)
    assert (later[CA], later[CA_KEY]) == (made[CA], made[CA_KEY])
    assert read(later[CERTIFICATE]).not_valid_after_utc == NOW + 2 * LIFETIME - EARLY
    read(later[CERTIFICATE]).verify_directly_issued_by(read(made[CA]))


def test_another_address_gets_another_certificate() -> None:
    made = complete({}, HOSTS, NOW)
    moved = complete(made, ("other.ns.svc",), NOW)
    assert (moved[CA], moved[CERTIFICATE] != made[CERTIFICATE]) == (made[CA], True)


@pytest.mark.parametrize("broken", [{CA: ""}, {CA: "x"}, {CA_KEY: None}, {CERTIFICATE: "x"}, {KEY: None}], ids=str)
def test_what_is_missing_or_garbled_is_made_anew(broken: dict[str, str | None]) -> None:
    found = {name: text for name, text in (complete({}, HOSTS, NOW) | broken).items() if text is not None}
    made = complete(found, HOSTS, NOW)
    read(made[CERTIFICATE]).verify_directly_issued_by(read(made[CA]))
    assert set(made) == {CA, CA_KEY, CERTIFICATE, KEY}


# ----------------------------------------------------------------------------------------------------- in the cluster


class Cluster:
    """One Secret."""

    def __init__(self) -> None:
        self.secret: Object = {"metadata": {"name": "progress", "resourceVersion": "1"}}
        self.patches: list[Object] = []
        self.faster: Object | None = None
        """What another operator writes before the first of ours."""

    async def answer(self, request: web.Request) -> web.Response:
        assert request.path == "/api/v1/namespaces/ns/secrets/progress"
        if request.method == "PATCH":
            if self.faster is not None:
                self.secret, self.faster = (
                    {**self.secret, "data": self.faster, "metadata": {"resourceVersion": "2"}},
                    None,
                )
            patch = await request.json()
            if patch["metadata"]["resourceVersion"] != self.secret["metadata"]["resourceVersion"]:
                return web.json_response({"kind": "Status", "code": 409, "reason": "Conflict"}, status=409)
            self.patches.append(copy.deepcopy(patch))
            self.secret["data"] = patch["data"]
        return web.json_response(self.secret)


@pytest.fixture
async def cluster() -> Cluster:
    return Cluster()


@pytest.fixture
async def certificate(cluster: Cluster) -> AsyncIterator[Certificate]:
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", cluster.answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    configuration = Configuration()
    configuration.host = f"http://127.0.0.1:{runner.addresses[0][1]}"
    async with Client(configuration) as client:
        yield Certificate(client, "ns", "progress", HOSTS)
    await runner.cleanup()


def encoded(texts: dict[str, str]) -> Object:
    return {name: base64.b64encode(text.encode()).decode() for name, text in texts.items()}


async def test_an_empty_secret_is_filled_once_and_clients_know_the_server_by_it(
    cluster: Cluster, certificate: Certificate
) -> None:
    await certificate.renew()
    await certificate.renew()
    assert len(cluster.patches) == 1
    greets(certificate.context, certificate.authority, "progress.ns.svc")
    with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
        greets(certificate.context, certificate.authority, "another.ns.svc")
    with pytest.raises(ssl.SSLCertVerificationError):
        greets(certificate.context, complete({}, HOSTS, NOW)[CA], "progress.ns.svc")


async def test_what_another_operator_has_written_first_is_used(cluster: Cluster, certificate: Certificate) -> None:
    theirs = complete({}, HOSTS, datetime.now(UTC))
    cluster.faster = encoded(theirs)
    await certificate.renew()
    assert (certificate.authority, cluster.patches) == (theirs[CA], [])


async def test_a_secret_that_somebody_else_fills_is_only_read(cluster: Cluster, certificate: Certificate) -> None:
    given = complete({}, ("progress.ns.svc",), datetime.now(UTC) - LIFETIME + timedelta(days=2))  # theirs to renew
    del given[CA_KEY]
    cluster.secret["data"] = encoded(given)
    await certificate.renew()
    assert (certificate.authority, cluster.patches) == (given[CA], [])
    greets(certificate.context, given[CA], "progress.ns.svc")


@pytest.mark.parametrize("wrong", [{KEY: "x"}, {CA: "x"}, {CA: ""}], ids=str)
async def test_a_secret_of_somebody_else_that_is_of_no_use_is_said_and_left_alone(
    cluster: Cluster, certificate: Certificate, wrong: dict[str, str]
) -> None:
    given = complete({}, HOSTS, datetime.now(UTC)) | wrong
    del given[CA_KEY]
    cluster.secret["data"] = encoded(given)
    with pytest.raises(
        UnusableSecret, match=r"Secret progress in namespace ns holds no ca\.crt, tls\.crt and tls\.key"
    ):
        await certificate.renew()
    assert cluster.patches == []
