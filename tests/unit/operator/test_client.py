"""What requests to the API server may end with."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from aiohttp import web
from kubernetes.client import Configuration

from finetune_api import PLURAL
from finetune_operator.decide import decide
from finetune_operator.worlds.kube import announcing, names
from finetune_operator.worlds.kube.client import METADATA_ALONE, TROUBLE, ApiError, Client
from finetune_operator.worlds.kube.world import KubeWorld
from finetune_operator.worlds.protocol import Key
from tests.cluster.certificates import CertificateAuthority
from tests.unit.operator.api_server import ApiServer, Collection, finetunejob

JOBS = names.finetunejobs()


@pytest.fixture
def server() -> ApiServer:
    return ApiServer({JOBS: Collection(finetunejob(suspend=True))})


@pytest.fixture
async def client(server: ApiServer) -> AsyncIterator[Client]:
    configuration = Configuration()
    async with server.serving() as configuration.host, Client(configuration) as client:
        yield client


@pytest.mark.parametrize("body", ["<html>a proxy</html>", "[]", "null", "1", ""])
async def test_an_answer_that_is_no_object_is_a_bad_gateway(server: ApiServer, client: Client, body: str) -> None:
    server.collections[JOBS].bad_lists = [body]
    with pytest.raises(ApiError, match="not an answer of the API server") as refusal:
        await client.get(JOBS)
    assert refusal.value.code == 502


async def test_a_connection_that_breaks_is_trouble(server: ApiServer, client: Client) -> None:
    server.collections[JOBS].drop_lists = 5
    with pytest.raises(TROUBLE):
        await client.get(JOBS)


async def test_a_cluster_whose_certificates_lack_what_later_pythons_ask_for_is_known_all_the_same(
    server: ApiServer, tmp_path: Path
) -> None:
    """Those of many clusters have no authority key identifier. A cluster of another authority is still none of ours."""
    authority = CertificateAuthority(tmp_path, key_identifiers=False)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*authority.issue("server", "server", addresses=["127.0.0.1"]))
    (other := tmp_path / "other").mkdir()
    configuration = Configuration()
    async with server.serving(context) as configuration.host:
        configuration.ssl_ca_cert = str(authority.certificate)
        async with Client(configuration) as client:
            assert [job["metadata"]["name"] for job in (await client.get(JOBS))["items"]] == ["demo"]
        configuration.ssl_ca_cert = str(CertificateAuthority(other).certificate)
        async with Client(configuration) as client:
            with pytest.raises(TROUBLE, match="CERTIFICATE_VERIFY_FAILED"):
                await client.get(JOBS)


async def test_a_sweep_asks_for_metadata_alone(server: ApiServer, client: Client) -> None:
    asked: list[str] = []
    answer = server.collections[JOBS].answer

    async def answered(request: web.Request) -> web.StreamResponse:
        asked.append(request.headers["Accept"])
        return await answer(request)

    server.collections[JOBS].answer = answered  # type: ignore[method-assign]
    [page] = [page async for page in client.pages_of_metadata(JOBS)]
    assert [item["metadata"]["name"] for item in page["items"]] == ["demo"]
    assert asked == [METADATA_ALONE]
    server.collections[JOBS].bad_lists = [json.dumps({"items": None, "metadata": {"resourceVersion": "7"}})]
    [page] = [page async for page in client.pages_of_metadata(JOBS)]  # of none, as a real API server writes it
    assert page["items"] == []


async def test_an_event_that_cannot_be_written_does_not_undo_the_report(
    server: ApiServer, client: Client, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(announcing, "WORTH_TELLING", 0.0)  # once is enough here
    server.breaks_at = {"events"}
    world = KubeWorld(client, namespace=None, default_image="i")
    key = Key("FineTuneJob", "ns", "demo")
    world.put(finetunejob(suspend=True))
    await world.report(key, decide(await world.observe(key), datetime.now(UTC)))
    telling = asyncio.create_task(world._announcer.run())
    await world.all_told()
    telling.cancel()
    assert server.writes[:2] == [f"PATCH {PLURAL}", "POST events"]
    seen = (await world.observe(key)).job
    assert seen is not None
    assert seen.status.phase == "Suspended"
    assert "An event of ns/demo could not be written: Server disconnected" in caplog.text


@pytest.mark.parametrize("deleted", [True, False])
async def test_a_job_that_went_with_its_finetunejob_is_not_made_again(
    server: ApiServer, client: Client, deleted: bool
) -> None:
    """Two watches tell of the two deletions, in whatever order."""
    alive = [] if deleted else [finetunejob()]
    server.collections[f"/apis/finetune.dev/v1alpha1/namespaces/ns/{PLURAL}"] = Collection(*alive)
    world = KubeWorld(client, namespace=None, default_image="i")
    key = Key("FineTuneJob", "ns", "demo")
    world.put(finetunejob() | {"status": {"startTime": "2026-01-01T00:00:00Z"}})
    [start] = decide(await world.observe(key), datetime.now(UTC)).actions
    server.breaks_at = {"jobs"}
    if deleted:
        assert await world.act(key, start) is None
        assert (server.writes, world.keys()) == ([], [])
    else:
        refusal = await world.act(key, start)
        assert refusal is not None
        assert refusal.reason == "ClusterUnavailable"
        assert server.writes[:1] == ["POST jobs"]
