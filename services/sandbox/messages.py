"""SMS and push: providers that take a message as JSON over HTTP and answer its id."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.responses import JSONResponse
from starlette.routing import BaseRoute, Route

from services.sandbox.inbox import Inbox
from services.sandbox.script import Script

if TYPE_CHECKING:
    from collections.abc import Sequence

    from starlette.requests import Request

TEXT_MAX = 20_000
TO_MAX = 200


class MessageProvider:
    """POST /{name} ``{"to": …, "text": …, "subject"?: …}`` -> ``{"id": …}``; GET /{name} lists what came.

    An Idempotency-Key header makes a repeat the same message. Answers 400 to what is no message, 503 where its script
    says so.
    """

    def __init__(self, name: str) -> None:
        """Serve at /``name``."""
        self.name = name
        self.script = Script()
        self.inbox = Inbox(name)

    def routes(self) -> Sequence[BaseRoute]:
        """Return the two routes."""
        path = f"/{self.name}"
        return [Route(path, self._take, methods=["POST"]), Route(path, self.inbox.answer, methods=["GET"])]

    async def start(self) -> None:
        """Nothing beside HTTP."""

    async def stop(self) -> None:
        """Nothing beside HTTP."""

    async def _take(self, request: Request) -> JSONResponse:
        try:
            body = await request.json()
        except ValueError:
            body = None
        fields = [body.get(name) if isinstance(body, dict) else None for name in ("to", "text")]
        subject = body.get("subject", "") if isinstance(body, dict) else ""
        if not all(isinstance(each, str) and each for each in fields) or not isinstance(subject, str):
            return JSONResponse({"error": "to and text are wanted, as strings"}, status_code=400)
        to, text = str(fields[0]), str(fields[1])
        if len(to) > TO_MAX or len(text) > TEXT_MAX:
            return JSONResponse({"error": f"at most {TO_MAX} characters of to, {TEXT_MAX} of text"}, status_code=400)
        failing = await self.script.play()
        made = ""
        if not failing or self.script.accept:
            made = self.inbox.take(to=(to,), subject=subject, text=text, key=request.headers.get("idempotency-key", ""))
        if failing:
            return JSONResponse({"error": "the provider is not well"}, status_code=503)
        return JSONResponse({"id": made})
