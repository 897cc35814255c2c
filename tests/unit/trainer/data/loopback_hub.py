"""A hub on a loopback port: the few addresses of the hub's HTTP API that the real client libraries ask for.

It serves small repositories from memory, and refuses as the real hub refuses.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

COMMIT = "c0ffee" + "0" * 34


@dataclass(frozen=True)
class Repository:
    files: Mapping[str, bytes] = field(default_factory=dict)
    refuses: int | None = None
    """The status it answers everything with."""
    error_code: str | None = None
    """What the hub says beside the status, in `X-Error-Code`."""
    page: bytes | None = None
    """What somebody else answers instead of any of its files."""


PAGE = b"<!DOCTYPE html>\n<html><head><title>Log in</title></head><body>Please, log in</body></html>\n"


@contextmanager
def portal() -> Iterator[str]:
    """A login page, in the place of whatever is asked for; gives its address."""
    with _served(lambda path, body: (200, {"Content-Type": "text/html"}, PAGE)) as address:
        yield address


@contextmanager
def hub_of(repositories: Mapping[str, Repository]) -> Iterator[str]:
    """Serves repositories by `models/owner/name` and `datasets/owner/name`; gives the hub's address."""
    with _served(lambda path, body: respond(repositories, path, body)) as address:
        yield address


Answer = tuple[int, dict[str, str], bytes]


@contextmanager
def _served(answer: Callable[[str, bytes], Answer]) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self._answer()

        def do_GET(self) -> None:
            self._answer()

        def do_POST(self) -> None:
            self._answer()

        def do_PUT(self) -> None:
            self._answer()

        def _answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            path = unquote(urlsplit(self.path).path).strip("/")
            status, headers, content = answer(path, body)
            self.send_response(status)
            for name, value in {"Content-Length": str(len(content)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def respond(repositories: Mapping[str, Repository], path: str, body: bytes) -> Answer:
    is_api = path.startswith("api/")
    parts = path.removeprefix("api/").split("/")
    kind = parts.pop(0) if parts[0] in ("models", "datasets") else "models"
    repository = repositories.get(f"{kind}/{'/'.join(parts[:2])}")
    rest = parts[2:]
    if repository is None:
        return 404, {"X-Error-Code": "RepoNotFound"}, b"{}"
    if repository.refuses is not None:
        return repository.refuses, {"X-Error-Code": repository.error_code} if repository.error_code else {}, b"{}"
    files = repository.files
    if not is_api and rest[:1] == ["resolve"] and repository.page is not None:
        return 200, {"Content-Type": "text/html"}, repository.page
    if not is_api and rest[:1] == ["resolve"]:
        return _file(files, "/".join(rest[2:]))
    if rest[:1] == ["revision"] and rest[1] not in ("main", COMMIT):
        return 404, {"X-Error-Code": "RevisionNotFound"}, b"{}"
    if rest[:1] == ["paths-info"]:
        asked = json.loads(body)["paths"] if body.startswith(b"{") else []
        return _json([_entry(name, files[name]) for name in asked if name in files])
    if rest[:1] == ["tree"]:
        below = "/".join(rest[2:])
        names = [name for name in sorted(files) if not below or name.startswith(f"{below}/")]
        return _json([_entry(name, files[name]) for name in names])
    if rest[:1] in ([], ["revision"]):
        siblings = [{"rfilename": name} for name in sorted(files)]
        return _json({"id": "/".join(parts[:2]), "sha": COMMIT, "private": False, "tags": [], "siblings": siblings})
    return 404, {"X-Error-Code": "EntryNotFound"}, b"{}"


def _entry(name: str, content: bytes) -> dict[str, Any]:
    return {"type": "file", "path": name, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}


def _json(document: object) -> Answer:
    return 200, {"Content-Type": "application/json"}, json.dumps(document).encode()


def _file(files: Mapping[str, bytes], name: str) -> Answer:
    if name not in files:
        return 404, {"X-Error-Code": "EntryNotFound"}, b""
    content = files[name]
    return 200, {"ETag": f'"{hashlib.sha1(content).hexdigest()}"', "X-Repo-Commit": COMMIT}, content
