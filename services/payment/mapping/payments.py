"""Payments, refunds, balances and what is asked of them: protobuf <-> domain."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

from paymesh.order.v1 import order_event_pb2, order_pb2
from paymesh.payment.v1 import payment_event_pb2, payment_pb2
from paymesh.payment.v1 import payment_service_pb2 as pb
from paymesh.risk.v1 import risk_service_pb2
from paymesh.type.v1 import money_pb2
from services.kernel.money import Money
from services.payment import states, usecases
from services.payment.domain import KnownOrder, Method, Scene
from services.payment.domain.card import Cvv
from services.platform import wire

if TYPE_CHECKING:
    from collections.abc import Mapping

    from google.protobuf.message import Message
    from google.protobuf.timestamp_pb2 import Timestamp

    from services.payment.domain import AccountKey, Attempt, Payment, Refund
    from services.payment.domain.card import Card
    from services.payment.ports import Moved, ToAssess
    from services.platform.interceptor import Call

_STATUS = {word: payment_pb2.Payment.Status.Value(f"STATUS_{word.upper()}") for word in states.ALL}
_REFUND_STATUS = {word: payment_pb2.Refund.Status.Value(f"STATUS_{word.upper()}") for word in states.REFUND_ALL}
_METHOD = {method: payment_pb2.Payment.Method.Value(f"METHOD_{method.upper()}") for method in Method}
_METHOD_FROM = {number: method for method, number in _METHOD.items()}
_SCENE = {scene: payment_pb2.Payment.Scene.Value(f"SCENE_{scene.upper()}") for scene in Scene}
_SCENE_FROM = {number: scene for scene, number in _SCENE.items()}


def create_payment(call: Call, request: pb.CreatePaymentRequest, payment_id: int) -> usecases.CreatePayment:
    """Read a request to pay; ``payment_id`` is a new id."""
    key = wire.idempotency_key(call, request)
    assert key is not None
    shown = wire.money_from(request.amount) if request.HasField("amount") else None
    method = _METHOD_FROM[request.method]
    how = None if method is Method.BALANCE else _how(call, request)
    return usecases.CreatePayment(call.caller, key, request.order_id, method, shown, payment_id, how)


def _how(call: Call, request: pb.CreatePaymentRequest) -> usecases.How:
    scene = _SCENE_FROM[request.scene] if request.HasField("scene") else None
    payer = {"openid": request.openid, "client_ip": call.caller.client_ip if scene is Scene.WAP else ""}
    card = request.payment_method_id if request.HasField("payment_method_id") else None
    return usecases.How(scene, payer, card, not request.authorize_only)


def cvv(request: pb.CreatePaymentRequest) -> Cvv | None:
    """Read the verification value that goes along once. Refuses with INVALID_ARGUMENT."""
    return Cvv(request.cvv) if request.HasField("cvv") else None


def capture_payment(call: Call, request: pb.CapturePaymentRequest) -> usecases.CapturePayment:
    """Read a request to capture."""
    key = wire.idempotency_key(call, request)
    assert key is not None
    amount = wire.money_from(request.amount) if request.HasField("amount") else None
    return usecases.CapturePayment(call.caller, key, request.id, amount)


def void_payment(call: Call, request: pb.VoidPaymentRequest) -> usecases.VoidPayment:
    """Read a request to void."""
    key = wire.idempotency_key(call, request)
    assert key is not None
    return usecases.VoidPayment(call.caller, key, request.id)


def close_payment(call: Call, request: pb.ClosePaymentRequest) -> usecases.ClosePayment:
    """Read a request to close."""
    key = wire.idempotency_key(call, request)
    assert key is not None
    return usecases.ClosePayment(call.caller, key, request.id)


def withdraw_balance(call: Call, request: pb.WithdrawBalanceRequest) -> usecases.WithdrawBalance:
    """Read a request to withdraw."""
    key = wire.idempotency_key(call, request)
    assert key is not None
    return usecases.WithdrawBalance(call.caller, key, request.user_id, wire.money_from(request.amount))


def refund_payment(call: Call, request: pb.RefundPaymentRequest) -> usecases.RefundPayment:
    """Read a request to refund."""
    key = wire.idempotency_key(call, request)
    assert key is not None
    amount = wire.money_from(request.amount) if request.HasField("amount") else None
    return usecases.RefundPayment(call.caller, key, request.id, amount, request.note)


def top_up_balance(call: Call, request: pb.TopUpBalanceRequest) -> usecases.TopUpBalance:
    """Read a request to top up."""
    key = wire.idempotency_key(call, request)
    assert key is not None
    return usecases.TopUpBalance(call.caller, key, request.user_id, wire.money_from(request.amount))


@lru_cache(maxsize=4096)
def _money(currency_code: str, minor_units: int) -> money_pb2.Money:
    """Render an amount. One message for all who need it: they copy it."""
    return money_pb2.Money(currency_code=currency_code, minor_units=minor_units)


@lru_cache(maxsize=64)
def _time(ms: int) -> Timestamp:
    """Render a time, mostly that of the batch. One message for all who need it: they copy it."""
    return wire.timestamp(ms)


def payment(p: Payment) -> payment_pb2.Payment:
    """Render a payment."""
    currency = p.amount.currency_code
    return payment_pb2.Payment(
        id=p.id,
        payment_no=p.payment_no,
        order_id=p.order_id,
        user_id=p.user_id,
        amount=_money(currency, p.amount.minor_units),
        refunded=_money(currency, p.refunded),
        method=_METHOD[p.method],
        status=_STATUS[p.status],
        failure_reason=p.failure_reason,
        create_time=_time(p.create_ms),
        update_time=_time(p.update_ms),
        captured=_money(currency, p.captured),
        refunding=_money(currency, p.refunding),
        **({} if p.charge is None else _provided(p, p.charge)),
    )


def _provided(p: Payment, charge: Attempt) -> dict[str, Any]:
    """Render what a payment through a provider has beyond others."""
    waits = p.status == states.PROCESSING and charge.action
    return {
        "scene": _SCENE[charge.scene] if charge.scene else payment_pb2.Payment.SCENE_UNSPECIFIED,
        "next_action": payment_pb2.NextAction(**_action(charge.action)) if waits else None,
        "expire_time": wire.timestamp(charge.expire_ms) if p.is_open else None,
        "provider_code": charge.provider_code,
        "card": None if charge.card is None else card(charge.card),
    }


def _action(action: Mapping[str, str]) -> dict[str, str]:
    """A provider gives one way on; a page to send the payer to and a form are one to us."""
    name, value = next(iter(action.items()))
    return {name: value}


def card(c: Card) -> payment_pb2.Card:
    """Render what may be shown of a card."""
    year, month = c.expiry.year, c.expiry.month
    return payment_pb2.Card(brand=str(c.brand), first6=c.first6, last4=c.last4, expire_month=month, expire_year=year)


def refund(r: Refund) -> payment_pb2.Refund:
    """Render a refund."""
    return payment_pb2.Refund(
        id=r.id,
        refund_no=r.refund_no,
        payment_id=r.payment_id,
        amount=wire.money(r.amount),
        note=r.note,
        status=_REFUND_STATUS[r.status],
        create_time=_time(r.create_ms),
        update_time=_time(r.update_ms),
        provider_code=r.provider_code,
    )


def balance(key: AccountKey, minor_units: int, update_ms: int) -> payment_pb2.Balance:
    """Render a balance."""
    amount = wire.money(Money(key.currency_code, minor_units))
    time = wire.timestamp(update_ms) if update_ms else None
    return payment_pb2.Balance(user_id=key.owner_id, amount=amount, update_time=time)


def created(p: Payment) -> bytes:
    """Render the answer of CreatePayment."""
    return pb.CreatePaymentResponse(payment=payment(p)).SerializeToString(deterministic=True)


def captured(p: Payment) -> bytes:
    """Render the answer of CapturePayment."""
    return pb.CapturePaymentResponse(payment=payment(p)).SerializeToString(deterministic=True)


def voided(p: Payment) -> bytes:
    """Render the answer of VoidPayment."""
    return pb.VoidPaymentResponse(payment=payment(p)).SerializeToString(deterministic=True)


def closed(p: Payment) -> bytes:
    """Render the answer of ClosePayment."""
    return pb.ClosePaymentResponse(payment=payment(p)).SerializeToString(deterministic=True)


def refunded(p: Payment, r: Refund) -> bytes:
    """Render the answer of RefundPayment."""
    return pb.RefundPaymentResponse(payment=payment(p), refund=refund(r)).SerializeToString(deterministic=True)


def topped_up(key: AccountKey, minor_units: int, update_ms: int) -> bytes:
    """Render the answer of TopUpBalance."""
    answer = pb.TopUpBalanceResponse(balance=balance(key, minor_units, update_ms))
    return answer.SerializeToString(deterministic=True)


def withdrawn(key: AccountKey, minor_units: int, update_ms: int) -> bytes:
    """Render the answer of WithdrawBalance."""
    answer = pb.WithdrawBalanceResponse(balance=balance(key, minor_units, update_ms))
    return answer.SerializeToString(deterministic=True)


def event(moved: Moved) -> Message | None:
    """Render the event that entering a state publishes; None: that state publishes none."""
    p, step = moved.payment, moved.step
    currency = p.amount.currency_code
    facts: dict[str, Any] = {
        "payment_id": p.id,
        "version": step.event,
        "event_time": _time(step.at_ms),
        "payment_no": p.payment_no,
        "order_id": p.order_id,
        "user_id": p.user_id,
        "amount": _money(currency, p.amount.minor_units),
        "method": _METHOD[p.method],
    }
    match states.EVENTS.get(step.status):
        case "payment.initiated":
            return payment_event_pb2.PaymentInitiated(**facts)
        case "payment.success":
            return payment_event_pb2.PaymentSuccess(captured=_money(currency, p.captured), **facts)
        case "payment.failed":
            return payment_event_pb2.PaymentFailed(failure_reason=p.failure_reason, **facts)
        case "payment.refunded":
            assert moved.refund is not None
            total = Money(currency, step.refunded)
            return payment_event_pb2.PaymentRefunded(
                refund_id=moved.refund.id,
                refund_amount=wire.money(moved.refund.amount),
                refunded=wire.money(total),
                captured=_money(currency, p.captured),
                beside_order=not p.live,
                **facts,
            )
    return None


def to_assess(payments: list[ToAssess]) -> risk_service_pb2.BatchAssessPaymentsRequest:
    """Render a batch for risk."""
    return risk_service_pb2.BatchAssessPaymentsRequest(
        payments=[
            risk_service_pb2.PaymentToAssess(
                payment_id=p.payment_id,
                user_id=p.user_id,
                order_id=p.order_id,
                amount=wire.money(p.amount),
                method=_METHOD[p.method],
            )
            for p in payments
        ]
    )


def known_order(order: order_pb2.Order) -> KnownOrder:
    """Read an order that was looked up: it is at least as new as its order.created, which tells nothing more."""
    status = order_pb2.Order.Status.Name(order.status).removeprefix("STATUS_").lower()
    return KnownOrder(order.id, order.user_id, wire.money_from(order.amount), status, _ms(order.expire_time), 1)


def order_created(message: order_event_pb2.OrderCreated, event_id: str) -> usecases.OrderKnown:
    """Read order.created."""
    amount = wire.money_from(message.amount)
    order = KnownOrder(message.order_id, message.user_id, amount, "pending", _ms(message.expire_time), message.version)
    return usecases.OrderKnown(event_id, "order.created", order)


def order_cancelled(message: order_event_pb2.OrderCancelled, event_id: str) -> usecases.OrderCancelled:
    """Read order.cancelled."""
    return usecases.OrderCancelled(event_id, "order.cancelled", message.order_id, message.user_id, message.version)


def payment_rejected(message: order_event_pb2.OrderPaymentRejected, event_id: str) -> usecases.RefundRejected:
    """Read order.payment_rejected."""
    return usecases.RefundRejected(event_id, "order.payment_rejected", message.payment_id, message.reject_reason)


def _ms(time: object) -> int:
    return int(time.ToMilliseconds())  # type: ignore[attr-defined]
