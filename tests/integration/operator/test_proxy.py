"""The operator reaches the API server through the proxy of its environment, or around it where that says so."""

from __future__ import annotations

from urllib.parse import urlsplit

import pytest

from finetune_operator.worlds.kube.client import Client
from finetune_operator.worlds.kube.names import jobs
from tests.cluster.control_plane import ControlPlane
from tests.cluster.gateways import ForwardProxy


@pytest.mark.parametrize(
    ("around", "through"),
    [("", True), ("example.com,.svc", True), ("127.0.0.1", False), ("example.com, 127.0.0.0/8", False), ("*", False)],
)
async def test_the_api_server_is_asked_through_the_proxy_unless_it_is_named_in_no_proxy(
    around: str, through: bool, control_plane: ControlPlane, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ForwardProxy() as proxy:
        for name in ("HTTP_PROXY", "http_proxy", "https_proxy", "no_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("HTTPS_PROXY", proxy.address)
        monkeypatch.setenv("NO_PROXY", around)
        monkeypatch.setenv("KUBECONFIG", str(control_plane.kubeconfig))
        async with Client.from_environment() as client:
            assert (await client.get(jobs("default")))["kind"] == "JobList"
        assert set(proxy.asked) == ({urlsplit(control_plane.url).netloc} if through else set())
