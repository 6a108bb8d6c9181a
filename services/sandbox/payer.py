"""The payer and the tester, over HTTP, for each provider by its name (alipay, wechat, cards).

POST /payer/{name}/{request id}/{pay|refuse|open|…}
    What the payer does. Body: what the merchant gave him (the adapter's `action`), or nothing.
    200 {"charge", "return_url"} · 402 {"refused": why} · 400, 404, 409 {"error"}; a browser's form is redirected.
GET /payer/{name}/{request id}: a page for people
GET /callbacks/{name}?request_id=: every attempt to call back, and what was answered
POST /callbacks/{name}/{request id} {"forge"?, "times"?}: send one now (again), true or forged, and await the answers
GET, PUT, POST /scripts/{name}: services/sandbox/rules.py
GET /book?provider=&request_id=: {"charges": […], "more": bool}, the newest; all of it is in the file of services/sandbox/book.py
"""

from __future__ import annotations

import asyncio
import html
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from services.sandbox.acquirer import Acquirer, PayerRefused, read
from services.sandbox.book import UNPAID

TIMES_MAX = 1_000
SHOWN_MAX = 10_000
"""Charges that GET /book shows at most, of any provider."""


class Front:
    """What tests and demonstrations do at one provider."""

    def __init__(self, acquirer: Acquirer) -> None:
        """Stand before ``acquirer``."""
        self._acquirer = acquirer

    def routes(self) -> Sequence[BaseRoute]:
        """Return the routes of this provider's payers and testers."""
        name = self._acquirer.name
        return [
            Route(f"/payer/{name}/{{request_id}}", self._page, methods=["GET"]),
            Route(f"/payer/{name}/{{request_id}}/{{deed}}", self._act, methods=["POST"]),
            Route(f"/callbacks/{name}", self._callbacks, methods=["GET"]),
            Route(f"/callbacks/{name}/{{request_id}}", self._call_back, methods=["POST"]),
            Route(f"/scripts/{name}", self._add_rules, methods=["POST"]),
        ]

    async def _act(self, request: Request) -> Response:
        acquirer, charge_id, deed = self._acquirer, request.path_params["request_id"], request.path_params["deed"]
        if deed not in acquirer.deeds:
            return JSONResponse({"error": f"the payer can {', '.join(acquirer.deeds)}"}, status_code=404)
        try:
            action = _action(request.headers.get("content-type", ""), await read(request))
            if rule := acquirer.script.take("pay", (charge_id,), only={"slow"}):
                await asyncio.sleep(rule.delay_ms / 1000)
            charge = acquirer.act(charge_id, deed, action)
        except PayerRefused as fault:
            key = "refused" if fault.status == 402 else "error"
            return JSONResponse({key: fault.code}, status_code=fault.status)
        back = acquirer.return_url(charge)
        if "text/html" in request.headers.get("accept", ""):
            return RedirectResponse(back or f"/payer/{acquirer.name}/{charge_id}", status_code=303)
        return JSONResponse({"charge": charge.shown(), "return_url": back})

    async def _page(self, request: Request) -> Response:
        name, charge = self._acquirer.name, self._acquirer.book.get(request.path_params["request_id"])
        if charge is None:
            return HTMLResponse("<p>No such charge.", status_code=404)
        subject = html.escape(charge.details.get("subject", ""))
        said = f"{subject} · {charge.amount} minor units of {charge.currency} · {charge.state}"
        path = f"/payer/{name}/{html.escape(charge.request_id)}"
        buttons = [
            f'<form method=post action="{path}/{deed}"><button>{deed}</button></form>' for deed in ("pay", "refuse")
        ]
        shown = "".join(buttons) if charge.state in UNPAID else ""
        return HTMLResponse(f"<!doctype html><title>{name}</title><p>{said}</p>{shown}")

    async def _callbacks(self, request: Request) -> JSONResponse:
        request_id = request.query_params.get("request_id", "")
        return JSONResponse({"deliveries": self._acquirer.notifier.deliveries(request_id)})

    async def _call_back(self, request: Request) -> JSONResponse:
        acquirer, request_id = self._acquirer, request.path_params["request_id"]
        wanted = _object(await read(request)) or {}
        forge, times = wanted.get("forge", ""), wanted.get("times", 1)
        known = acquirer.callback_forgeries
        right = type(times) is int and 1 <= times <= TIMES_MAX and (not forge or forge in known)
        if not right or wanted.keys() - {"forge", "times"}:
            return JSONResponse({"error": f"forge: one of {sorted(known)}; times: 1 to {TIMES_MAX}"}, status_code=400)
        found = acquirer.book.of_refund(request_id)
        charge, refund = found or (acquirer.book.get(request_id), None)
        if charge is None:
            return JSONResponse({"error": "no such charge or refund"}, status_code=404)
        if charge.state in UNPAID:
            if not forge:
                return JSONResponse({"error": f"the charge is {charge.state}: nothing to tell"}, status_code=409)
            charge = acquirer.as_if_paid(charge)
        made = await acquirer.notifier.send(acquirer.notice(charge, refund), forge, times)
        return JSONResponse({"deliveries": [asdict(each) for each in made]})

    async def _add_rules(self, request: Request) -> JSONResponse:
        script, wanted = self._acquirer.script, _object(await read(request))
        faults = ["a JSON object is wanted"] if wanted is None else script.add(wanted)
        return JSONResponse({"faults": faults} if faults else script.shown(), status_code=400 if faults else 200)


def book_route(acquirers: Sequence[Acquirer]) -> Route:
    """Return GET /book over all providers."""

    async def answer(request: Request) -> Response:
        provider, request_id = (request.query_params.get(name, "") for name in ("provider", "request_id"))
        charges = [
            charge.shown()
            for each in acquirers
            if provider in {"", each.name}
            for charge in each.book
            if request_id in {"", charge.request_id} or request_id in charge.refunds
        ]
        newest = {"charges": charges[-SHOWN_MAX:], "more": len(charges) > SHOWN_MAX}
        return Response(orjson.dumps(newest), media_type="application/json")

    return Route("/book", answer, methods=["GET"])


def _action(content_type: str, body: bytes) -> dict[str, str]:
    if not body or content_type.startswith("application/x-www-form-urlencoded"):
        return {}
    found = _object(body)
    if found is None or not all(isinstance(each, str) for each in found.values()):
        raise PayerRefused("a JSON object of strings is wanted", 400)
    return found


def _object(body: bytes) -> dict[str, Any] | None:
    try:
        found = orjson.loads(body or b"{}")
    except ValueError:
        return None
    return found if isinstance(found, dict) else None
