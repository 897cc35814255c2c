"""A server of Azure's blob storage for tests: azurite in memory, on loopback, with an account made up for each start.

    with AzureServer() as azure:
        azure.make_container("models")

Azure names the account in the host, which no resolver knows here: `endpoint` is reached through a proxy that takes requests for it
and passes them on to `address`.
"""

from __future__ import annotations

import base64
import contextlib
import hmac
import os
import secrets
import shutil
import socket
import tempfile
from email.utils import formatdate
from pathlib import Path
from typing import Self

import urllib3

from tests.cluster.npm_packages import provide_package
from tests.cluster.process import ServerFailed, ServerProcess

START_SECONDS = 120
VERSION = "2023-11-03"
"""Of the protocol."""


class AzureServer:
    """Enter it to start."""

    account = "finetune"
    endpoint = "http://finetune.blob.example"

    def __init__(self) -> None:
        self.key = base64.b64encode(secrets.token_bytes(32)).decode()

    def __enter__(self) -> Self:
        main = provide_package("azurite") / "dist/src/blob/main.js"
        with contextlib.ExitStack() as stack:
            folder = Path(tempfile.mkdtemp(prefix="azure-"))
            stack.callback(shutil.rmtree, folder, ignore_errors=True)
            with socket.create_server(("127.0.0.1", 0)) as probe:
                self._port: int = probe.getsockname()[1]
            self.address = f"127.0.0.1:{self._port}"
            options = ["--inMemoryPersistence", "--silent", "--disableTelemetry", "--skipApiVersionCheck"]
            command: list[str | Path] = [
                "node",
                main,
                "--blobHost",
                "127.0.0.1",
                "--blobPort",
                str(self._port),
                *options,
            ]
            accounts = {"AZURITE_ACCOUNTS": f"{self.account}:{self.key}"}
            server = ServerProcess("azurite", command, folder / "azurite.log", env={**os.environ, **accounts})
            stack.callback(server.stop)
            server.wait_until(self._answers, START_SECONDS)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def env(self) -> dict[str, str]:
        """The environment variables that clients read."""
        return {"AZURE_STORAGE_ACCOUNT_NAME": self.account, "AZURE_STORAGE_ACCOUNT_KEY": self.key}

    def make_container(self, name: str) -> str:
        """Creates a container and returns its name."""
        date = formatdate(usegmt=True)
        text = f"PUT{12 * chr(10)}x-ms-date:{date}\nx-ms-version:{VERSION}\n/{self.account}/{name}\nrestype:container"
        signature = base64.b64encode(hmac.digest(base64.b64decode(self.key), text.encode(), "sha256")).decode()
        headers = {
            "Host": self.endpoint.removeprefix("http://"),
            "x-ms-date": date,
            "x-ms-version": VERSION,
            "Authorization": f"SharedKey {self.account}:{signature}",
        }
        answer = urllib3.request("PUT", f"http://{self.address}/{name}?restype=container", headers=headers)
        if answer.status != 201:
            raise ServerFailed(f"container {name}: {answer.status} {answer.data.decode(errors='replace')}")
        return name

    def _answers(self) -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self._port), timeout=1):
            return True
        return False
