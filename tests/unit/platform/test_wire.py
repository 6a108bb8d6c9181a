"""Idempotency keys: what the fingerprint of a request covers, and what it must not."""

from __future__ import annotations

import hmac
from typing import TYPE_CHECKING

import pytest
from google.protobuf import descriptor_pool

from paymesh.mesh.v1 import policy_pb2
from paymesh.order.v1 import order_service_pb2
from paymesh.payment.v1 import payment_pb2, payment_service_pb2
from paymesh.user.v1 import user_service_pb2
from services.contract import model
from services.contract.load import contract
from services.kernel.idempotency import IdempotencyKey
from services.platform import wire
from services.platform.interceptor import Call

if TYPE_CHECKING:
    from google.protobuf.descriptor import Descriptor
    from google.protobuf.message import Message

KEYED = [method for method in contract().methods.values() if method.idempotency is not model.Idempotency.NONE]
UNSTORED = {policy_pb2.DATA_CLASS_PAN, policy_pb2.DATA_CLASS_CVV, policy_pb2.DATA_CLASS_SECRET}


def key_of(path: str, request: Message, key: str = "key-00001") -> IdempotencyKey | None:
    """What a call of a method has as its key."""
    return wire.idempotency_key(Call(contract().methods[path], None, request, {}, (), idempotency_key=key), request)


def fingerprint(path: str, request: Message) -> bytes:
    """The stored hash of a request."""
    found = key_of(path, request)
    assert found is not None
    return found.fingerprint


CREATE = "/paymesh.payment.v1.PaymentService/CreatePayment"


def payment(**fields: object) -> payment_service_pb2.CreatePaymentRequest:
    """A payment by card."""
    made = {"order_id": 7, "method": payment_pb2.Payment.METHOD_BANK_CARD, "payment_method_id": 9, **fields}
    return payment_service_pb2.CreatePaymentRequest(**made)  # type: ignore[arg-type] # fields of the message


def test_fingerprint_says_nothing_of_a_verification_value() -> None:
    """None, one and another give the same hash: who has the hash and the rest of the request learns no digit."""
    requests = [payment(), *(payment(cvv=f"{number:03}") for number in range(0, 1000, 111))]
    assert len({fingerprint(CREATE, request) for request in requests}) == 1
    assert requests[1].cvv == "000", "the request itself keeps it, for the issuer"


@pytest.mark.parametrize(
    "other", [{"order_id": 8}, {"payment_method_id": 10}, {"openid": "o1"}, {"authorize_only": False}]
)
def test_fingerprint_differs_when_anything_else_does(other: dict[str, object]) -> None:
    """Every other field counts, even one that is set to what it would be anyway."""
    assert fingerprint(CREATE, payment(cvv="123", **other)) != fingerprint(CREATE, payment(cvv="123"))


def test_fingerprint_says_nothing_of_a_password_unless_it_is_sealed() -> None:
    """A secret is left out as well; under a key that the database does not have it takes part."""
    path = "/paymesh.user.v1.UserService/RegisterUser"
    ann, also_ann, bob = (
        user_service_pb2.RegisterUserRequest(username=name, password=password)
        for name, password in (("ann", "correct horse"), ("ann", "battery staple"), ("bob", "correct horse"))
    )
    assert fingerprint(path, ann) == fingerprint(path, also_ann) != fingerprint(path, bob)
    assert len({_sealed(path, each) for each in (ann, also_ann, bob)}) == 3
    assert _sealed(path, ann) != fingerprint(path, ann)


def _sealed(path: str, request: Message) -> bytes:
    call = Call(contract().methods[path], None, request, {}, (), idempotency_key="key-00001")
    found = wire.idempotency_key(call, request, lambda digest: hmac.digest(b"a key of the test", digest, "sha256"))
    assert found is not None
    return found.fingerprint


@pytest.mark.parametrize("request_id", ["", "key-00001"])
def test_key_may_come_in_the_header_or_the_field(request_id: str) -> None:
    """Where the key stands is no part of what was asked for; without one there is none."""
    path = "/paymesh.order.v1.OrderService/CreateOrder"
    lines = [order_service_pb2.OrderLine(sku="BOOK-1", quantity=1)]
    request = order_service_pb2.CreateOrderRequest(items=lines, request_id=request_id)
    assert fingerprint(path, request) == fingerprint(path, order_service_pb2.CreateOrderRequest(items=lines))
    assert request.request_id == request_id
    assert key_of(path, request, "") is None


@pytest.mark.parametrize("method", KEYED, ids=lambda method: method.name)
def test_nothing_unstored_lies_deeper_when_a_request_has_a_key(method: model.Method) -> None:
    """Only the fields of the request itself are left out, so a card number or a secret may not stand below one of them."""
    request = descriptor_pool.Default().FindMessageTypeByName(method.request)
    below = [field.message_type for field in request.fields if field.message_type is not None]
    assert [name for message in below for name in _unstored(message, set())] == []
    assert set(wire._secret_fields(request)) == {
        field.name for field in request.fields if field.GetOptions().Extensions[policy_pb2.data_class] in UNSTORED
    }


def _unstored(message: Descriptor, seen: set[str]) -> list[str]:
    if message.full_name in seen:
        return []
    seen.add(message.full_name)
    found = [f.full_name for f in message.fields if f.GetOptions().Extensions[policy_pb2.data_class] in UNSTORED]
    return found + [
        name for f in message.fields if f.message_type is not None for name in _unstored(f.message_type, seen)
    ]
