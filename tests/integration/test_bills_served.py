"""Bills as an operator sees them: the payment service as it runs, and Alipay as the sandbox plays it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import grpc
import pytest
import sqlalchemy as sa

from paymesh.payment.v1 import bill_pb2, payment_pb2
from paymesh.payment.v1 import payment_service_pb2 as pb
from paymesh.payment.v1 import payment_service_pb2_grpc as rpc
from services.payment.app import build
from services.payment.domain import Method
from services.payment.domain.bill import ZONES
from services.payment.settings import Settings
from services.payment.store import tables as t
from services.platform import migrations
from services.platform.database import Database
from services.platform.status import error_from
from tests.fakes.mesh import FakeMesh
from tests.integration.provider_sandbox import ProviderSandbox, eventually, free_port
from tests.running import Served

ALIPAY = payment_pb2.Payment.METHOD_ALIPAY
USER, OPERATOR, SCOPE = 7_000_001, 9, "payments:reconcile"


class Desk:
    """An operator, and a user who pays."""

    def __init__(self, served: Served, mesh: FakeMesh, sandbox: ProviderSandbox) -> None:
        self.served, self.mesh, self.sandbox = served, mesh, sandbox
        self.stub = rpc.PaymentServiceStub(served.channel)

    def pay(self, order_id: int, fen: int) -> payment_pb2.Payment:
        """Have an order paid with Alipay, to the end."""
        self.mesh.add_order(order_id, USER, fen)
        asked = pb.CreatePaymentRequest(order_id=order_id, method=ALIPAY)
        made = self.served.call(self.stub.CreatePayment, asked, user=USER, key=f"pay-{order_id:08}").payment
        self.sandbox.payer(made.payment_no, "pay", {"qr_code": made.next_action.qr_code})

        def read() -> payment_pb2.Payment:
            return self.served.call(self.stub.GetPayment, pb.GetPaymentRequest(id=made.id), user=USER).payment

        assert eventually(lambda: read().status == payment_pb2.Payment.STATUS_SUCCESS)
        return read()

    def operate(self, method: Any, request: Any, scope: str = SCOPE) -> Any:  # noqa: ANN401 - as the stub's
        """Call as the operator."""
        return self.served.call(method, request, user=OPERATOR, scope=scope)

    def refusal(self, method: Any, request: Any, scope: str = SCOPE) -> str:  # noqa: ANN401 - as the stub's
        """The reason why a call is refused."""
        with pytest.raises(grpc.RpcError) as caught:
            self.operate(method, request, scope)
        return error_from(caught.value).reason


@pytest.fixture
def desk(run_dir: Path, tmp_path: Path, redis_url: str, kafka: str) -> Iterator[Desk]:
    """A payment service with Alipay for a provider."""
    url = f"sqlite:///{tmp_path / 'payment.db'}"
    migrations.upgrade("payment", url)
    with ProviderSandbox(tmp_path / "providers", "alipay") as sandbox:
        settings = Settings(
            data=tmp_path, listen=f"unix:{run_dir}/p.sock", mesh=f"unix:{run_dir}/out.sock", database_url=url,
            redis_url=redis_url, kafka=kafka, providers=str(sandbox.folder / "merchant"),
            alipay_url=f"{sandbox.url}/alipay/gateway.do", wechat_url=sandbox.url, cards_url=sandbox.url,
            public_url=f"http://127.0.0.1:{free_port()}",  # nobody is called back: whoever reads asks
        )  # fmt: skip
        fake = FakeMesh(settings.mesh)  # type: ignore[abstract] # payment asks for two of their methods
        with fake as mesh, Served(build(settings)) as served:
            yield Desk(served, mesh, sandbox)


def test_operator_reconciles_a_day(desk: Desk, tmp_path: Path) -> None:
    """Import, read what does not agree, import again: one bill, its file kept, an audit row, clearing at zero."""
    right, drifted = desk.pay(11, 8888), desk.pay(12, 500)
    day = datetime.now(ZONES[Method.ALIPAY]).date().isoformat()
    wanted = pb.ImportBillRequest(method=ALIPAY, day=day)
    assert desk.refusal(desk.stub.ImportBill, wanted) == "BILL_NOT_AVAILABLE"
    drift = {"on": "bill", "do": "drift", "request_id": drifted.payment_no}
    desk.sandbox.script({**drift, "times": 2}, bill_today=True)
    bill = desk.operate(desk.stub.ImportBill, wanted).bill
    time.sleep(1.1)  # the file says when it was made: this is another one
    assert desk.operate(desk.stub.ImportBill, wanted).bill == bill
    assert (bill.method, bill.day, bill.lines, bill.matched, bill.differences) == (ALIPAY, day, 2, 1, 1)
    [settled] = bill.settlements
    assert (settled.charged.minor_units, settled.refunded.minor_units) == (8888 + 501, 0)
    assert settled.fees.minor_units > 0 == settled.fees_returned.minor_units
    assert (tmp_path / "files" / bill.sha256[:2] / bill.sha256).read_bytes()[:2] == b"PK"

    assert list(desk.operate(desk.stub.ListBills, pb.ListBillsRequest()).bills) == [bill]
    listed = desk.operate(desk.stub.ListBillDifferences, pb.ListBillDifferencesRequest(bill_id=bill.id))
    [difference] = listed.differences
    assert (difference.kind, difference.request_id, difference.payment_id, difference.refund_id) == (
        bill_pb2.BillDifference.KIND_AMOUNT, drifted.payment_no, drifted.id, 0,
    )  # fmt: skip
    assert (difference.booked.minor_units, difference.billed.minor_units) == (500, 501)
    database = Database(f"sqlite:///{tmp_path / 'payment.db'}")
    with database.read() as connection:
        balances = dict(map(tuple, connection.execute(sa.select(t.accounts.c.kind, t.accounts.c.balance_minor))))
        reviews = connection.execute(sa.select(t.reviews.c.id, t.reviews.c.payment_id)).all()
        deeds = connection.execute(
            sa.select(t.audit_log.c.actor_id, t.audit_log.c.action, t.audit_log.c.about_id)
        ).all()
        paid_ms = connection.execute(sa.select(t.attempts.c.paid_ms).where(t.attempts.c.id == right.id)).scalar_one()
    database.stop()
    net = settled.charged.minor_units - settled.fees.minor_units
    assert (balances["clearing_alipay"], balances["bank"], balances["suspense"]) == (0, -net, 1)
    assert [tuple(row) for row in reviews] == [(difference.review_id, drifted.id)]
    assert [tuple(row) for row in deeds] == [(OPERATOR, "ImportBill", bill.id)]
    assert abs(time.time() * 1000 - paid_ms) < 60_000
    assert paid_ms % 1000 == 0, "it is what Alipay says, to the second"


def test_bill_is_refused(desk: Desk) -> None:
    """Without the scope, of a balance, of no day, of a day that has none; and what there is no bill of has no differences."""
    stub = desk.stub
    assert desk.refusal(stub.ImportBill, pb.ImportBillRequest(method=ALIPAY, day="2026-01-01"), "") == "SCOPE_MISSING"
    for method, day, expected in (
        (payment_pb2.Payment.METHOD_BALANCE, "2026-01-01", "PAYMENT_METHOD_UNAVAILABLE"),
        (ALIPAY, "2026-01-01", "BILL_NOT_AVAILABLE"),
        (ALIPAY, "2026-02-30", "INVALID_ARGUMENT"),
        (ALIPAY, "yesterday", "INVALID_ARGUMENT"),
    ):
        assert desk.refusal(stub.ImportBill, pb.ImportBillRequest(method=method, day=day)) == expected
    assert desk.refusal(stub.ListBillDifferences, pb.ListBillDifferencesRequest(bill_id=5)) == "BILL_NOT_FOUND"
    assert desk.refusal(stub.ListBills, pb.ListBillsRequest(page_token="!")) == "PAGE_TOKEN_INVALID"
