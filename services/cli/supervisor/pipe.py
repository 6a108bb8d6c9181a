"""The end of a pipe that a child speaks into."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

_READ = 1 << 16


class Pipe:
    """Hands on what is written to ``entry``, line by line; a line longer than 64 KiB comes in pieces.

    Not asyncio's own pipe: with it a process counts as running for as long as a grandchild holds the pipe open.
    """

    def __init__(self, hear: Callable[[str], None]) -> None:
        """Open the pipe and hand lines to ``hear``, on the running loop."""
        self._exit, self.entry = os.pipe()
        os.set_blocking(self._exit, False)
        self._hear, self._rest = hear, b""
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._exit, self._read)

    def handed_over(self) -> None:
        """Close our own copy of ``entry``, once the child has it."""
        os.close(self.entry)

    def close(self) -> None:
        """Hand on what is still in the pipe, and close it."""
        while self._read():
            pass
        if self._rest:
            self._hear(self._rest.decode(errors="replace"))
        self._loop.remove_reader(self._exit)
        os.close(self._exit)

    def _read(self) -> bool:
        """Read once; False: there is nothing now."""
        try:
            chunk = os.read(self._exit, _READ)
        except BlockingIOError:
            return False
        if not chunk:  # nobody holds the other end; the reader would be called for ever
            self._loop.remove_reader(self._exit)
            return False
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        if len(self._rest) >= _READ:
            lines, self._rest = [*lines, self._rest], b""
        for line in lines:
            self._hear(line.decode(errors="replace"))
        return True
