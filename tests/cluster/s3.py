"""A real S3 server for tests: versitygw over a temporary folder, on loopback, with credentials made up for each start.

    with S3Server() as s3:
        store = s3.store(s3.make_bucket("models"))

Conditional writes are obeyed, also between racing clients: `If-None-Match: *` (create) and `If-Match` (replace this ETag)
answer 412 when the condition does not hold. A refused body of many megabytes may end in a broken connection instead: the
server answers and closes before it has read it all.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import socket
import tempfile
from datetime import timedelta
from pathlib import Path
from typing import Self

import obstore
import urllib3
from obstore.store import S3Store

from tests.cluster.binaries import provide
from tests.cluster.process import ServerFailed, ServerProcess

START_SECONDS = 120
ATTEMPTS = 3


class S3Server:
    """Enter it to start; `endpoint`, `access_key`, `secret_key`, `region` say how to reach it. `address` may be another than loopback."""

    region = "us-east-1"

    def __init__(self, *, address: str = "127.0.0.1") -> None:
        self._address = address
        self.access_key = secrets.token_hex(8)
        self.secret_key = secrets.token_hex(16)

    def __enter__(self) -> Self:
        program = provide("versitygw")["versitygw"]
        with contextlib.ExitStack() as stack:
            self.folder = Path(tempfile.mkdtemp(prefix="s3-"))
            stack.callback(shutil.rmtree, self.folder, ignore_errors=True)
            (self.folder / "buckets").mkdir()
            self._start(program, stack)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def env(self) -> dict[str, str]:
        """The environment variables that S3 clients (obstore, boto3, the aws command) read."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_REGION": self.region,
            "AWS_DEFAULT_REGION": self.region,
            "AWS_ALLOW_HTTP": "true",  # obstore's word for: the endpoint is not https
        }

    def store(self, bucket: str, prefix: str | None = None) -> S3Store:
        """An obstore client of `bucket`, of the keys below `prefix`."""
        return S3Store(
            bucket,
            prefix=prefix,
            endpoint=self.endpoint,
            region=self.region,
            access_key_id=self.access_key,
            secret_access_key=self.secret_key,
            client_options={"allow_http": True},
        )

    def make_bucket(self, name: str) -> str:
        """Creates a bucket and returns its name."""
        url = obstore.sign(self.store(name), "PUT", "", timedelta(minutes=1))  # the root of a bucket is the bucket
        answer = urllib3.request("PUT", url)
        if answer.status != 200:
            raise ServerFailed(f"bucket {name}: {answer.status} {answer.data.decode(errors='replace')}")
        return name

    def _start(self, program: Path, stack: contextlib.ExitStack) -> None:
        for attempt in range(1, ATTEMPTS + 1):
            port = _free_port(self._address)
            self.endpoint = f"http://{self._address}:{port}"
            log = self.folder / "versitygw.log"
            arguments = [f"--port={self._address}:{port}", f"--region={self.region}", "--health=/health"]
            credentials = {"ROOT_ACCESS_KEY_ID": self.access_key, "ROOT_SECRET_ACCESS_KEY": self.secret_key}
            command: list[str | Path] = [program, *arguments, "posix", self.folder / "buckets"]
            server = ServerProcess("versitygw", command, log, env={**os.environ, **credentials})
            try:
                server.wait_until(self._healthy, START_SECONDS)
            except ServerFailed:
                server.stop()
                # versitygw cannot share a port that we hold for it, so another process may have been faster.
                if "address already in use" not in log.read_text(errors="replace") or attempt == ATTEMPTS:
                    raise
            else:
                stack.callback(server.stop)
                return

    def _healthy(self) -> bool:
        try:
            return urllib3.request("GET", f"{self.endpoint}/health", retries=False, timeout=2).status == 200
        except urllib3.exceptions.HTTPError:
            return False


def _free_port(address: str) -> int:
    with socket.socket() as probe:
        probe.bind((address, 0))
        port: int = probe.getsockname()[1]
        return port
