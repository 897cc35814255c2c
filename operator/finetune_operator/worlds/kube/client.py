"""One session with the API server: credentials that stay fresh, JSON in and out, its clock, and the age of every watch.

A typed client costs three times the CPU of plain dictionaries, and all that is sent here is built in `manifest` and `world`.
"""

from __future__ import annotations

import json
import os
import ssl
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Any, Self

import aiohttp
from kubernetes import client as kubernetes_client, config as kubernetes_config
from kubernetes.client.rest import should_bypass_proxies
from pydantic_core import from_json

from finetune_api.pem import client_context
from finetune_operator.worlds.kube.clock import ServerClock
from finetune_operator.worlds.kube.heard import Heard

Object = dict[str, Any]

MERGE_PATCH = "application/merge-patch+json"
APPLY_PATCH = "application/apply-patch+yaml"
METADATA_ALONE = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json"
REQUEST_TIMEOUT = aiohttp.ClientTimeout(total=30, sock_connect=10)
PAGE = 500
FIELD_MANAGER = "finetune-operator"


class ApiError(Exception):
    """The API server's refusal: a Status object with its HTTP code, and the seconds it asks to be left alone, if any."""

    def __init__(self, code: int, status: Object, retry_after: float | None = None) -> None:
        details: Object = status.get("details") or {}
        self.code = code
        asked = details.get("retryAfterSeconds")  # which a proxy may have made up
        self.retry_after: float | None = retry_after or (asked if isinstance(asked, int | float) else None)
        self.reason: str = status.get("reason") or ""
        self.message: str = status.get("message") or f"the API server answered {code}"
        self.causes: list[Object] = details.get("causes") or []
        super().__init__(f"{code} {self.reason}: {self.message}")


class WatchError(ApiError):
    """The same in the midst of a watch, or something that is no event."""


TROUBLE = (ApiError, aiohttp.ClientError, OSError, TimeoutError)
"""What any request may end with: a refusal, or no answer."""


class NoCluster(Exception):
    """Nothing says where the API server is."""


