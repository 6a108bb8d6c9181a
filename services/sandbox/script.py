"""How a provider is to misbehave: a script that a test sets and that wears off."""

from __future__ import annotations

import asyncio
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Protocol

from starlette.responses import JSONResponse

if TYPE_CHECKING:
    from collections.abc import Mapping

    from starlette.requests import Request

DELAY_MAX_MS = 60_000
FAIL_MAX = 1_000_000


class Scripted(Protocol):
    """A script of any kind, as it is set and read over HTTP."""

    def set(self, wanted: Mapping[str, Any]) -> list[str]:
        """Replace the script; return what is wrong with it (then nothing changes)."""
        ...

    def shown(self) -> dict[str, Any]:
        """Return it as JSON."""
        ...


@dataclass(slots=True)
class Script:
    """The next ``fail`` messages are answered with a failure, each message ``delay_ms`` late.

    With ``accept`` a failing message is taken nevertheless: the sender cannot tell that it arrived.
    """

    fail: int = 0
    delay_ms: int = 0
    accept: bool = False

    def set(self, wanted: Mapping[str, Any]) -> list[str]:
        """Take over what is given, the rest goes back to its default; return what is wrong with it (then nothing changes)."""
        limits = {"fail": FAIL_MAX, "delay_ms": DELAY_MAX_MS}
        faults = [f"{name}: no such setting" for name in wanted.keys() - {"fail", "delay_ms", "accept"}]
        for name, high in limits.items():
            value = wanted.get(name, 0)
            if type(value) is not int or not 0 <= value <= high:
                faults.append(f"{name}: a whole number from 0 to {high}")
        if not isinstance(wanted.get("accept", False), bool):
            faults.append("accept: true or false")
        if not faults:
            fresh = Script(**wanted)
            self.fail, self.delay_ms, self.accept = fresh.fail, fresh.delay_ms, fresh.accept
        return faults

    def shown(self) -> dict[str, Any]:
        """Return the settings as they stand."""
        return asdict(self)

    async def play(self) -> bool:
        """Wait as scripted; return whether this message is to fail."""
        if self.delay_ms:
            await asyncio.sleep(self.delay_ms / 1000)
        if not self.fail:
            return False
        self.fail -= 1
        return True


async def control(script: Scripted, request: Request) -> JSONResponse:
    """GET a script, or PUT another one as JSON."""
    if request.method == "PUT":
        try:
            wanted = await request.json()
        except ValueError:
            wanted = None
        faults = script.set(wanted) if isinstance(wanted, dict) else ["a JSON object is wanted"]
        if faults:
            return JSONResponse({"faults": faults}, status_code=400)
    return JSONResponse(script.shown())
