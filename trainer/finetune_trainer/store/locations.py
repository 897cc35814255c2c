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
from finetune_trainer.credentials import CREDENTIALS
from finetune_trainer.log import logger
from finetune_trainer.store.conditions import FORBID_OVERWRITING, STANDARD, Conditions
from finetune_trainer.store.errors import asks_for_virtual_host, no_credentials
from finetune_trainer.store.names import is_inside

SILENCE = 60.0
"""Seconds without a byte after which a connection counts as dead."""
QUICK_RETRY = 3.0
"""Seconds that the client repeats a small request, before its caller does."""
LONGEST_RETRY = 170.0
"""Seconds. A request is signed once for all its retries, and servers refuse signatures that are minutes old."""

BUCKETS = ("s3", "gs", "az")

_asked_for_virtual_hosts: set[tuple[str | None, str]] = set()
"""Endpoints and buckets whose store refused to find the bucket in the path."""
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
    conditions: Conditions = STANDARD

    @property
    def endpoint(self) -> str | None:
        return self.storage.endpoint if self.scheme in BUCKETS else None

    @property
    def secret(self) -> str | None:
        """The Secret that has the credentials, where one is named."""
        return self.storage.secret_ref.name if self.storage.secret_ref else None

    @property
    def is_local(self) -> bool:
        return self.scheme == "file"

    @property
    def quick(self) -> ObjectStore:
        return self._client(min(self.patience, QUICK_RETRY))

    @property
    def creating(self) -> ObjectStore:
        """For small files that must not exist yet."""
        return self._client(min(self.patience, QUICK_RETRY), self.conditions.header)

    @property
    def bulk(self) -> ObjectStore:
        return self._client(min(self.patience, LONGEST_RETRY))

    @property
    def is_virtual_host(self) -> bool:
        """Whether the bucket is named in the host instead of the path."""
        if self.scheme != "s3":
            return False
        asked = (self.endpoint, self.bucket) in _asked_for_virtual_hosts
        return self.storage.addressing == "virtualHost" or (self.storage.addressing == "auto" and asked)

    def names_bucket_in_host(self, said: str) -> bool:
        """Whether a refusal asks for the bucket in the host's name, which it gets from now on, for everybody in this process."""
        if self.scheme != "s3" or self.storage.addressing != "auto" or not asks_for_virtual_host(said):
            return False
        if not self.is_virtual_host:  # else another thread has heard it before
            _asked_for_virtual_hosts.add((self.endpoint, self.bucket))
            logger.info("%s wants the bucket %s in the host's name.", self.endpoint or "The store", self.bucket)
        return True

    @cached_property
    def _clients(self) -> dict[tuple[float, str | None, bool], ObjectStore]:
        return {}

    def _client(self, retry: float, header: str | None = None) -> ObjectStore:
        key = (retry, header, self.is_virtual_host)
        if key not in self._clients:  # made twice by two threads, either will do
            self._clients[key] = self._store(retry, header)
        return self._clients[key]

    def _store(self, retry: float, header: str | None) -> ObjectStore:
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
        if header:
            options["default_headers"] = {header: FORBID_OVERWRITING[header]}
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
            if self.is_virtual_host and address != "https://":
                common["endpoint"] = _with_bucket(address, self.bucket)
            return S3Store(
                self.bucket,
                region=region or DEFAULT_REGION,
                unsigned_payload=address.startswith("https://"),
                virtual_hosted_style_request=self.is_virtual_host,
                **common,
            )
        if endpoint:
            common["base_url" if self.scheme == "gs" else "endpoint"] = endpoint
        return GCSStore(self.bucket, **common) if self.scheme == "gs" else AzureStore(self.bucket, **common)


def _with_bucket(address: str, bucket: str) -> str:
    scheme, _, host = address.partition("://")
    return address if host.startswith(f"{bucket}.") else f"{scheme}://{bucket}.{host}"


def locate(uri: str, storage: Storage, patience: float) -> Location:
    """Where `uri` is. Raises JobError InvalidSpec for what is no URI of a store, StorageDenied when credentials must be missing."""
    scheme, bucket, path = _split(uri)
    place = Location(scheme, bucket, path, storage, patience)
    # Only the cloud's own endpoint may know this machine without.
    if place.endpoint and not any(
        c.suffices and os.environ.get(c.name) for c in CREDENTIALS if c.store == place.scheme
    ):
        raise no_credentials(uri, place.endpoint, place.secret)
    return place


def file_path(uri: str) -> str:
    """The path that a `file:///` URI names. Raises JobError InvalidSpec when it names none."""
    return f"/{_split(uri)[2]}"


def _split(uri: str) -> tuple[str, str, str]:
    """Scheme, bucket and path, without a slash at either end. Raises JobError InvalidSpec."""
    parts = urlsplit(uri)
    scheme, _, rest = uri.partition("://")
    bucket, _, path = rest.partition("/")
    path = path.removesuffix("/")
    if scheme == "file":
        is_path = not parts.query and not parts.fragment  # else the folder would be another than was written
        is_place = is_path and bool(path) and bucket in ("", "localhost")
        try:
            bucket, path = "", unquote(path, errors="strict")
        except UnicodeDecodeError:
            is_place = False
    else:
        # Keys of object stores are taken as written: a % in them is a %.
        is_place = scheme in (*BUCKETS, "memory") and bool(bucket) and bucket == parts.netloc and "@" not in bucket
    if not is_place or (path and not is_inside(path)):
        raise JobError(
            FailureReason.INVALID_SPEC,
            f"{uri!r} is no folder in a store: s3://bucket/path, gs://bucket/path, az://container/path or file:///path, "
            "with no empty part, `.`, `..` or control character in the path",
        )
    return scheme, bucket, path
