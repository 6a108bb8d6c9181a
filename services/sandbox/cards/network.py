"""The card network itself: HTTP in, signed answers out."""

from __future__ import annotations

import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC
from typing import TYPE_CHECKING, Any

import orjson
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from services.sandbox import bills, keys
from services.sandbox.acquirer import FAIL_THEN_SUCCESS_S, Acquirer, Deed, House, PayerRefused, read
from services.sandbox.book import Charge, Refund, State
from services.sandbox.cards.charges import Charges, shown, shown_refund
from services.sandbox.cards.requests import ApiError, Gate
from services.sandbox.notifier import REPEATS_S, Notice, Outgoing
from services.sandbox.rules import WALLET
from services.sandbox.sockets import Dropped, Hanging

if TYPE_CHECKING:
    from starlette.requests import Request

LATE_S = 30.0
FEE_PER_MILLE = 10
_CODES = {
    "decline": "card_declined",
    "insufficient_funds": "insufficient_funds",
    "processing_error": "processing_error",
}
_BILL = ("kind", "request_id", "charge_request_id", "network_id", "currency", "amount", "fee", "time")
Answer = tuple[int, dict[str, Any] | bytes]
"""Status and JSON, or the text of a bill."""
Handler = Callable[["Request", bytes], Awaitable[Response]]


