"""What it takes to hear trainers, put together: a certificate, a server, and the address that new pods are given."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from urllib.parse import urlsplit

from finetune_operator.worlds.kube.bearer import Tokens
from finetune_operator.worlds.kube.certificate import Certificate, UnusableSecret
from finetune_operator.worlds.kube.client import TROUBLE, Client
from finetune_operator.worlds.kube.leadership import Alone, Leadership
from finetune_operator.worlds.kube.manifest import Endpoint
from finetune_operator.worlds.kube.progress_server import PATH, ProgressServer
from finetune_operator.worlds.kube.relay import Relay
from finetune_operator.worlds.kube.world import KubeWorld

log = logging.getLogger(__name__)

RENEWAL_SECONDS = 600.0
"""Between two looks at the Secret: replicas should not have different ones for long."""
RETRY_SECONDS = 30.0


@dataclass(frozen=True)
class ProgressOptions:
    url: str
    """What pods are told."""
    host: str | None
    """Where to listen; None: everywhere."""
    port: int
    namespace: str
    """Of the Secret `secret`."""
    secret: str
    address: str = ""
    """By which other replicas reach this one, without a port; empty where nothing is passed on to it."""

    @property
    def hosts(self) -> tuple[str, ...]:
        """The names that the certificate is for: as in the address, and as the cluster's resolver may write it out."""
        name = urlsplit(self.url).hostname or ""
        return (name, f"{name}.cluster.local") if name.endswith(".svc") else (name,)


async def hear(
    world: KubeWorld,
    client: Client,
    options: ProgressOptions,
    relay: Relay,
    leadership: Leadership | Alone,
    counted: Callable[[str], None],
) -> None:
    """Hear trainers until cancelled. As long as that cannot begin, jobs train unheard, and the log says why."""
    certificate = Certificate(client, options.namespace, options.secret, options.hosts)
    server = ProgressServer(world, Tokens(client), relay, counted)
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(relay)
        while True:
            try:
                await certificate.renew()
                relay.trust(certificate.authority)
                if world.progress_to is None:
                    port = await stack.enter_async_context(
                        server.serving(options.host, options.port, certificate.context)
                    )
                    log.info("Hearing trainers on port %d.", port)
                    leadership.address = _with_port(options.address, port)
                world.progress_to = Endpoint(options.url, certificate.authority)
            except (UnusableSecret, *TROUBLE) as error:
                log.warning("Trainers are not heard, or not for long: %s", error or type(error).__name__)
                await asyncio.sleep(RETRY_SECONDS)
            else:
                await asyncio.sleep(RENEWAL_SECONDS)


def _with_port(address: str, port: int) -> str:
    if not address:
        return ""
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def progress_options(url: str | None, listen: str, secret: str, address: str = "") -> ProgressOptions | None:
    """None where no URL is given."""
    if url is None:
        return None
    host, _, port = listen.rpartition(":")
    namespace, _, name = secret.partition("/")
    return ProgressOptions(url, host.strip("[]") or None, int(port), namespace, name, address.strip("[]"))


def read_progress_url(text: str) -> str:
    """An address that our server answers. Raises ValueError for any other."""
    parts = urlsplit(text)
    if parts.scheme != "https" or not parts.hostname or parts.path != PATH or parts.query:
        raise ValueError(f"{text!r} is no address of trainers' progress; write https://HOST{PATH}")
    return text
