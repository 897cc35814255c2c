"""What stands between a pod and the world in a company: a server with a certificate of the company's own, and a proxy.

    with TlsFront("http://127.0.0.1:9000", certificate, key) as front, ForwardProxy() as proxy: ...

Both pass bytes on as they are.
"""

from __future__ import annotations

import contextlib
import re
import socket
import ssl
import threading
from pathlib import Path
from typing import Self

_REQUEST = re.compile(rb"(\S+) (?:http://)?([^\s/:]+):(\d+)(\S*) HTTP/1\.1\r\n")


class _Gateway:
    """A listener on loopback, with a thread for each direction of each connection."""

    def __enter__(self) -> Self:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # closed
            while True:
                connection, _ = self._listener.accept()
                threading.Thread(target=self._serve_quietly, args=(connection,), daemon=True).start()

    def _serve_quietly(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError), connection:
            self._serve(connection)

    def _serve(self, connection: socket.socket) -> None:
        raise NotImplementedError


class TlsFront(_Gateway):
    """https before a server that speaks http; `endpoint` is its address."""

    def __init__(self, target: str, certificate: Path, key: Path) -> None:
        host, _, port = target.removeprefix("http://").rpartition(":")
        self._target = (host, int(port))
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(certificate, key)

    @property
    def endpoint(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    def _serve(self, connection: socket.socket) -> None:
        with self._context.wrap_socket(connection, server_side=True) as client:
            _join(client, socket.create_connection(self._target))


class ForwardProxy(_Gateway):
    """What HTTP_PROXY and HTTPS_PROXY name; `asked` holds the host and port of each request so far."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def _serve(self, connection: socket.socket) -> None:
        head = b""
        while b"\r\n\r\n" not in head:
            if not (more := connection.recv(65536)):
                return
            head += more
        request = _REQUEST.match(head)
        assert request, head
        method, host, port, path = request.groups()
        self.asked.append(f"{host.decode()}:{port.decode()}")
        server = socket.create_connection((host.decode(), int(port)))
        if method == b"CONNECT":
            connection.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
        else:
            server.sendall(method + b" " + path + b" HTTP/1.1\r\n" + head[request.end() :])
        _join(connection, server)


def _join(client: socket.socket, server: socket.socket) -> None:
    with server:
        back = threading.Thread(target=_pump, args=(server, client), daemon=True)
        back.start()
        _pump(client, server)
        back.join()


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while chunk := source.recv(65536):
            sink.sendall(chunk)
    with contextlib.suppress(OSError):
        sink.shutdown(socket.SHUT_WR)
