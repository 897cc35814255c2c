"""A small client of the API server for the test helpers: JSON in, JSON out, any thread.

Thin on purpose. The typed client costs milliseconds of CPU a call, and the helpers share two cores with what they measure.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import urllib3

MERGE_PATCH = "application/merge-patch+json"
STRATEGIC_MERGE_PATCH = "application/strategic-merge-patch+json"

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

    def patch(self, path: str, body: Object, content_type: str = MERGE_PATCH) -> Object:
        """A merge patch: null removes; lists are replaced, or joined by key with STRATEGIC_MERGE_PATCH (built-in kinds only)."""
        return self._request("PATCH", path, body, content_type)

    def delete(self, path: str, body: Object | None = None) -> Object:
        return self._request("DELETE", path, body)

    def ready(self) -> bool:
        """Whether the server answers /readyz with ok; False while nothing listens."""
        try:
            return self._http.request("GET", f"{self._url}/readyz", timeout=2).status == 200
        except urllib3.exceptions.HTTPError:
            return False

    def watch(self, path: str, resource_version: str, seconds: int = 300) -> Watch:
        """Events from `resource_version` on; the server ends the watch after about `seconds`.

        Raises ApiError (410: too old, list again).
        """
        fields = {
            "watch": "true",
            "resourceVersion": resource_version,
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(seconds),
        }
        timeout = urllib3.Timeout(connect=5, read=seconds + 5)
        response = self._http.request("GET", self._url + path, fields=fields, preload_content=False, timeout=timeout)
        if response.status != 200:
            raise ApiError("GET", path, response.status, response.read())
        return Watch(response)

    def _request(
        self, method: str, path: str, body: Object | None = None, content_type: str = "application/json"
    ) -> Object:
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


class Watch:
    """Iterate for (type, object): ADDED, MODIFIED, DELETED, BOOKMARK or ERROR. `close` ends it from any thread."""

    def __init__(self, response: urllib3.BaseHTTPResponse) -> None:
        self._response = response
        self._closed = False

    def __iter__(self) -> Iterator[tuple[str, Object]]:
        rest = b""
        try:
            for chunk in self._response.stream():
                *lines, rest = (rest + chunk).split(b"\n")
                for line in lines:
                    event = json.loads(line)
                    yield event["type"], event["object"]
        except Exception:
            if not self._closed:  # how a read ends whose socket was shut under it is not defined
                raise
        finally:
            self._response.close()

    def close(self) -> None:
        self._closed = True
        with contextlib.suppress(OSError, ValueError):  # the server may have ended it just before
            self._response.shutdown()
