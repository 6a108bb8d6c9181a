"""What a provider received: the newest of it, in memory."""

from __future__ import annotations

import itertools
import time
from collections import deque
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

from starlette.responses import JSONResponse

if TYPE_CHECKING:
    from starlette.requests import Request

RECEIVED_MAX = 10_000
"""Messages kept per provider; older ones are forgotten."""


@dataclass(frozen=True, slots=True)
class Message:
    """A message as the receiver's provider has it. ``time_ms`` is the wall clock when it came."""

    id: str
    to: tuple[str, ...]
    subject: str
    text: str
    time_ms: int


@dataclass(slots=True)
class Inbox:
    """The messages of one provider, oldest first, and the sender's key of each that brought one."""

    prefix: str
    _messages: deque[Message] = field(default_factory=lambda: deque(maxlen=RECEIVED_MAX))
    _keys: dict[str, str] = field(default_factory=dict)
    _numbers: itertools.count[int] = field(default_factory=lambda: itertools.count(1))

    def take(self, *, to: tuple[str, ...], subject: str, text: str, key: str = "") -> str:
        """Keep a message and return its id. A ``key`` seen before is the same message: kept once, same id."""
        if key and (known := self._keys.get(key)):
            return known
        made = f"{self.prefix}-{next(self._numbers)}"
        self._messages.append(Message(made, to, subject, text, time.time_ns() // 1_000_000))
        if key:
            self._keys[key] = made
            if len(self._keys) > RECEIVED_MAX:
                del self._keys[next(iter(self._keys))]
        return made

    def messages(self, to: str = "") -> list[Message]:
        """Messages to ``to``, or all of them, oldest first."""
        return [each for each in self._messages if not to or to in each.to]

    async def answer(self, request: Request) -> JSONResponse:
        """Answer GET: ``{"messages": [...]}``, narrowed by ``?to=``."""
        found = self.messages(request.query_params.get("to", ""))
        return JSONResponse({"messages": [asdict(each) for each in found]})
