"""What every room's mapping needs: times, money, idempotency keys, between protobuf and the kernel."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from google.protobuf.timestamp_pb2 import Timestamp

from paymesh.type.v1 import money_pb2
from services.kernel.idempotency import IdempotencyKey, Scope
from services.kernel.money import Money

if TYPE_CHECKING:
    from services.platform.interceptor import Call


def timestamp(ms: int) -> Timestamp:
    """Render milliseconds since 1970 UTC."""
    return Timestamp(seconds=ms // 1000, nanos=ms % 1000 * 1_000_000)


def money(amount: Money) -> money_pb2.Money:
    """Render an amount."""
    return money_pb2.Money(currency_code=amount.currency_code, minor_units=amount.minor_units)


def money_from(message: money_pb2.Money) -> Money:
    """Read an amount. Raises CURRENCY_UNSUPPORTED."""
    return Money(message.currency_code, message.minor_units)


def idempotency_key(call: Call, request: Any) -> IdempotencyKey | None:  # noqa: ANN401 - a request with request_id
    """Return the key of a call with the fingerprint of its request; None: it brought none.

    The fingerprint is the SHA-256 of the request's deterministic bytes without request_id, so that a repeat may bring
    its key in the header or in the field.
    """
    if not call.idempotency_key:
        return None
    plain = request
    if request.request_id:
        plain = type(request)()
        plain.CopyFrom(request)
        plain.ClearField("request_id")
    fingerprint = hashlib.sha256(plain.SerializeToString(deterministic=True)).digest()
    assert call.method is not None
    return IdempotencyKey(Scope(call.caller.subject, call.method.name, call.idempotency_key), fingerprint)
