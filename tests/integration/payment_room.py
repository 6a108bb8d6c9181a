"""The payment room without its mesh: real use cases, store, pipeline, adapters and sandbox; risk and orders are fakes."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import threading
import time
from collections.abc import Coroutine, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self, TypeVar

import httpx

from services.kernel.caller import Caller
from services.kernel.clock import SystemClock
from services.kernel.errors import DomainError
from services.kernel.idempotency import IdempotencyKey, Scope
from services.kernel.ids import IdMaker
from services.kernel.money import Money
from services.kernel.pages import Page
from services.payment import jobs, usecases
from services.payment.adapters.providers import Merchant, providers
from services.payment.adapters.vault import CardVault, FileKeys, MemoryCvvRelay
from services.payment.app import RENDER
from services.payment.domain import KnownOrder, Method, Payment, Point, Refund
from services.payment.domain.card import Expiry, Pan
from services.payment.domain.payment import OPEN
from services.payment.ports.provider import Callback
from services.payment.store import SqlCards, SqlStore
from services.platform import migrations
from services.platform.batcher import Batcher
from services.platform.database import Database
from services.platform.pipeline import Pipeline
from services.sandbox import keys
from services.sandbox.app import build
from services.sandbox.settings import Settings
from tests.fakes.payment import FakeAlarm, World
from tests.integration.provider_sandbox import free_port

T = TypeVar("T")

USER, PRICE = 7, Money("CNY", 1_000)
PROVIDERS = {Method.ALIPAY: "alipay", Method.WECHAT: "wechat", Method.BANK_CARD: "cards"}
"""Method of payment -> the provider's name in the sandbox."""
GOOD_CARD = "4242424242424242"
SETTLED_S = 40.0
"""Longer than the longest way of a payment to rest: a hung provider, its completer, the payer's time and its grace."""
_COMMANDS = ("create_payments", "capture_payments", "void_payments", "close_payments", "refund_payments", "settle",
             "answer_open", "take_up", "take_notices", "know_orders")  # fmt: skip


@dataclass(frozen=True)
class Refused(Exception):
    """What a call was refused with."""

    reason: str


