"""A load generator that costs little itself: HTTP/2 frames made beforehand, sent and counted with a few operations each.

A client in Python's gRPC would take as much CPU as the server that it measures. Frames are those of RFC 9113; header
blocks are literals without indexing (RFC 7541, 6.2.2), and we announce a header table of size 0, so that what peers
send is stateless too and a block that was decoded once is known by its bytes.
"""

from __future__ import annotations

import selectors
import socket
import ssl
import struct
import time
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from hpack import Decoder

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_DATA, _HEADERS, _RST, _SETTINGS, _PING, _GOAWAY, _WINDOW = 0, 1, 3, 4, 6, 7, 8
_END_STREAM, _END_HEADERS, _ACK = 0x1, 0x4, 0x1
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_WINDOW_MAX = 2**31 - 1
_DEFAULT_WINDOW = 65_535
_IDLE_S = 20.0


def header_block(headers: Iterable[tuple[str, str]]) -> bytes:
    """Encode headers as literals that no table remembers."""
    return b"".join(b"\x00" + _text(name) + _text(value) for name, value in headers)


def _text(text: str) -> bytes:
    raw = text.encode()
    length, out = len(raw), b""
    if length < 127:
        return bytes([length]) + raw
    out, length = b"\x7f", length - 127
    while length >= 128:
        out, length = out + bytes([length % 128 + 128]), length // 128
    return out + bytes([length]) + raw


def grpc_body(message: bytes) -> bytes:
    """Frame a message as gRPC does: not compressed, its length, its bytes."""
    return struct.pack(">BI", 0, len(message)) + message


@dataclass(frozen=True, slots=True)
class Prepared:
    """A request whose bytes are made; only the stream id is missing."""

    headers: bytes
    body: bytes


@dataclass(slots=True)
class Outcome:
    """What a run saw: seconds in all, seconds of each request, how many ended with which status ("0" is gRPC's OK)."""

    elapsed: float = 0.0
    latencies: list[float] = field(default_factory=list)
    statuses: dict[str, int] = field(default_factory=dict)

    @property
    def rate(self) -> float:
        """Requests in a second."""
        return len(self.latencies) / self.elapsed

    def percentile(self, share: float) -> float:
        """Return the latency, in seconds, below which ``share`` of the requests lie."""
        ordered = sorted(self.latencies)
        return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


