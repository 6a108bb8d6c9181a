"""Examples of messages, in the JSON that the edge speaks. What a request's example shows, its rules accept (tested)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from google.protobuf.descriptor import FieldDescriptor

if TYPE_CHECKING:
    from google.protobuf.descriptor import Descriptor

_BY_FIELD: Final[dict[str, object]] = {
    "access_token": "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiI3MiJ9.c2lnbmF0dXJl",
    "accounts": "3",
    "alg": "ES256",
    "attempts": 1,
    "auth": "user",
    "available": "25",
    "brand": "visa",
    "callers": "edge",
    "cancel_reason": "",
    "card_number": "4242424242424242",
    "crv": "P-256",
    "currency_code": "CNY",
    "current_password": "correct horse battery",
    "cvv": "123",
    "day": "2026-01-02",
    "decision_note": "The bill says so too",
    "description": "The shop",
    "detail": "The provider took the money after the payment was closed",
    "device_token": "device-7f3a9c21",
    "differences": 0,
    "disable_reason": "",
    "email": "alice@example.com",
    "event_type": "payment.success",
    "event_types": "payment.success",
    "expected_version": "3",
    "expire_month": 12,
    "expire_year": 2030,
    "expires_in": 900,
    "failure": "",
    "failure_reason": "",
    "first6": "424242",
    "healthy": 1,
    "http": "GET /api/payments/{id}",
    "idempotency": "none",
    "instance": "payment-1",
    "key": "order.reservation_minutes",
    "kid": "2026-01",
    "kind": "user_balance",
    "kty": "EC",
    "last4": "4242",
    "lines": 2,
    "matched": 2,
    "mesh_address": "127.0.0.1:50053",
    "minor_units": "2999",
    "name": "amount_limit_cny",
    "next_page_token": "",
    "note": "Changed my mind",
    "order_no": "O20260102-4503599627370497",
    "password": "correct horse battery",
    "payment_no": "P20260102-4503599627370498",
    "payments_max": 10,
    "phone": "+8613800138000",
    "proposal_note": "The provider shows the charge",
    "provider": "alipay",
    "provider_code": "",
    "quantity": 2,
    "rate_limit": "6000/60s by user",
    "recipient": "alice@example.com",
    "refresh_token": "bWFkZSBmb3IgdGhlIGV4YW1wbGU",
    "refund_no": "R20260102-4503599627370499",
    "registered": 1,
    "roles": "customer",
    "rules_hit": "amount_limit_cny",
    "scope": "orders:read payments:read",
    "scopes": "payments:read",
    "score": 40,
    "secret": "whsec_bWFkZSBmb3IgdGhlIGV4YW1wbGUgYWxvbmU=",
    "service": "payment",
    "sha256": "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "sku": "BOOK-1",
    "subject": "Your order",
    "text": "Your order was paid.",
    "timeout_ms": "2000",
    "token_type": "Bearer",
    "url": "https://shop.example/hooks/paymesh",
    "use": "sig",
    "username": "alice",
    "value": "15",
    "version": "3",
    "webhook_id": "msg_4503599627370497_payment-4503599627370498",
    "window_seconds": 3600,
    "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
    "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0",
}
"""One value of a field of this name; of a repeated field, its one item."""

_NOTHING: Final = {"currency_code": "CNY", "minor_units": "0"}
_BY_FULL_NAME: Final[dict[str, object]] = {
    "paymesh.gateway.v1.Route.method": "paymesh.payment.v1.PaymentService.GetPayment",
    "paymesh.order.v1.Order.status": "STATUS_PENDING",
    "paymesh.order.v1.OrderItem.name": "A book",
    "paymesh.order.v1.SetStockRequest.name": "A book",
    "paymesh.order.v1.Stock.name": "A book",
    "paymesh.order.v1.UpdateOrderStatusRequest.status": "STATUS_CANCELLED",
    "paymesh.payment.v1.Bill.method": "METHOD_ALIPAY",
    "paymesh.payment.v1.BillDifference.request_id": "4503599627370498",
    "paymesh.payment.v1.ImportBillRequest.method": "METHOD_ALIPAY",
    "paymesh.payment.v1.Payment.refunded": _NOTHING,
    "paymesh.payment.v1.Payment.refunding": _NOTHING,
    "paymesh.payment.v1.Payment.status": "STATUS_SUCCESS",
    "paymesh.payment.v1.Review.status": "STATUS_DECIDED",
}
_ENUMS: Final[dict[str, str]] = {
    "paymesh.payment.v1.Payment.Method": "METHOD_BANK_CARD",
    "paymesh.payment.v1.Payment.Scene": "SCENE_CARD",
}
_LEFT_OUT: Final = frozenset(
    {
        # Not for a card that is kept and charged at once.
        "paymesh.payment.v1.CreatePaymentRequest.authorize_only",
        "paymesh.payment.v1.CreatePaymentRequest.openid",
        # Not of a payment that is at rest.
        "paymesh.payment.v1.Payment.expire_time",
        "paymesh.payment.v1.Payment.next_action",
    }
)
_NOT_SENT: Final = frozenset({"request_id", "page_token", "page_size"})
"""A key belongs into the header, and a first page needs neither of the others."""

_TIME: Final = "2026-01-02T03:04:05Z"
_ID: Final = "4503599627370497"


def of_message(message: Descriptor, without: frozenset[str] = frozenset()) -> dict[str, object]:
    """An object with every field but those in `without` and those that nobody would give; of a oneof its first member."""
    return {
        field.name: [of_field(field)] if field.is_repeated else of_field(field)
        for field in message.fields
        if field.name not in without and _shown(field)
    }


def of_field(field: FieldDescriptor) -> object:
    """One value of a field."""
    if field.full_name in _BY_FULL_NAME:
        return _BY_FULL_NAME[field.full_name]
    if field.enum_type is not None:
        return _ENUMS.get(field.enum_type.full_name, field.enum_type.values[1].name)
    if field.message_type is not None:
        plain = field.message_type.full_name == "google.protobuf.Timestamp"
        return _TIME if plain else of_message(field.message_type)
    if field.name in _BY_FIELD:
        return _BY_FIELD[field.name]
    return _by_type(field)


def _by_type(field: FieldDescriptor) -> object:
    if field.cpp_type in {FieldDescriptor.CPPTYPE_INT64, FieldDescriptor.CPPTYPE_UINT64}:
        return _ID
    if field.cpp_type == FieldDescriptor.CPPTYPE_BOOL:
        return True
    return "text" if field.cpp_type == FieldDescriptor.CPPTYPE_STRING else 1


def _shown(field: FieldDescriptor) -> bool:
    choice, sent = field.containing_oneof, field.full_name.endswith(f"Request.{field.name}")
    first = choice is None or choice.fields[0].name == field.name
    return first and field.full_name not in _LEFT_OUT and not (sent and field.name in _NOT_SENT)
