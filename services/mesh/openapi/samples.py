"""Examples of messages, in the JSON that the edge speaks. What a request's example shows, its rules accept (tested)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from google.protobuf.descriptor import FieldDescriptor

if TYPE_CHECKING:
    from google.protobuf.descriptor import Descriptor

_BY_FIELD: Final[dict[str, object]] = {
    "access_token": "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiI3MiJ9.c2lnbmF0dXJl",
    "alg": "ES256",
    "attempts": 1,
    "auth": "user",
    "available": "25",
    "callers": "edge",
    "cancel_reason": "",
    "crv": "P-256",
    "currency_code": "CNY",
    "current_password": "correct horse battery",
    "description": "The shop",
    "device_token": "device-7f3a9c21",
    "disable_reason": "",
    "email": "alice@example.com",
    "event_type": "payment.success",
    "event_types": "payment.success",
    "expected_version": "3",
    "expires_in": 900,
    "failure": "",
    "failure_reason": "",
    "healthy": 1,
    "http": "GET /api/payments/{id}",
    "idempotency": "none",
    "instance": "payment-1",
    "key": "order.reservation_minutes",
    "kid": "2026-01",
    "kty": "EC",
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

_BY_FULL_NAME: Final[dict[str, object]] = {
    "paymesh.gateway.v1.Route.method": "paymesh.payment.v1.PaymentService.GetPayment",
    "paymesh.order.v1.Order.status": "STATUS_PENDING",
    "paymesh.order.v1.OrderItem.name": "A book",
    "paymesh.order.v1.SetStockRequest.name": "A book",
    "paymesh.order.v1.Stock.name": "A book",
    "paymesh.order.v1.UpdateOrderStatusRequest.status": "STATUS_CANCELLED",
    "paymesh.payment.v1.Payment.status": "STATUS_SUCCESS",
}
_ENUMS: Final[dict[str, str]] = {"paymesh.payment.v1.Payment.Method": "METHOD_BALANCE"}
_LEFT_OUT: Final = frozenset({"request_id", "page_token", "page_size"})
"""A key belongs into the header, and a first page needs neither of the others."""

_TIME: Final = "2026-01-02T03:04:05Z"
_ID: Final = "4503599627370497"


def of_message(message: Descriptor, without: frozenset[str] = frozenset()) -> dict[str, object]:
    """An object with every field but those in `without`; of a oneof its first member."""
    return {
        field.name: [of_field(field)] if field.is_repeated else of_field(field)
        for field in message.fields
        if field.name not in _LEFT_OUT | without and _first_of_choice(field)
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


def _first_of_choice(field: FieldDescriptor) -> bool:
    choice = field.containing_oneof
    return choice is None or choice.fields[0].name == field.name
