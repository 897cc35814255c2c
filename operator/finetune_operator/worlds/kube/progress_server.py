"""Where training pods tell how far they are: HTTPS, in the protocol that transformers speaks for Kubeflow's trainer.

    POST /progress
    Authorization: Bearer <the pod's token>

    {"trainerStatus": {"progressPercentage": 59, "estimatedRemainingSeconds": 371, "metrics": [{"name": "step", "value": "820"}], …}}

The token alone says which pod it is, and so which job: nobody can speak for another one. Of several replicas, any one may be asked, and
the one that leads hears it (`relay.py`). Everything has an end: each connection is
for one request, which has to be whole in seconds, and strangers are told so before anything of theirs is read. What is taken in is
answered at once, whenever it will be written.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from http import HTTPStatus
from ssl import SSLContext
from typing import Protocol

from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from finetune_api.progress import Progress
from finetune_operator.worlds.kube.bearer import Pod, Tokens, TooManyReviews, claimed
from finetune_operator.worlds.kube.client import TROUBLE
from finetune_operator.worlds.kube.relay import RELAYED, Letter, NotTaken, Relay, Unheard
from finetune_operator.worlds.protocol import Key

log = logging.getLogger(__name__)

PATH = "/progress"
LONGEST_BODY = 64 * 1024
SECONDS = 5.0
"""For the handshake, then for the head of the request, then for its body."""
CONNECTIONS, CONNECTIONS_PER_ADDRESS = 1024, 64


class Listener(Protocol):
    """Who knows the pods."""

    def attempt_of(self, namespace: str, pod: str, uid: str) -> Key | None:
        """The job whose running attempt this pod is; None for any other pod."""
        ...


class Refused(Exception):
    """An answer other than 200, counted as `result`."""

    def __init__(self, status: HTTPStatus, result: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.result = result
        self.message = message


class ProgressServer:
    """`counted` hears the result of each post: accepted, or why not."""

    def __init__(self, listener: Listener, tokens: Tokens, relay: Relay, counted: Callable[[str], None]) -> None:
        self._listener = listener
        self._tokens = tokens
        self._relay = relay
        self._counted = counted

    @contextlib.asynccontextmanager
    async def serving(self, host: str | None, port: int, context: SSLContext) -> AsyncIterator[int]:
        """Serve meanwhile; yields the port."""
        connections = _Connections(self._answer, self._counted)
        server = await asyncio.get_running_loop().create_server(
            connections, host, port, ssl=context, ssl_handshake_timeout=SECONDS, ssl_shutdown_timeout=1.0
        )
        try:
            yield server.sockets[0].getsockname()[1]
        finally:
            server.close()
            await connections.shutdown(1.0)

    async def _answer(self, request: web.BaseRequest) -> web.Response:
        try:
            elsewhere = await self._take(request)
        except Refused as refused:
            self._counted(refused.result)
            response = web.Response(status=refused.status, text=f"{refused.message}\n")
        else:
            self._counted("relayed" if elsewhere else "accepted")
            response = web.Response(text="ok\n")
        response.force_close()
        return response

    async def _take(self, request: web.BaseRequest) -> bool:
        """Whether it was heard by another replica."""
        if request.path != PATH or request.method != "POST":
            raise Refused(HTTPStatus.NOT_FOUND, "malformed", f"POST to {PATH}")
        authorization = request.headers.get("Authorization", "")
        pod, key = await self._who(authorization)
        body = await _body(request)
        try:
            progress = Progress.model_validate_json(body)
        except ValueError as error:
            said = str(error).splitlines()[0][:200]
            raise Refused(HTTPStatus.BAD_REQUEST, "malformed", f"no report of progress: {said}") from error
        numbers = progress.numbers()
        if numbers.get("step", 0) < 0 or numbers.get("step", 0) > numbers.get("total_steps", float("inf")):
            raise Refused(HTTPStatus.BAD_REQUEST, "malformed", "step is not between 0 and total_steps")
        letter = Letter(authorization, body, is_relayed=RELAYED in request.headers)
        try:
            return await self._relay.hear(key, pod.name, progress, letter)
        except Unheard as error:
            raise Refused(HTTPStatus.SERVICE_UNAVAILABLE, "unavailable", f"{error}; try again later") from error
        except NotTaken as error:
            raise Refused(HTTPStatus(error.status), "not_taken", error.said) from error

    async def _who(self, authorization: str) -> tuple[Pod, Key]:
        kind, _, token = authorization.partition(" ")
        said = claimed(token.strip()) if kind.lower() == "bearer" else None
        if said is None:
            raise Refused(HTTPStatus.UNAUTHORIZED, "unauthorized", "show the token of a pod that is for progress")
        self._attempt(said)  # strangers cost the API server nothing
        try:
            async with asyncio.timeout(SECONDS):
                pod = await self._tokens.pod_of(token.strip())
        except (TooManyReviews, *TROUBLE) as error:
            raise Refused(HTTPStatus.SERVICE_UNAVAILABLE, "unavailable", "try again later") from error
        if pod is None or pod != said:
            raise Refused(HTTPStatus.UNAUTHORIZED, "unauthorized", "the API server does not accept this token")
        return pod, self._attempt(pod)

    def _attempt(self, pod: Pod) -> Key:
        key = self._listener.attempt_of(pod.namespace, pod.name, pod.uid)
        if key is None:
            raise Refused(HTTPStatus.FORBIDDEN, "forbidden", "this pod is no running attempt of a FineTuneJob")
        return key


async def _body(request: web.BaseRequest) -> bytes:
    too_large = Refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "too_large", f"at most {LONGEST_BODY} bytes")
    if (request.content_length or 0) > LONGEST_BODY:
        raise too_large
    body = b""
    try:
        async with asyncio.timeout(SECONDS):
            async for chunk in request.content.iter_any():
                body += chunk
                if len(body) > LONGEST_BODY:
                    raise too_large
    except TimeoutError as error:
        raise Refused(HTTPStatus.REQUEST_TIMEOUT, "slow", f"the body took more than {SECONDS:.0f} s") from error
    return body


class _Connections(web.Server):
    """Protocols of connections: so many in all and from each address, and none without a request for long."""

    def __init__(
        self, answer: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]], counted: Callable[[str], None]
    ) -> None:
        async def heard(request: web.BaseRequest) -> web.StreamResponse:
            self._heard(request.protocol)
            return await answer(request)

        super().__init__(
            heard,
            access_log=None,
            auto_decompress=False,  # or 64 KiB could be gigabytes
            lingering_time=1.0,
        )
        self._counted = counted
        self._addresses: Counter[str] = Counter()
        self._open: dict[RequestHandler, str] = {}
        """From where."""
        self._silent: dict[RequestHandler, asyncio.TimerHandle] = {}

    def connection_made(self, handler: RequestHandler, transport: asyncio.Transport) -> None:
        super().connection_made(handler, transport)
        address = str((transport.get_extra_info("peername") or ("",))[0])
        self._open[handler] = address
        self._addresses[address] += 1
        if len(self._open) > CONNECTIONS or self._addresses[address] > CONNECTIONS_PER_ADDRESS:
            self._counted("crowded")
            transport.abort()
        else:
            self._silent[handler] = asyncio.get_running_loop().call_later(SECONDS, self._give_up, handler, transport)

    def connection_lost(self, handler: RequestHandler, exc: BaseException | None = None) -> None:
        super().connection_lost(handler, exc)
        self._heard(handler)
        address = self._open.pop(handler, None)
        if address is not None:
            self._addresses[address] -= 1
            if not self._addresses[address]:
                del self._addresses[address]

    def _heard(self, handler: RequestHandler) -> None:
        if (timer := self._silent.pop(handler, None)) is not None:
            timer.cancel()

    def _give_up(self, handler: RequestHandler, transport: asyncio.Transport) -> None:
        del self._silent[handler]
        self._counted("slow")
        transport.abort()
