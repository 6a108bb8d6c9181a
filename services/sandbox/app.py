"""The composition root of the sandbox: which providers there are, and the one HTTP server that they share."""

from __future__ import annotations

import contextlib
from functools import partial
from typing import TYPE_CHECKING

import uvicorn
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import BaseRoute, Route

from services.sandbox.mail import MailSink
from services.sandbox.messages import MessageProvider
from services.sandbox.script import control

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from starlette.requests import Request

    from services.sandbox.provider import Provider
    from services.sandbox.settings import Settings


def providers(settings: Settings) -> list[Provider]:
    """Name every part of the outside world."""
    return [MailSink(settings.sandbox_smtp), MessageProvider("sms"), MessageProvider("pushes")]


def build(settings: Settings) -> uvicorn.Server:
    """Make the sandbox; nothing listens until its ``run()``, which ends with SIGTERM or SIGINT.

    uvicorn, not granian: inside an event loop that others share, granian's server panics when the interpreter ends.
    """
    return uvicorn.Server(
        uvicorn.Config(
            web(providers(settings)),
            host="127.0.0.1",
            port=settings.sandbox_http,
            log_level="warning",
            access_log=False,
            lifespan="on",
            timeout_graceful_shutdown=2,
        )
    )


def web(parts: Sequence[Provider]) -> Starlette:
    """Make the HTTP side of all ``parts``, with their scripts and a health check; it starts and stops them."""
    routes: list[BaseRoute] = [Route("/healthz", _healthy)]
    for part in parts:
        routes += part.routes()
        routes.append(Route(f"/scripts/{part.name}", partial(control, part.script), methods=["GET", "PUT"]))

    @contextlib.asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        for part in parts:
            await part.start()
        yield
        for part in reversed(parts):
            await part.stop()

    return Starlette(routes=routes, lifespan=lifespan)


async def _healthy(_request: Request) -> JSONResponse:
    return JSONResponse({"status": "serving"})
