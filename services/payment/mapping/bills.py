"""Bills: protobuf <-> domain."""

from __future__ import annotations

from typing import TYPE_CHECKING

from paymesh.payment.v1 import bill_pb2, payment_pb2
from services.kernel.money import Money
from services.payment import usecases
from services.payment.domain import Method
from services.payment.domain.bill import Mismatch
from services.platform import wire

if TYPE_CHECKING:
    from paymesh.payment.v1 import payment_service_pb2 as pb
    from services.payment.domain.bill import Bill, Difference, Settlement
    from services.platform.interceptor import Call

_METHOD = {method: payment_pb2.Payment.Method.Value(f"METHOD_{method.upper()}") for method in Method}
_METHOD_FROM = {number: method for method, number in _METHOD.items()}
_KIND = {mismatch: bill_pb2.BillDifference.Kind.Value(f"KIND_{mismatch.upper()}") for mismatch in Mismatch}


def import_bill(call: Call, request: pb.ImportBillRequest) -> usecases.ImportBill:
    """Read a request to import."""
    return usecases.ImportBill(_METHOD_FROM[request.method], request.day, call.caller.subject)


def bill(b: Bill) -> bill_pb2.Bill:
    """Render a bill."""
    return bill_pb2.Bill(
        id=b.id,
        method=_METHOD[b.method],
        day=b.day,
        sha256=b.sha256,
        lines=b.lines,
        matched=b.matched,
        differences=b.differences,
        settlements=map(_settlement, b.settlements),
        create_time=wire.timestamp(b.create_ms),
    )


def _settlement(s: Settlement) -> bill_pb2.Settlement:
    charged, refunded, fees, returned = (
        wire.money(Money(s.currency_code, amount)) for amount in (s.charged, s.refunded, s.fees, s.fees_returned)
    )
    return bill_pb2.Settlement(charged=charged, refunded=refunded, fees=fees, fees_returned=returned)


def bill_difference(d: Difference) -> bill_pb2.BillDifference:
    """Render a difference."""
    return bill_pb2.BillDifference(
        id=d.id,
        bill_id=d.bill_id,
        kind=_KIND[d.mismatch],
        request_id=d.number.request_id,
        payment_id=d.payment_id,
        refund_id=d.refund_id,
        booked=None if d.booked is None else wire.money(d.booked),
        billed=None if d.billed is None else wire.money(d.billed),
        review_id=d.review_id,
        create_time=wire.timestamp(d.create_ms),
    )
