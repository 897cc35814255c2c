"""The names of Services, for pods: what a cluster's DNS answers, asked of the API server each time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from dnslib import QTYPE, RCODE, RR, A, DNSRecord
from dnslib.server import BaseResolver, DNSHandler, DNSLogger, DNSServer

from tests.cluster.api import Api, ApiError

DOMAIN = "cluster.local"


class ServiceNames(BaseResolver):
    """`<service>.<namespace>.svc.cluster.local` is the address of that Service. There are no other names."""

    def __init__(self, api: Api) -> None:
        self._api = api

    def resolve(self, request: DNSRecord, handler: DNSHandler) -> DNSRecord:
        reply = request.reply()
        address = self._address(str(request.q.qname).rstrip("."))
        if address is None:
            reply.header.rcode = RCODE.NXDOMAIN
        elif request.q.qtype == QTYPE.A:
            reply.add_answer(RR(request.q.qname, QTYPE.A, rdata=A(address), ttl=5))
        return reply

    def _address(self, name: str) -> str | None:
        parts = name.removesuffix(f".{DOMAIN}").split(".")
        if not name.endswith(f".svc.{DOMAIN}") or len(parts) != 3:
            return None
        try:
            service = self._api.get(f"/api/v1/namespaces/{parts[1]}/services/{parts[0]}")
        except ApiError:
            return None
        address: str = service["spec"]["clusterIP"]
        return None if address == "None" else address


@contextmanager
def serving_names(api: Api, address: str) -> Iterator[None]:
    """At port 53 of `address`, UDP and TCP."""
    servers = [
        DNSServer(ServiceNames(api), address=address, tcp=tcp, logger=DNSLogger(log="-request,-reply,-truncated"))
        for tcp in (False, True)
    ]
    for server in servers:
        server.start_thread()
    try:
        yield
    finally:
        for server in servers:
            server.stop()
            server.server.server_close()