class Connection:
    """One HTTP/2 connection that keeps ``in_flight`` streams busy."""

    def __init__(self, link: socket.socket, in_flight: int) -> None:
        """Begin HTTP/2 on a connected (and, with TLS, negotiated) socket."""
        self.socket, self.in_flight = link, in_flight
        self._next_id, self._open = 1, dict[int, tuple[float, str]]()
        self._window, self._rest, self._decoder = _DEFAULT_WINDOW, b"", Decoder()
        self._known: dict[bytes, str] = {}
        settings = struct.pack(">HIHIHI", 0x1, 0, 0x2, 0, 0x4, _WINDOW_MAX)
        self._outgoing = bytearray(_PREFACE + _frame(_SETTINGS, 0, 0, settings))
        self._outgoing += _frame(_WINDOW, 0, 0, struct.pack(">I", _WINDOW_MAX - _DEFAULT_WINDOW))

    @property
    def busy(self) -> bool:
        """Whether streams are open."""
        return bool(self._open)

    def fill(self, waiting: deque[Prepared]) -> None:
        """Open streams until enough are in flight, and send."""
        now = time.perf_counter()
        while waiting and len(self._open) < self.in_flight and self._window >= len(waiting[0].body):
            request = waiting.popleft()
            stream, flags = self._next_id, _END_HEADERS | (0 if request.body else _END_STREAM)
            self._next_id += 2
            self._open[stream] = (now, "")
            self._outgoing += _frame(_HEADERS, flags, stream, request.headers)
            if request.body:
                self._window -= len(request.body)
                self._outgoing += _frame(_DATA, _END_STREAM, stream, request.body)
        self._send()

    def _send(self) -> None:
        while self._outgoing:
            try:
                sent = self.socket.send(self._outgoing)
            except (BlockingIOError, ssl.SSLWantWriteError, ssl.SSLWantReadError):
                return
            del self._outgoing[:sent]

    def receive(self, outcome: Outcome) -> None:
        """Read what is there and put ended streams down in ``outcome``."""
        while True:
            try:
                chunk = self.socket.recv(1 << 18)
            except (BlockingIOError, ssl.SSLWantReadError):
                return
            if not chunk:
                raise ConnectionError("the server closed the connection")
            self._rest += chunk
            self._take_frames(outcome)
            if len(chunk) < 1 << 14 and not isinstance(self.socket, ssl.SSLSocket):
                return

    def _take_frames(self, outcome: Outcome) -> None:
        data, at, end = self._rest, 0, len(self._rest)
        while end - at >= 9:
            length = int.from_bytes(data[at : at + 3])
            if end - at - 9 < length:
                break
            kind, flags, stream = data[at + 3], data[at + 4], int.from_bytes(data[at + 5 : at + 9]) & _WINDOW_MAX
            self._frame(kind, flags, stream, data[at + 9 : at + 9 + length], outcome)
            at += 9 + length
        self._rest = data[at:]

    def _frame(self, kind: int, flags: int, stream: int, payload: bytes, outcome: Outcome) -> None:
        if kind == _HEADERS:
            began, status = self._open[stream]
            self._open[stream] = (began, self._status(payload) or status)
        elif kind == _WINDOW and stream == 0:
            self._window += int.from_bytes(payload)
        elif kind == _SETTINGS and not flags & _ACK:
            self._outgoing += _frame(_SETTINGS, _ACK, 0, b"")
        elif kind == _PING and not flags & _ACK:
            self._outgoing += _frame(_PING, _ACK, 0, payload)
        elif kind == _GOAWAY:
            raise ConnectionError("the server said GOAWAY")
        elif kind == _RST:
            self._end(stream, f"reset {int.from_bytes(payload)}", outcome)
        if kind in {_HEADERS, _DATA} and flags & _END_STREAM:
            self._end(stream, self._open[stream][1], outcome)

    def _end(self, stream: int, status: str, outcome: Outcome) -> None:
        began, _ = self._open.pop(stream)
        outcome.latencies.append(time.perf_counter() - began)
        outcome.statuses[status] = outcome.statuses.get(status, 0) + 1

    def _status(self, block: bytes) -> str:
        """Return grpc-status where a block has it, else the HTTP status."""
        known = self._known.get(block)
        if known is None:
            headers = {str(name): str(value) for name, value in self._decoder.decode(block)}
            known = headers.get("grpc-status") or headers.get(":status") or ""
            if len(self._known) < 1000:
                self._known[block] = known
        return known


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return struct.pack(">HBBBI", len(payload) >> 8, len(payload) & 0xFF, kind, flags, stream) + payload


def connect_unix(path: str) -> socket.socket:
    """Connect to a unix socket."""
    link = socket.socket(socket.AF_UNIX)
    link.connect(path)
    link.settimeout(0)
    return link


def connect_tls(host: str, port: int, ca: str) -> socket.socket:
    """Connect with TLS and agree on HTTP/2."""
    context = ssl.create_default_context(cafile=ca)
    context.set_alpn_protocols(["h2"])
    plain = socket.create_connection((host, port))
    plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    link = context.wrap_socket(plain, server_hostname=host)
    link.settimeout(0)
    return link


def run(links: Sequence[socket.socket], requests: Sequence[Prepared], in_flight: int) -> Outcome:
    """Send every request, ``in_flight`` at a time over ``links``, and wait for the answers. Closed loop."""
    waiting, outcome = deque(requests), Outcome()
    connections = [Connection(link, max(1, in_flight // len(links))) for link in links]
    with selectors.DefaultSelector() as selector:
        for connection in connections:
            selector.register(connection.socket, selectors.EVENT_READ, connection)
        began = time.perf_counter()
        for connection in connections:
            connection.fill(waiting)
        while waiting or any(c.busy for c in connections):
            ready = selector.select(_IDLE_S)
            if not ready:
                raise TimeoutError(f"no answer for {_IDLE_S:g} s; {len(outcome.latencies)} came before")
            for key, _ in ready:
                key.data.receive(outcome)
                key.data.fill(waiting)
        outcome.elapsed = time.perf_counter() - began
    for link in links:
        link.close()
    return outcome
