"""A service that fails in the ways that no gRPC server does on purpose: it hangs up, refuses a stream, is unavailable."""

from __future__ import annotations

import base64
import contextlib
import socket
import ssl
import threading
from typing import TYPE_CHECKING, Literal, Self
from urllib.parse import quote

import h2.config
import h2.connection
import h2.errors
import h2.events

from services.kernel.errors import DomainError
from services.platform.status import status_of

if TYPE_CHECKING:
    Failure = Literal["no connection", "stream refused", "unavailable"]

_OK = [(":status", "200"), ("content-type", "application/grpc")]
_EMPTY = b"\0\0\0\0\0"
"""A message without a field, as gRPC frames it."""


def _unavailable() -> list[tuple[str, str]]:
    said = status_of(DomainError("UNAVAILABLE"))
    details = base64.b64encode(said.SerializeToString()).decode().rstrip("=")
    return [
        ("grpc-status", str(said.code)),
        ("grpc-message", quote(said.message, safe=" ")),
        ("grpc-status-details-bin", details),
    ]


class FakePeer:
    """Answers every call with an empty message, after it has failed as often as it was told to."""

    def __init__(self, address: str, tls: ssl.SSLContext) -> None:
        """Serve at host:port with a certificate; it asks for HTTP/2 alone."""
        host, _, port = address.rpartition(":")
        tls.set_alpn_protocols(["h2"])
        self._at, self._tls = (host, int(port)), tls
        self._failure: Failure = "unavailable"
        self._left = 0
        self.tried = 0
        """Calls that came, or connections that were to bring one."""
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._listener = socket.socket()

    def __enter__(self) -> Self:
        """Listen."""
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._listener.bind(self._at)
        self._listener.listen(64)
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        """Close everything."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._hang_up()

    def fail(self, failure: Failure, times: int) -> None:
        """Fail so often, and count from 0; who wants a connection must make a new one."""
        with self._lock:
            self._failure, self._left, self.tried = failure, times, 0
        if failure == "no connection":
            self._hang_up()

    def _hang_up(self) -> None:
        for each in [*self._open]:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def _fails(self, *failures: Failure) -> bool:
        with self._lock:
            if self._failure not in failures:
                return False
            self.tried += 1
            self._left -= 1
            return self._left >= 0

    def _accept(self) -> None:
        while True:
            try:
                plain, _ = self._listener.accept()
            except OSError:
                return
            if self._fails("no connection"):
                plain.close()
            else:
                threading.Thread(target=self._serve, args=(plain,), daemon=True).start()

    def _serve(self, plain: socket.socket) -> None:
        with contextlib.suppress(OSError), self._tls.wrap_socket(plain, server_side=True) as secured:
            self._open.add(secured)
            try:
                self._talk(secured)
            finally:
                self._open.discard(secured)

    def _talk(self, secured: ssl.SSLSocket) -> None:
        connection = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
        connection.initiate_connection()
        secured.sendall(connection.data_to_send())
        while data := secured.recv(1 << 16):
            for event in connection.receive_data(data):
                if isinstance(event, h2.events.DataReceived):
                    connection.acknowledge_received_data(event.flow_controlled_length or 0, event.stream_id)
                elif isinstance(event, h2.events.StreamEnded):
                    self._answer(connection, event.stream_id)
            secured.sendall(connection.data_to_send())

    def _answer(self, connection: h2.connection.H2Connection, stream: int) -> None:
        if not self._fails("stream refused", "unavailable"):
            connection.send_headers(stream, _OK)
            connection.send_data(stream, _EMPTY)
            connection.send_headers(stream, [("grpc-status", "0")], end_stream=True)
        elif self._failure == "stream refused":
            connection.reset_stream(stream, h2.errors.ErrorCodes.REFUSED_STREAM)
        else:
            connection.send_headers(stream, [*_OK, *_unavailable()], end_stream=True)
