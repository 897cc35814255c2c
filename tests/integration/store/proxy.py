"""A TCP proxy before a server, which can be cut off and put back: an outage that only its clients see. It knows what they asked."""

from __future__ import annotations

import contextlib
import re
import socket
import threading
from collections.abc import Callable
from typing import Self

REQUEST = re.compile(rb"((?:GET|HEAD|PUT|POST|DELETE) \S+) HTTP/1\.1\r\n")


class Proxy:
    """Enter it to start; `endpoint` leads to the server. `cut()` breaks all connections and refuses new ones."""

    def __init__(self, target: str) -> None:
        host, _, port = target.removeprefix("http://").rpartition(":")
        self._target = (host, int(port))
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._held: tuple[str, threading.Event, threading.Event] | None = None
        self.requests: list[str] = []
        """Method and address of each request so far."""

    def __enter__(self) -> Self:
        self._port = 0
        self.mend()
        return self

    def __exit__(self, *_: object) -> None:
        self.let_go()
        self.cut()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def hold(self, request: str) -> threading.Event:
        """Keep back, until `let_go`, all requests that match this pattern. The event tells when the first has come."""
        come = threading.Event()
        self._held = (request, come, threading.Event())
        return come

    def let_go(self) -> None:
        if self._held is not None:
            held, self._held = self._held, None
            held[2].set()

    def cut(self) -> None:
        with self._lock:
            for connection in (self._listener, *self._open):
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
                connection.close()
            self._open.clear()

    def mend(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", self._port))
        self._port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = listener.accept()
                server = socket.create_connection(self._target)
                with self._lock:
                    self._open |= {client, server}
                threading.Thread(target=_forward, args=(client, server, self._look), daemon=True).start()
                threading.Thread(target=_forward, args=(server, client), daemon=True).start()

    def _look(self, data: bytes) -> None:
        for request in REQUEST.findall(data):
            asked = request.decode()
            self.requests.append(asked)
            if self._held is not None and re.search(self._held[0], asked):
                _, come, let_go = self._held
                come.set()
                let_go.wait()


def _forward(source: socket.socket, sink: socket.socket, look: Callable[[bytes], None] = lambda data: None) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            look(data)
            sink.sendall(data)
    for end in (source, sink):
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
