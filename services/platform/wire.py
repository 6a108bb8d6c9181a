"""What every room's mapping needs: times, money, idempotency keys, between protobuf and the kernel."""

from __future__ import annotations

import hashlib
from functools import cache
from typing import TYPE_CHECKING, Any, Final

from google.protobuf.timestamp_pb2 import Timestamp

from paymesh.mesh.v1 import policy_pb2
from paymesh.type.v1 import money_pb2
from services.kernel.idempotency import IdempotencyKey, Scope
from services.kernel.money import Money

if TYPE_CHECKING:
    from collections.abc import Callable

    from google.protobuf.descriptor import Descriptor

    from services.platform.interceptor import Call

_UNSTORED: Final = frozenset({policy_pb2.DATA_CLASS_PAN, policy_pb2.DATA_CLASS_CVV, policy_pb2.DATA_CLASS_SECRET})


def timestamp(ms: int) -> Timestamp:
    """Render milliseconds since 1970 UTC."""
    return Timestamp(seconds=ms // 1000, nanos=ms % 1000 * 1_000_000)


def money(amount: Money) -> money_pb2.Money:
    """Render an amount."""
    return money_pb2.Money(currency_code=amount.currency_code, minor_units=amount.minor_units)


def money_from(message: money_pb2.Money) -> Money:
    """Read an amount. Raises CURRENCY_UNSUPPORTED."""
    return Money(message.currency_code, message.minor_units)


def idempotency_key(
    call: Call,
    request: Any,  # noqa: ANN401 - a request with request_id
    seal: Callable[[bytes], bytes] | None = None,
) -> IdempotencyKey | None:
    """Return the key of a call with the fingerprint of its request; None: it brought none.

    The fingerprint is the SHA-256 of the request's deterministic bytes without request_id, so that a repeat may bring
    its key in the header or in the field. It is stored, and whoever knows the rest of a request would find the three
    digits of a verification value by trying a thousand hashes: so card numbers, verification values and secrets take no
    part, unless a ``seal`` (a MAC under a key that is not in the database) goes over it.
    """
    if not call.idempotency_key:
        return None
    plain, left_out = request, () if seal else _secret_fields(request.DESCRIPTOR)
    if request.request_id or left_out:
        plain = type(request)()
        plain.CopyFrom(request)
        for name in ("request_id", *left_out):
            plain.ClearField(name)
    fingerprint = hashlib.sha256(plain.SerializeToString(deterministic=True)).digest()
    assert call.method is not None
    scope = Scope(call.caller.subject, call.method.name, call.idempotency_key)
    return IdempotencyKey(scope, seal(fingerprint) if seal else fingerprint)


@cache
def _secret_fields(descriptor: Descriptor) -> tuple[str, ...]:
    """Names of the fields of a request of which nothing may be stored, not even a hash."""
    return tuple(
        field.name for field in descriptor.fields if field.GetOptions().Extensions[policy_pb2.data_class] in _UNSTORED
    )
