"""Orders to the `paymesh up` that runs: a unix socket in DIR/run, on which the supervisor does what `scale` and `deploy` ask.

The processes are the supervisor's children, so it alone can add and remove them; the question is how it is told. A signal
has no words and gives no answer. A setting that it watches in config would make it depend on what it keeps alive, and
would say neither that an order is impossible nor how it goes. A socket in a folder that only its owner may enter needs
no password, ends with the process, and answers on the same connection. Whoever asked may go: what was begun goes on.

An order is one line of JSON with `do`; the answers are events, one JSON object a line, the last one with `exit_code`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import traceback
from typing import TYPE_CHECKING, Any

from services.cli.exits import CommandError, Exit

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Mapping
    from pathlib import Path

    from services.cli.folder import Folder

    Tell = Callable[..., None]
    Do = Callable[[dict[str, Any], Tell], Awaitable[Exit]]

_LINE_MAX = 1 << 20


class Control:
    """The supervisor's side. One order at a time: two that change the same instances have no sensible end."""

    def __init__(self, path: Path, orders: Mapping[str, Do], tell: Tell) -> None:
        """Listen on ``path`` once started, for ``orders`` by name; ``tell`` shows events at the supervisor too."""
        self._path, self._orders, self._tell = path, orders, tell
        self._server: asyncio.Server | None = None
        self._under_way = ""
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Take orders."""
        self._path.unlink(missing_ok=True)
        self._server = await asyncio.start_unix_server(self._heard, self._path, limit=_LINE_MAX)

    async def stop(self) -> None:
        """Take none any more, and leave off where the present one stands."""
        if self._server is None:
            return
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._path.unlink(missing_ok=True)

    async def _heard(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, ValueError):
            order = json.loads(await reader.readline())
            # Not of this connection: whoever asked may be gone before it is done.
            task = asyncio.create_task(self._obey(order, writer))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            return
        writer.close()

    async def _obey(self, order: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        def tell(event: str, text: str | None, **fields: object) -> None:
            self._tell(event, text, **fields)
            _say(writer, {"event": event, "text": text, **fields})

        ended: dict[str, Any] | None = None
        try:
            ended = {"exit_code": int(await self._do(order, tell)), "faults": ()}
        except CommandError as error:
            ended = {"exit_code": int(error.code), "faults": error.faults}
        except Exception:  # noqa: BLE001 - an order must not end the mesh
            ended = {"exit_code": int(Exit.BUG), "faults": (traceback.format_exc(),)}
        finally:
            if ended:  # else the mesh ends: there is no answer
                _say(writer, {"event": "ended", **ended})
            writer.close()

    async def _do(self, order: dict[str, Any], tell: Tell) -> Exit:
        do = self._orders.get(str(order.get("do")))
        if do is None:
            raise CommandError(Exit.BAD_INPUT, f"This mesh takes no order {order.get('do')!r}.")
        if self._under_way:
            raise CommandError(Exit.REFUSED, f"A {self._under_way} is under way; wait until it has ended.")
        self._under_way = f"{order['do']} of {order.get('service')}"
        try:
            return await do(order, tell)
        finally:
            self._under_way = ""


def _say(writer: asyncio.StreamWriter, said: dict[str, Any]) -> None:
    if not writer.is_closing():
        writer.write(json.dumps(said).encode() + b"\n")


def order(folder: Folder, what: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Give the mesh of ``folder`` an order, and yield its events; the last has `exit_code`. Raises CommandError."""
    folder.read_record()  # says in words when nothing runs
    with socket.socket(socket.AF_UNIX) as asked:
        try:
            asked.connect(str(folder.control))
            asked.sendall(json.dumps(what).encode() + b"\n")
        except OSError as error:
            raise CommandError(Exit.UNAVAILABLE, f"The mesh in {folder.path} takes no orders: {error}.") from None
        with asked.makefile("rb") as answers:
            for line in answers:
                event = json.loads(line)
                yield event
                if "exit_code" in event:
                    return
    raise CommandError(Exit.UNAVAILABLE, f"The mesh in {folder.path} ended before it had done it.")
