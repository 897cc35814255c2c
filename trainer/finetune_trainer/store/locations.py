"""From a URI to a client of its store, with credentials of the environment and limits on how long it waits."""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from typing import Any
from urllib.parse import unquote, urlsplit

from obstore.store import AzureStore, GCSStore, LocalStore, MemoryStore, ObjectStore, S3Store

from finetune_api.failures import FailureReason, JobError
from finetune_api.job import DEFAULT_REGION, Storage
from finetune_trainer.store.errors import no_credentials

SILENCE = 60.0
"""Seconds without a byte after which a connection counts as dead."""
LONGEST_RETRY = 170.0
"""Seconds. A request is signed once for all its retries, and servers refuse signatures that are minutes old."""

_CREDENTIALS = {
    "s3": (
        "AWS_ACCESS_KEY_ID",
        "AWS_WEB_IDENTITY_TOKEN_FILE",
        "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
        "AWS_CONTAINER_CREDENTIALS_FULL_URI",
        "AWS_SKIP_SIGNATURE",
    ),
    "gs": (
        "GOOGLE_SERVICE_ACCOUNT",
        "GOOGLE_SERVICE_ACCOUNT_PATH",
        "GOOGLE_SERVICE_ACCOUNT_KEY",
        "GOOGLE_APPLICATION_CREDENTIALS",
        "GOOGLE_BEARER_TOKEN",
        "GOOGLE_SKIP_SIGNATURE",
    ),
    "az": ("AZURE_STORAGE_ACCOUNT_KEY", "AZURE_STORAGE_SAS_KEY", "AZURE_FEDERATED_TOKEN_FILE", "AZURE_CLIENT_SECRET"),
}
"""What the clients can make do with. One of them must be there when the endpoint is not the cloud's own."""

_memory: dict[str, MemoryStore] = {}
_memory_lock = threading.Lock()


@dataclass(frozen=True)
class Location:
    """A place in a store. `quick` is for small requests, which are repeated by their caller; `bulk` for large files."""

    scheme: str
    bucket: str
    path: str
    """The key of the folder, or the path of the directory, without a slash at either end."""
    storage: Storage
    patience: float

    @property
    def endpoint(self) -> str | None:
        return self.storage.endpoint if self.scheme in _CREDENTIALS else None

    @property
    def is_local(self) -> bool:
        return self.scheme == "file"

    @cached_property
    def quick(self) -> ObjectStore:
        return self._store(retry=min(self.patience, 3.0))

    @cached_property
    def bulk(self) -> ObjectStore:
        return self._store(retry=min(self.patience, LONGEST_RETRY))

    def _store(self, retry: float) -> ObjectStore:
        if self.scheme == "file":
            return LocalStore()
        if self.scheme == "memory":
            with _memory_lock:
                return _memory.setdefault(self.bucket, MemoryStore())
        endpoint = self.storage.endpoint
        options: dict[str, Any] = {
            "connect_timeout": timedelta(seconds=5),
            "read_timeout": timedelta(seconds=min(SILENCE, max(1.0, self.patience))),
            # A large file takes as long as it takes: only silence ends a request.
            "timeout": timedelta(days=1),
        }
        if endpoint and endpoint.startswith("http://"):
            options["allow_http"] = True
        common: dict[str, Any] = {
            "client_options": options,
            "retry_config": {"max_retries": 100, "retry_timeout": timedelta(seconds=retry)},
        }
        if self.scheme == "s3":
            # TLS protects the content on its way already; hashing each part for the signature would cost throughput.
            address = endpoint or os.environ.get("AWS_ENDPOINT_URL") or "https://"
            region = self.storage.region or os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
            if endpoint:
                common["endpoint"] = endpoint
            return S3Store(
                self.bucket,
                region=region or DEFAULT_REGION,
                unsigned_payload=address.startswith("https://"),
                **common,
            )
        if endpoint:
            common["base_url" if self.scheme == "gs" else "endpoint"] = endpoint
        return GCSStore(self.bucket, **common) if self.scheme == "gs" else AzureStore(self.bucket, **common)


def locate(uri: str, storage: Storage, patience: float) -> Location:
    """Where `uri` is. Raises JobError InvalidSpec for what is no URI of a store, StorageDenied when credentials must be missing."""
    parts = urlsplit(uri)
    if parts.scheme == "file" and parts.path.strip("/") and parts.netloc in ("", "localhost"):
        return Location("file", "", unquote(parts.path).strip("/"), storage, patience)
    if parts.scheme not in ("s3", "gs", "az", "memory") or not parts.netloc or "@" in parts.netloc:
        raise JobError(
            FailureReason.INVALID_SPEC,
            f"{uri!r} is no folder in a store: s3://bucket/path, gs://bucket/path, az://container/path or file:///path",
        )
    # Keys of object stores are taken as written: a % in them is a %.
    path = uri.partition("://")[2].partition("/")[2].strip("/")
    place = Location(parts.scheme, parts.netloc, path, storage, patience)
    if place.endpoint and not any(os.environ.get(name) for name in _CREDENTIALS[place.scheme]):
        raise no_credentials(uri, place.endpoint)
    return place
