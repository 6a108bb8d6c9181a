"""A TCP proxy of ours: a wire between two that can be made slow, narrow, cut or mute while it is in use."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_CHUNK = 16 << 10


@dataclass
class Wire:
    """Where a connection goes, and what is done to its bytes; changed by a test at any time, from any thread."""

    target: str
    latency_s: float = 0.0
    bytes_per_s: float = 0.0
    """0: as many as come."""
    mute: bool = False
    """Nothing passes, in either direction; nothing is closed either."""
    close_after_s: float = 0.0
    """How long the end of one side is kept from the other."""
    address: str = ""
    accepted: int = 0

    def __post_init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._open: set[asyncio.StreamWriter] = set()

    @contextmanager
    def running(self) -> Iterator[Wire]:
        """Take connections until the block ends."""
        thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        thread.start()
        server = asyncio.run_coroutine_threadsafe(asyncio.start_server(self._serve, "127.0.0.1", 0), self._loop).result(
            5
        )
        host, port = server.sockets[0].getsockname()
        self.address = f"{host}:{port}"
        try:
            yield self
        finally:
            self._loop.call_soon_threadsafe(server.close)
            self.cut()
            self._loop.call_soon_threadsafe(self._loop.stop)
            thread.join(5)

    def cut(self, *, reset: bool = False) -> None:
        """End every connection that is open: in order, or by RST."""
        asyncio.run_coroutine_threadsafe(self._cut(reset=reset), self._loop).result(5)

    async def _cut(self, *, reset: bool) -> None:
        for writer in list(self._open):
            if not reset:
                writer.close()
                continue
            with contextlib.suppress(OSError):  # its other side has ended it already
                linger = struct.pack("ii", 1, 0)
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        host, _, port = self.target.rpartition(":")
        try:
            far_reader, far_writer = await asyncio.open_connection(host, int(port))
        except OSError:
            writer.close()
            return
        both = {writer, far_writer}
        self._open |= both
        await asyncio.gather(self._carry(reader, far_writer), self._carry(far_reader, writer))
        self._open -= both

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(_CHUNK):
                while self.mute:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)  # a plain flag, which a test in another thread sets
                await asyncio.sleep(self.latency_s + (len(data) / self.bytes_per_s if self.bytes_per_s else 0.0))
                writer.write(data)
                await writer.drain()
        await asyncio.sleep(self.close_after_s)
        writer.close()