class Client:
    """Requests to one API server, as whoever the kubeconfig or the service account says."""

    def __init__(self, configuration: kubernetes_client.Configuration) -> None:
        self._configuration = configuration
        self._ssl = _ssl_context(configuration)
        self.server: str = configuration.host.rstrip("/")
        around = should_bypass_proxies(configuration.host, configuration.no_proxy or "")
        self._proxy: str | None = None if around else configuration.proxy or None
        self.heard = Heard()
        self.clock = ServerClock()
        self.asked: Callable[[str, str, float], None] = lambda verb, code, seconds: None
        """Hears of each request its verb, the code of the answer, `none` where there was none, and how long that took to begin."""
        self._session: aiohttp.ClientSession | None = None

    @classmethod
    def from_environment(cls) -> Self:
        """By the service account inside a pod, else by $KUBECONFIG or ~/.kube/config. Raises NoCluster."""
        configuration = kubernetes_client.Configuration()
        try:
            kubernetes_config.load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
        except kubernetes_config.ConfigException:
            try:
                path = os.environ.get("KUBECONFIG")  # the library reads it only when it is imported
                kubernetes_config.load_kube_config(path, client_configuration=configuration)  # type: ignore[no-untyped-call]
            except kubernetes_config.ConfigException as error:
                said = f"no API server is configured ({error}); set KUBECONFIG, or run inside a cluster"
                raise NoCluster(said) from error
        return cls(configuration)

    async def __aenter__(self) -> Self:
        self._session = self.new_session()
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._session is not None:
            await self._session.close()

    def new_session(self, *more: aiohttp.ClientMiddlewareType) -> aiohttp.ClientSession:
        """A session of one's own, with the same credentials. Kopf gets one, since it closes what it is given."""
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, ssl=self._ssl),
            middlewares=(self._authorize, self._hear, *more),
            headers={"User-Agent": FIELD_MANAGER, "Accept": "application/json"},
            proxy=self._proxy,
        )

    async def _authorize(
        self, request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        # Asked at every request: service account tokens are rotated, and the configuration reads them again in time.
        token = self._configuration.get_api_key_with_prefix("BearerToken", "authorization")
        if token:
            request.headers["Authorization"] = token
        return await handler(request)

    async def _hear(self, request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
        asked = time.monotonic()
        verb, code = _verb(request), "none"
        try:
            response = await handler(request)
            code = str(response.status)
        finally:
            self.asked(verb, code, time.monotonic() - asked)
        if response.status < HTTPStatus.INTERNAL_SERVER_ERROR:  # these may be the words of a proxy
            self.clock.heard(response.headers, asked)
        if response.ok and verb == "watch":
            self.heard.mark(request.url.name)
        return response

    # -- requests --------------------------------------------------------------------------------------------------

    async def get(self, path: str, **query: str) -> Object:
        return await self._request("GET", path, query)

    def pages(self, path: str, **query: str) -> AsyncIterator[Object]:
        """A collection, page by page: each with its `items` and a `metadata.resourceVersion`."""
        return self._pages(path, query, None)

    def pages_of_metadata(self, path: str) -> AsyncIterator[Object]:
        """The same of items with nothing but their metadata."""
        return self._pages(path, {}, {"Accept": METADATA_ALONE})

    async def _pages(self, path: str, query: dict[str, str], headers: dict[str, str] | None) -> AsyncIterator[Object]:
        more: Object = {"limit": str(PAGE)}
        while True:
            page = await self._request("GET", path, {**query, **more}, headers=headers)
            if headers and page.get("items", 0) is None:
                page["items"] = []  # as an empty list of metadata is written
            match page:
                case {"items": list(), "metadata": {"resourceVersion": str()}}:
                    yield page
                case _:
                    raise _bad_gateway(json.dumps(page))
            if not page["metadata"].get("continue"):
                return
            more["continue"] = page["metadata"]["continue"]

    async def create(self, path: str, body: Object) -> Object:
        """Refused when the API server does not know a field: a misspelt one would be dropped in silence."""
        return await self._request("POST", path, {"fieldManager": FIELD_MANAGER, "fieldValidation": "Strict"}, body)

    async def merge(self, path: str, patch: Object) -> Object:
        """A JSON merge patch: null removes, lists are replaced as a whole."""
        return await self._request("PATCH", path, {"fieldManager": FIELD_MANAGER}, patch, MERGE_PATCH)

    async def apply(self, path: str, body: Object) -> Object:
        """Server-side: makes what is not there, for which the right to create what has this name is enough, as it is not for a POST; and leaves
        what is there as it is, but for the fields of `body`."""
        return await self._request("PATCH", path, {"fieldManager": FIELD_MANAGER}, body, APPLY_PATCH)

    async def delete(self, path: str, options: Object) -> Object:
        return await self._request("DELETE", path, {}, options)

    async def _request(
        self,
        method: str,
        path: str,
        query: dict[str, str],
        body: Object | None = None,
        content_type: str = "application/json",
        headers: dict[str, str] | None = None,
    ) -> Object:
        async with self._open.request(
            method,
            self.server + path,
            params=query,
            data=None if body is None else json.dumps(body),
            headers={"Content-Type": content_type} if body is not None else headers,
            timeout=REQUEST_TIMEOUT,
        ) as response:
            return await _answer(response)

    @asynccontextmanager
    async def watch(self, path: str, query: dict[str, str], silence: float) -> AsyncIterator[AsyncIterator[Object]]:
        """The events of a watch: each with its `type` and an `object` that has a `metadata.resourceVersion`.

        Raises WatchError for anything else in the stream, and TimeoutError after `silence` seconds without a byte.
        """
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=silence)
        async with self._open.get(self.server + path, params={**query, "watch": "true"}, timeout=timeout) as response:
            if not response.ok:
                await _answer(response)
            yield events(response.content)

    @property
    def _open(self) -> aiohttp.ClientSession:
        assert self._session is not None, "enter the client first"
        return self._session


def _verb(request: aiohttp.ClientRequest) -> str:
    return "watch" if request.url.query.get("watch") == "true" else request.method.lower()


async def _answer(response: aiohttp.ClientResponse) -> Object:
    raw = await response.read()
    try:
        body = _object(raw)
    except ApiError as error:
        code = error.code if response.ok else response.status
        raise ApiError(code, {"message": error.message}, _retry_after(response.headers)) from None
    if not response.ok:
        raise ApiError(response.status, body, _retry_after(response.headers))
    return body


def _retry_after(headers: Mapping[str, str]) -> float | None:
    said = headers.get("Retry-After", "")
    if said.isdecimal():
        return float(said)
    try:  # a date, as no API server but a proxy may write it; by its own clock
        return (parsedate_to_datetime(said) - parsedate_to_datetime(headers["Date"])).total_seconds()
    except (KeyError, TypeError, ValueError):
        return None


def _object(raw: bytes, kind: type[ApiError] = ApiError) -> Object:
    try:
        found = from_json(raw)  # of all that is done for a job, a fifth was reading JSON by Python's own module
    except ValueError:
        found = None
    if isinstance(found, dict):
        return found
    raise _bad_gateway(raw.decode(errors="replace"), kind)


def _bad_gateway(said: str, kind: type[ApiError] = ApiError) -> ApiError:
    """Something between us and the API server has answered."""
    return kind(502, {"reason": "BadGateway", "message": f"not an answer of the API server: {said[:300]}"})


async def events(content: aiohttp.StreamReader) -> AsyncIterator[Object]:
    """The events of a watch, as `Client.watch` describes them, out of the body of its answer."""
    async for line in _lines(content):
        match event := _object(line, WatchError):
            case {"type": "ERROR", "object": dict()}:
                status: Object = event["object"]
                raise WatchError(status.get("code") or HTTPStatus.INTERNAL_SERVER_ERROR, status)
            case {"type": str(), "object": {"metadata": {"resourceVersion": str()}}}:
                yield event
            case _:
                raise _bad_gateway(json.dumps(event), WatchError)


async def _lines(content: aiohttp.StreamReader) -> AsyncIterator[bytes]:
    # Not aiohttp's own readline: it refuses lines over 64 KiB, and an object may be larger.
    rest = b""
    async for chunk in content.iter_any():
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            yield line


def _ssl_context(configuration: kubernetes_client.Configuration) -> ssl.SSLContext:
    context = client_context(configuration.ssl_ca_cert or None)
    if not configuration.verify_ssl:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if configuration.cert_file:
        context.load_cert_chain(configuration.cert_file, configuration.key_file)
    return context
