"""An HTTP proxy before the S3 server that refuses or changes what a test says: the store of another cloud, or one with other rights.

It signs what it passes on with the server's own keys, since a changed request does not fit the client's signature any more.
"""

from __future__ import annotations

import hashlib
import hmac
import http.client
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self
from urllib.parse import parse_qs, parse_qsl, quote, unquote, urlsplit

from tests.cluster.s3 import S3Server

HOP_BY_HOP = ("connection", "transfer-encoding", "keep-alive")


@dataclass
class Asked:
    """A request, which a rule may change before it is passed on. `key` is that of the object, without its bucket."""

    method: str
    target: str
    headers: dict[str, str]
    """Names in lower case."""
    body: bytes = b""

    @property
    def key(self) -> str:
        return unquote(urlsplit(self.target).path).partition("/")[2].partition("/")[2]

    @property
    def query(self) -> dict[str, list[str]]:
        return parse_qs(urlsplit(self.target).query, keep_blank_values=True)


@dataclass
class Answer:
    status: int
    body: bytes = b""
    headers: list[tuple[str, str]] = field(default_factory=list)


def refused(status: int, code: str, message: str = "") -> Answer:
    """An answer in the words of S3."""
    text = (
        f'<?xml version="1.0" encoding="UTF-8"?><Error><Code>{code}</Code><Message>{message or code}</Message></Error>'
    )
    return Answer(status, text.encode(), [("Content-Type", "application/xml")])


Rule = Callable[[Asked], Answer | None]
"""Answers in the server's place, or lets the request pass."""


class Gateway:
    """Enter it to start; `endpoint` leads to the server, but for what `rule` says. `asked` are the requests so far."""

    def __init__(
        self,
        server: S3Server | str,
        rule: Rule = lambda asked: None,
        answered: Callable[[Answer], Answer] = lambda answer: answer,
    ) -> None:
        """`answered` changes what the server answers. To a host and port, requests are passed on as they were signed."""
        self._server_behind = server
        self.rule = rule
        self._answered = answered
        self.asked: list[Asked] = []

    def __enter__(self) -> Self:
        gateway = self

        class Handler(_Handler):
            def answer(self, asked: Asked) -> Answer:
                gateway.asked.append(asked)
                return gateway.rule(asked) or gateway._answered(_forward(gateway._server_behind, asked))

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self, asked: Asked) -> Answer:
        raise NotImplementedError

    def _serve(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        answer = self.answer(Asked(self.command, self.path, {k.lower(): v for k, v in self.headers.items()}, body))
        self.send_response_only(answer.status)
        names = {name.lower() for name, _ in answer.headers}
        for name, value in answer.headers:
            if name.lower() not in HOP_BY_HOP:
                self.send_header(name, value)
        if "content-length" not in names:
            self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer.body)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _serve  # noqa: N815

    def log_message(self, *_: object) -> None:
        pass


def _forward(server: S3Server | str, asked: Asked) -> Answer:
    if isinstance(server, str):
        where = urlsplit(asked.target)  # as a proxy is asked, with the host in it
        address, target = server, f"{where.path}{f'?{where.query}' if where.query else ''}"
        headers = {name: value for name, value in asked.headers.items() if name not in HOP_BY_HOP}
    else:
        address, target = server.endpoint.removeprefix("http://"), asked.target
        headers = _without_signature(asked.headers) | _signature(server, asked)
    connection = http.client.HTTPConnection(address, timeout=60)
    try:
        connection.putrequest(asked.method, target, skip_host=True, skip_accept_encoding=True)
        for name, value in headers.items():
            connection.putheader(name, value)
        connection.endheaders(asked.body)
        response = connection.getresponse()
        return Answer(response.status, response.read(), response.getheaders())
    finally:
        connection.close()


def _without_signature(headers: dict[str, str]) -> dict[str, str]:
    signing = ("host", "authorization", "x-amz-date", "x-amz-content-sha256", *HOP_BY_HOP)
    return {name: value for name, value in headers.items() if name not in signing}


def _signature(server: S3Server, asked: Asked) -> dict[str, str]:
    """The headers of AWS Signature Version 4, over all but the body."""
    now = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    scope = f"{now[:8]}/{server.region}/s3/aws4_request"
    kept = {name: value for name, value in _without_signature(asked.headers).items() if name.startswith("x-amz-")}
    signed = {
        "host": server.endpoint.removeprefix("http://"),
        "x-amz-content-sha256": "UNSIGNED-PAYLOAD",
        "x-amz-date": now,
    }
    signed = dict(sorted((kept | signed).items()))
    parts = urlsplit(asked.target)
    pairs = sorted(parse_qsl(parts.query, keep_blank_values=True))
    query = "&".join(f"{quote(name, safe='-_.~')}={quote(value, safe='-_.~')}" for name, value in pairs)
    headers = "".join(f"{name}:{value}\n" for name, value in signed.items())
    names = ";".join(signed)
    request = "\n".join([asked.method, parts.path, query, headers, names, "UNSIGNED-PAYLOAD"])
    text = "\n".join(["AWS4-HMAC-SHA256", now, scope, hashlib.sha256(request.encode()).hexdigest()])
    key = f"AWS4{server.secret_key}".encode()
    for part in scope.split("/"):
        key = hmac.digest(key, part.encode(), "sha256")
    signature = hmac.digest(key, text.encode(), "sha256").hex()
    credential = f"Credential={server.access_key}/{scope}, SignedHeaders={names}, Signature={signature}"
    return {**signed, "authorization": f"AWS4-HMAC-SHA256 {credential}"}