class CardNetwork(Acquirer):
    """The network's side of its protocol, for one merchant."""

    operations = {  # noqa: RUF012 - never changed
        **{on: deeds for on, deeds in WALLET.items() if on != "close"},
        "refund": WALLET["refund"] | {"abnormal"},
        "capture": WALLET["query"],
        "void": WALLET["query"],
    }
    schedule_s = REPEATS_S
    callback_forgeries = frozenset({"signature", "amount", "seller", "currency", "order", "timestamp"})
    answer_forgeries = frozenset({"signature", "unsigned", "timestamp", "nonce", "amount", "order"})

    def __init__(self, house: House, held: keys.CardKeys) -> None:
        """Serve the merchant of ``held``."""
        super().__init__("cards", house)
        self._held, self._gate = held, Gate(held)
        self._charges = Charges(self.book, self.clock, self._gate, tell=self.tell, late=self._late, lapse=self.lapse,
                                expire_later=self.expire_later)  # fmt: skip

    def routes(self) -> Sequence[BaseRoute]:
        """Return /cards/v1."""
        charge = "/cards/v1/charges/{request_id}"
        return [
            Route("/cards/v1/charges", self._admitted(self._charge), methods=["POST"]),
            Route(charge, self._admitted(self._query), methods=["GET"]),
            Route(f"{charge}/capture", self._admitted(self._capture), methods=["POST"]),
            Route(f"{charge}/void", self._admitted(self._void), methods=["POST"]),
            Route("/cards/v1/refunds", self._admitted(self._refund), methods=["POST"]),
            Route("/cards/v1/refunds/{request_id}", self._admitted(self._query_refund), methods=["GET"]),
            Route("/cards/v1/bills/{day}", self._admitted(self._bill), methods=["GET"]),
        ]

    def taken(self, status: int, body: bytes) -> bool:  # noqa: ARG002 - the status alone counts
        """200 or 204."""
        return status in {200, 204}

    def notice(self, charge: Charge, refund: Refund | None = None) -> Notice:
        """Return a signed callback."""
        data = shown_refund(charge, refund) if refund else shown(charge)
        made = {
            "id": f"evt_{uuid.uuid4().hex}",
            "type": f"{'refund' if refund else 'charge'}.{data['status']}",
            "created": self.clock.now_ms() // 1000,
            "merchant_id": self._held.merchant_id,
        }

        def render(forge: str) -> Outgoing:
            event = {**made, "merchant_id": "M00000000000"} if forge == "seller" else made
            body = orjson.dumps({**event, "data": _forged(data, forge)})
            signed = self._gate.callback_headers(body, self.clock.now_ms() // 1000, forge)
            return Outgoing({"Content-Type": "application/json", **signed}, body)

        ids = (charge.request_id, *((refund.request_id,) if refund else ()))
        url = (refund.notify_url if refund else "") or charge.details["notify_url"]
        return Notice(notice_id=str(made["id"]), ids=ids, url=url, render=render)

    async def start(self) -> None:
        """Take up the charges that were to be decided later."""
        await super().start()
        for charge in self.book:
            if charge.state is State.PROCESSING:
                self._late(charge)

    def pay(self, charge_id: str, action: Mapping[str, str]) -> Charge:
        """Pass the challenge, or with trans_status end it otherwise."""
        charge, status = self.found(charge_id), action.get("trans_status", "Y")
        self.lapse(charge)
        if charge.state is not State.CHALLENGE:
            raise PayerRefused(f"the charge is {charge.state}")
        if status not in set("YANURI"):
            raise PayerRefused("trans_status: one of Y A N U R I", 400)
        charge.details["trans_status"] = status
        if rule := self.script.take("pay", (charge_id,), only={"decline", "insufficient_funds"}):
            charge.details["fails_with"] = _CODES[rule.do]
        self._charges.decide(charge)
        if charge.code:
            raise PayerRefused(charge.code, 402)
        return charge

    def refuse(self, charge: Charge) -> None:
        """Fail the challenge."""
        if charge.state is not State.CHALLENGE:
            raise PayerRefused(f"the charge is {charge.state}")
        charge.details["trans_status"] = "N"
        self._charges.decide(charge)

    def ended(self, charge: Charge, was: State) -> None:  # noqa: ARG002 - there is one state that expires
        """A challenge that nobody passed."""
        self.book.end(charge, State.FAILED, "challenge_expired")
        self.tell(charge)

    def tell(self, charge: Charge, refund: Refund | None = None) -> None:
        """Call back as often and as late as the card says."""
        after_s = max(self.tell_after_s, FAIL_THEN_SUCCESS_S if charge.details["answer"] == "failed" else 0)
        self.notifier.post(self.notice(charge, refund), after_s, count=int(charge.details["callbacks"]))

    def _late(self, charge: Charge) -> None:
        async def decide() -> None:
            await self.notifier.sleep(LATE_S)
            self._charges.decide(charge)

        self.notifier.spawn(decide())

    def _admitted(self, handler: Handler) -> Callable[[Request], Awaitable[Response]]:
        async def admitted(request: Request) -> Response:
            scope, body = request.scope, await read(request)
            query = scope["query_string"].decode("latin-1")
            target = scope["raw_path"].decode("latin-1") + (f"?{query}" if query else "")
            try:
                self._gate.admit(request.method, target, request.headers, body, self.clock.now_ms() / 1000)
                return await handler(request, body)
            except ApiError as error:
                return self._rendered((error.status, error.body), request, "" if error.signed else "unsigned")

        return admitted

    async def _charge(self, request: Request, raw: bytes) -> Response:
        try:
            request_id = str(orjson.loads(raw)["request_id"])
        except (ValueError, KeyError, TypeError):
            request_id = ""

        def refuse(why: str) -> Answer:
            if why == "error":
                return _refused(why)
            return 200, shown(self._charges.charge(raw, forced_code=_CODES[why]))

        def pretend(why: str) -> Answer:
            if why == "error":
                return _refused(why)
            return 200, _failed(self._charges.found(request_id), "processing_error")

        base_url = str(request.base_url)
        deed = Deed(_caught(lambda: (200, shown(self._charges.charge(raw), base_url))), refuse, pretend)
        answer = await self.perform(
            "charge", (request_id,), deed, lambda each, forge: self._rendered(each, request, forge)
        )
        charge = self.book.get(request_id)
        instead = charge.details["answer"] if charge and charge.asked == 1 and answer.status_code == 200 else ""
        if charge and instead == "failed":
            return self._rendered((200, _failed(charge, "processing_error")), request)
        return {"drop": Dropped(), "hang": Hanging()}.get(instead, answer)

    async def _query(self, request: Request, _raw: bytes) -> Response:
        request_id, base_url = request.path_params["request_id"], str(request.base_url)

        def query() -> Answer:
            return 200, shown(self._charges.found(request_id), base_url)

        return await self._do(request, "query", (request_id,), query)

    async def _capture(self, request: Request, raw: bytes) -> Response:
        request_id = request.path_params["request_id"]

        def capture() -> Answer:
            return 200, shown(self._charges.capture(request_id, raw))

        return await self._do(request, "capture", (request_id,), capture)

    async def _void(self, request: Request, raw: bytes) -> Response:
        request_id = request.path_params["request_id"]
        return await self._do(request, "void", (request_id,), lambda: (200, shown(self._charges.void(request_id, raw))))

    async def _refund(self, request: Request, raw: bytes) -> Response:
        try:
            found = orjson.loads(raw)
            ids = (str(found["request_id"]), str(found["charge_request_id"]))
        except (ValueError, KeyError, TypeError):
            ids = ("", "")

        def failing() -> bool:
            return self.script.take("refund", ids, only={"abnormal"}) is not None

        return await self._do(request, "refund", ids, lambda: (200, shown_refund(*self._charges.refund(raw, failing))))

    async def _query_refund(self, request: Request, _raw: bytes) -> Response:
        request_id = request.path_params["request_id"]
        return await self._do(request, "query_refund", (request_id,),
                              lambda: (200, shown_refund(*self._charges.found_refund(request_id))))  # fmt: skip

    async def _bill(self, request: Request, _raw: bytes) -> Response:
        day = bills.day_of(request.path_params["day"], UTC, self.clock.now_ms(),
                           today=bool(self.script.option("bill_today")))  # fmt: skip
        lines = bills.lines(self.book, day, UTC, per_mille=FEE_PER_MILLE, script=self.script) if day else []
        if not lines:
            raise ApiError(404, "no_bill", "there is no bill of this day", "day")
        rows = [
            ("refund" if line.refund else "charge", line.request_id, line.charge.request_id,
             line.refund.provider_id if line.refund else line.charge.provider_id, line.charge.currency,
             str(line.amount), str(line.fee), str(line.at_ms // 1000))
            for line in lines
        ]  # fmt: skip
        return self._rendered((200, bills.written([_BILL, *rows]).encode()), request)

    async def _do(self, request: Request, on: str, ids: tuple[str, ...], work: Callable[[], Answer]) -> Response:
        deed = Deed(_caught(work), _refused, _refused)
        return await self.perform(on, ids, deed, lambda answer, forge: self._rendered(answer, request, forge))

    def _rendered(self, answer: Answer, request: Request, forge: str = "") -> Response:
        status, found = answer
        body = found if isinstance(found, bytes) else orjson.dumps(_forged(found, forge))
        nonce = request.headers.get("card-nonce", "")
        headers = self._gate.answer_headers(status, body, nonce, self.clock.now_ms() // 1000, forge)
        return Response(body, status, headers, "text/csv" if isinstance(found, bytes) else "application/json")


def _caught(work: Callable[[], Answer]) -> Callable[[], Answer]:
    def answer() -> Answer:
        try:
            return work()
        except ApiError as error:
            return error.status, error.body

    return answer


def _refused(why: str) -> Answer:
    if why == "error":
        return 500, ApiError(500, "internal_error", "ask again").body
    return 402, ApiError(402, _CODES[why], "refused").body


def _failed(charge: Charge, code: str) -> dict[str, Any]:
    """Return a charge as a network that is wrong about it shows it."""
    return {**shown(charge), "status": "failed", "captured": 0, "code": code, "auth_code": "", "challenge_url": ""}


def _forged(found: dict[str, Any], forge: str) -> dict[str, Any]:
    amount = found.get("amount")
    if isinstance(amount, dict) and forge == "amount":
        units = amount["minor_units"] + 1
        return {
            **found,
            "amount": {**amount, "minor_units": units},
            **({"captured": units} if found.get("captured") else {}),
        }
    if isinstance(amount, dict) and forge == "currency":
        return {**found, "amount": {**amount, "currency": "USD" if amount["currency"] != "USD" else "EUR"}}
    if "request_id" in found and forge == "order":
        return {**found, "request_id": f"{found['request_id']}0"[-64:]}
    return found