class Room:
    """One instance of the payment room and the outside world that it pays through."""

    def __init__(self, folder: Path, *, pay_window_ms: int = 900_000, read_s: float = 0.5) -> None:
        """Lay everything out below ``folder``; nothing runs until it is entered."""
        self._numbers = itertools.count(1)
        self._folder, self.url = folder, f"sqlite:///{folder / 'payment.db'}"
        migrations.upgrade("payment", self.url)
        keys.make(folder / "providers")
        port, self.clock = free_port(), SystemClock()
        self._server = build(Settings(sandbox_http=port, sandbox_smtp=free_port(), sandbox_time_scale=0.001,
                                      sandbox_folder=str(folder / "providers")))  # fmt: skip
        self._sandbox = threading.Thread(target=self._server.run, daemon=True)
        self.http = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=20, trust_env=False)
        self._callbacks = _Callbacks(("127.0.0.1", 0), _handler(self._handle))
        base = f"http://127.0.0.1:{port}"
        urls = {Method.ALIPAY: f"{base}/alipay/gateway.do", Method.WECHAT: base, Method.BANK_CARD: base}
        public = f"http://127.0.0.1:{self._callbacks.server_port}"
        self.merchant = Merchant(folder / "providers" / "merchant", urls, public, 1, connect_s=1.0, read_s=read_s)
        self._pay_window_ms = pay_window_ms
        self.world, self.alarm = World(), FakeAlarm()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._open()

    def _open(self) -> None:
        self.database = Database(self.url)
        ids = IdMaker(self.clock, 1)
        self.vault = CardVault(SqlCards(self.database), FileKeys(self._folder / "vault-keys"))
        cvvs = MemoryCvvRelay(self.clock)
        outside = replace(
            self.world.ports.outside,
            providers=providers(self.merchant, self.vault, cvvs, self.clock),
            cards=self.world.cards,
            vault=self.vault,
            cvvs=cvvs,
            jitter=lambda: 0.25,
            instance=1,
            pay_window_ms=self._pay_window_ms,
            capture_window_ms=604_800_000,
        )
        self.store = SqlStore(self.database, ids)
        self.ports = replace(self.world.ports, store=self.store, ids=ids, clock=self.clock, render=RENDER,
                             outside=outside, alarm=self.alarm)  # fmt: skip
        self.batcher = Batcher({name: partial(getattr(usecases, name), self.ports) for name in _COMMANDS})
        self.pipeline = Pipeline(self.batcher, partial(usecases.ask, self.ports), settle="settle",
                                 answer="answer_open", threads=16, queue_max=64)  # fmt: skip
        self._completer = jobs.completer(self.ports, self.batcher, self.pipeline)

    def __enter__(self) -> Self:
        """Begin."""
        self._sandbox.start()
        self._thread.start()
        threading.Thread(target=self._callbacks.serve_forever, daemon=True).start()
        self.batcher.start()
        self._run(self.pipeline.start())
        self._completer.start()
        until(lambda: self._server.started)
        return self

    def __exit__(self, *_: object) -> None:
        """End."""
        self._completer.stop()
        self._run(self.pipeline.stop())
        self.batcher.stop()
        self._callbacks.shutdown()
        self._callbacks.server_close()
        self._server.should_exit = True
        self._sandbox.join(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        for provider in self.ports.outside.providers.values():
            provider.stop()
        self.database.stop()
        self.http.close()

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(60)

    # -- what a client does

    def call(self, kind: str, command: object, seconds: float = 5.0) -> Any:  # noqa: ANN401 - the answer of the kind
        """Submit a command as the servicer does. Raises Refused."""
        try:
            return self._run(self.pipeline.submit(kind, command, time.monotonic() + seconds))
        except DomainError as error:
            raise Refused(error.reason) from None

    def key(self, method: str) -> IdempotencyKey:
        """A key that nobody has used."""
        return IdempotencyKey(Scope(USER, method, f"key-{next(self._numbers):08}"), bytes(32))

    def save_card(self, number: str) -> None:
        """Keep a card and make it the default."""
        now = self.clock.now_ms()
        self.world.cards.saved[USER, None] = self.vault.tokenize(1, Pan(number), Expiry(2034, 12), now)

    def begin(self, method: Method, *, key: IdempotencyKey | None = None, **how: object) -> Payment:
        """Order, and ask for the payment; returns it as it then stands, whatever the answer was."""
        now, order_id = self.clock.now_ms(), next(self._numbers) + 1_000_000
        order = KnownOrder(order_id, USER, PRICE, "pending", now + 3_600_000, 1)
        self.call("know_orders", usecases.OrderKnown(f"order-{order_id}", "order.created", order))
        if method is Method.BANK_CARD and (USER, None) not in self.world.cards.saved:
            self.save_card(GOOD_CARD)
        payment_id = self.ports.ids.next(0)
        command = usecases.CreatePayment(caller(), key or self.key("CreatePayment"), order_id, method, None, payment_id,
                                         usecases.How(**how))  # type: ignore[arg-type] # fmt: skip
        with contextlib.suppress(Refused):
            self.call("create_payments", command)
        return self.read(payment_id)

    def read(self, payment_id: int) -> Payment:
        """Read a payment."""
        found = self.store.payment(payment_id, None)
        assert found is not None
        return found

    def refund(self, payment: Payment, fen: int | None, key: IdempotencyKey | None = None) -> None:
        """Ask for money back. Raises Refused."""
        amount = None if fen is None else Money("CNY", fen)
        self.call("refund_payments",
                  usecases.RefundPayment(caller(), key or self.key("RefundPayment"), payment.id, amount, "why"))  # fmt: skip

    def refunds(self, payment: Payment) -> list[Refund]:
        """Read the refunds of a payment."""
        return self.store.refunds_of(payment.id, Page(50, ""))

    def rested(self, payment: Payment) -> Payment:
        """Wait until a payment is at rest."""
        until(lambda: self.read(payment.id).status not in OPEN)
        return self.read(payment.id)

    # -- what the outside world does

    @contextlib.contextmanager
    def script(self, method: Method, *rules: Mapping[str, object], **options: object) -> Iterator[None]:
        """Have a provider misbehave for a while."""
        path = f"/scripts/{PROVIDERS[method]}"
        answer = self.http.put(path, json={"rules": list(rules), **options})
        assert answer.status_code == httpx.codes.OK, answer.text
        try:
            yield
        finally:
            self.http.put(path, json={"rules": []})

    def act(self, payment: Payment, deed: str = "pay") -> None:
        """Let the payer act once he knows how; a charge that he need not act on is passed over."""
        until(lambda: self._told(payment.id))
        seen = self.read(payment.id)
        if seen.status in OPEN and seen.charge is not None and seen.charge.point is Point.WAITING:
            action = {} if seen.method is Method.BANK_CARD else dict(seen.charge.action)
            self.http.post(f"/payer/{PROVIDERS[seen.method]}/{seen.payment_no}/{deed}", json=action)

    def _told(self, payment_id: int) -> bool:
        seen = self.read(payment_id)
        return seen.status not in {"processing", "unknown"} or bool(seen.charge and seen.charge.point is Point.WAITING)

    def call_back(self, method: Method, number: str, **wanted: object) -> list[dict[str, Any]]:
        """Have the provider call back now; return what was answered."""
        answer = self.http.post(f"/callbacks/{PROVIDERS[method]}/{number}", json=wanted)
        assert answer.status_code == httpx.codes.OK, answer.text
        found: list[dict[str, Any]] = answer.json()["deliveries"]
        return found

    def charge(self, payment: Payment) -> dict[str, Any] | None:
        """Return what stands in the provider's own book."""
        params = {"provider": PROVIDERS[payment.method], "request_id": payment.payment_no}
        charges: list[dict[str, Any]] = self.http.get("/book", params=params).json()["charges"]
        return charges[0] if charges else None

    def _handle(self, method: Method, callback: Callback) -> tuple[int, str, bytes]:
        """Take a callback as the servicer does."""
        try:
            told = usecases.read_callback(self.ports, method, callback)
            self._run(self.batcher.submit("take_notices", told, time.monotonic() + 5))
        except DomainError as error:
            return 401, "application/json", error.reason.encode()
        said = usecases.acknowledge(self.ports, method)
        return said.status, said.content_type, said.body


class _Callbacks(ThreadingHTTPServer):
    request_queue_size = 128  # fifty callbacks come at once


def _handler(handle: Any) -> type[BaseHTTPRequestHandler]:  # noqa: ANN401 - a method of the room
    class Edge(BaseHTTPRequestHandler):
        """Takes callbacks where the edge would."""

        def do_POST(self) -> None:
            method = Method(self.path.rpartition("/")[2])
            body = self.rfile.read(int(self.headers["content-length"]))
            headers = {name.lower(): value for name, value in self.headers.items()}
            status, content_type, answer = handle(method, Callback(headers, body))
            self.send_response(status)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    return Edge


def caller(user: int = USER, *scopes: str) -> Caller:
    """Somebody who calls."""
    return Caller(user, frozenset(scopes), "", time.monotonic() + 5)


def until(done: Any, seconds: float = SETTLED_S) -> None:  # noqa: ANN401 - anything truthy
    """Wait until something is so."""
    ends = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < ends, f"it did not come to pass within {seconds:g} s"
        time.sleep(0.02)
