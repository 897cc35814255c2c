"""A small client of the API server for the test helpers: JSON in, JSON out, any thread.

Thin on purpose. The typed client costs milliseconds of CPU a call, and the helpers share two cores with what they measure.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import urllib3

MERGE_PATCH = "application/merge-patch+json"

Object = dict[str, Any]


class ApiError(RuntimeError):
    """The API server refused; `status` is the HTTP status, `reason` Kubernetes' word for it (NotFound, Conflict…)."""

    def __init__(self, method: str, path: str, status: int, body: bytes) -> None:
        try:
            said = json.loads(body)
        except ValueError:
            said = {"message": body.decode(errors="replace")}
        self.status = status
        self.reason = str(said.get("reason", ""))
        super().__init__(f"{method} {path}: {status} {said.get('message', '')}")


class Api:
    def __init__(self, url: str, *, authority: Path, certificate: Path, key: Path) -> None:
        self._url = url
        self._http = urllib3.PoolManager(
            ca_certs=str(authority), cert_file=str(certificate), key_file=str(key), maxsize=16, retries=False
        )

    def get(self, path: str) -> Object:
        return self._request("GET", path)

    def post(self, path: str, body: Object) -> Object:
        return self._request("POST", path, body)

    def patch(self, path: str, body: Object) -> Object:
        """A JSON merge patch: lists are replaced as a whole, null removes."""
        return self._request("PATCH", path, body, MERGE_PATCH)

    def delete(self, path: str, body: Object | None = None) -> Object:
        return self._request("DELETE", path, body)

    def ready(self) -> bool:
        """Whether the server answers /readyz with ok; False while nothing listens."""
        try:
            return self._http.request("GET", f"{self._url}/readyz", timeout=2).status == 200
        except urllib3.exceptions.HTTPError:
            return False

    def watch(self, path: str, resource_version: str, seconds: int) -> Iterator[tuple[str, Object]]:
        """Events (ADDED, MODIFIED, DELETED, BOOKMARK, ERROR) with their object; ends after about `seconds`.

        Raises ApiError (410: list again).
        """
        fields = {
            "watch": "true",
            "resourceVersion": resource_version,
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(seconds),
        }
        response = self._http.request(
            "GET", self._url + path, fields=fields, preload_content=False, timeout=urllib3.Timeout(connect=5, read=seconds + 5)
        )
        try:
            if response.status != 200:
                raise ApiError("GET", path, response.status, response.read())
            for line in _lines(response):
                event = json.loads(line)
                yield event["type"], event["object"]
        finally:
            response.close()

    def _request(self, method: str, path: str, body: Object | None = None, content_type: str = "application/json") -> Object:
        response = self._http.request(
            method,
            self._url + path,
            body=None if body is None else json.dumps(body),
            headers={"Content-Type": content_type, "Accept": "application/json"},
            timeout=30,
        )
        if response.status >= 400:
            raise ApiError(method, path, response.status, response.data)
        found: Object = json.loads(response.data)
        return found


def _lines(response: urllib3.BaseHTTPResponse) -> Iterator[bytes]:
    rest = b""
    for chunk in response.stream(amt=None):
        *lines, rest = (rest + chunk).split(b"\n")
        yield from lines
