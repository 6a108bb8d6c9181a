"""The composition root of the sandbox: which providers there are, and the one HTTP server that they share."""

from __future__ import annotations

import contextlib
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import uvicorn
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import BaseRoute, Route

from services.sandbox import keys
from services.sandbox.acquirer import Acquirer, House
from services.sandbox.alipay.gateway import Alipay
from services.sandbox.cards.network import CardNetwork
from services.sandbox.mail import MailSink
from services.sandbox.messages import MessageProvider
from services.sandbox.payer import Front, book_route
from services.sandbox.script import control
from services.sandbox.sockets import DroppableProtocol
from services.sandbox.wechat.server import WechatPay

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from starlette.requests import Request

    from services.sandbox.provider import Provider
    from services.sandbox.settings import Settings


def providers(settings: Settings) -> list[Provider]:
    """Name every part of the outside world."""
    messages: list[Provider] = [MailSink(settings.sandbox_smtp), MessageProvider("sms"), MessageProvider("pushes")]
    if not settings.sandbox_folder:
        return messages
    folder = Path(settings.sandbox_folder)
    keys.make(folder)
    house = House.at(folder, time_scale=settings.sandbox_time_scale, ca_file=settings.sandbox_ca)
    return [*messages, *acquirers(house)]


def acquirers(house: House) -> list[Acquirer]:
    """Name the providers of payments; the keys are there."""
    return [
        Alipay(house, keys.alipay(house.folder)),
        WechatPay(house, keys.wechat(house.folder)),
        CardNetwork(house, keys.cards(house.folder)),
    ]


def build(settings: Settings) -> uvicorn.Server:
    """Make the sandbox; nothing listens until its ``run()``, which ends with SIGTERM or SIGINT.

    uvicorn, not granian: inside an event loop that others share, granian's server panics when the interpreter ends.
    """
    return uvicorn.Server(
        uvicorn.Config(
            web(providers(settings)),
            host="127.0.0.1",
            port=settings.sandbox_http,
            http=DroppableProtocol,
            log_level="warning",
            access_log=False,
            proxy_headers=False,  # connections are found by the client's true address
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
    payments = [part for part in parts if isinstance(part, Acquirer)]
    routes += [route for each in payments for route in Front(each).routes()]
    routes.append(book_route(payments))

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
