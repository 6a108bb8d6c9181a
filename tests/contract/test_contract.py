"""The contracts themselves: the linter has nothing to say, what was promised is there, and every rule of a field refuses."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import protovalidate
import pytest
from google.protobuf import descriptor_pool, message_factory
from google.protobuf.descriptor import FieldDescriptor

from buf.validate import validate_pb2
from services.cli.generate import tree
from services.contract import model
from services.contract.lint import RULES, complaints
from services.contract.load import contract

if TYPE_CHECKING:
    from collections.abc import Iterator

    from google.protobuf.descriptor import Descriptor
    from google.protobuf.message import Message

CONTRACT = contract()
METHODS = list(CONTRACT.methods.values())

ROUTES = {
    "POST /api/users/register",
    "POST /api/users/login",
    "GET /api/users/{}",
    "PUT /api/users/{}",
    "POST /api/orders",
    "GET /api/orders/{}",
    "PUT /api/orders/{}/status",
    "GET /api/orders/user/{}",
    "POST /api/payments",
    "GET /api/payments/{}",
    "POST /api/payments/{}/refund",
    "GET /api/payments/order/{}",
    "POST /api/risk/assess",
    "GET /api/risk/rules",
    "POST /api/risk/rules",
    "GET /api/risk/alerts",
    "POST /api/notifications/sms",
    "POST /api/notifications/email",
    "POST /api/notifications/push",
    "GET /api/notifications/{}",
}
TOPICS = {
    "user.created",
    "user.updated",
    "user.login",
    "order.created",
    "order.paid",
    "order.cancelled",
    "payment.initiated",
    "payment.success",
    "payment.failed",
    "payment.refunded",
    "risk.alert",
    "risk.block",
}

_WITHOUT_RULES = frozenset({FieldDescriptor.CPPTYPE_BOOL, FieldDescriptor.CPPTYPE_MESSAGE})
"""Both values of a bool are good; a message has rules on its own fields, which are walked too."""


def _message(full_name: str) -> Descriptor:
    return descriptor_pool.Default().FindMessageTypeByName(full_name)


def _sent() -> Iterator[Descriptor]:
    """Every message of ours that a caller sends: the requests and what is inside them."""
    waiting = [_message(method.request) for method in METHODS]
    seen = set[str]()
    while waiting:
        message = waiting.pop()
        if message.full_name not in seen and message.full_name.startswith("paymesh."):
            seen.add(message.full_name)
            yield message
            waiting += [field.message_type for field in message.fields if field.message_type is not None]


SENT = sorted(_sent(), key=lambda message: message.full_name)
SENT_FIELDS = [field for message in SENT for field in message.fields]


def _rules(field: FieldDescriptor) -> validate_pb2.FieldRules:
    return field.GetOptions().Extensions[validate_pb2.field]


def _empty(message: Descriptor | None) -> Message:
    assert message is not None
    return message_factory.GetMessageClass(message)()


def _name(described: object) -> str:
    return str(getattr(described, "full_name", getattr(described, "message", getattr(described, "name", described))))


COMPLAINTS = [*complaints(tree.described())]


@pytest.mark.parametrize("rule", RULES)
def test_linter_has_no_complaint(rule: str) -> None:
    """What is forgotten on a new RPC, field, event or reason is named here, with what to write."""
    assert [str(complaint) for complaint in COMPLAINTS if complaint.rule == rule] == []


@pytest.mark.parametrize("method", METHODS, ids=_name)
def test_validation_compiles_when_request_is_empty(method: model.Method) -> None:
    """The validator can run every rule, and needs no field that the contract does not have."""
    paths = [violation.proto.field for violation in protovalidate.collect_violations(_empty(_message(method.request)))]
    names = {path.elements[0].field_name for path in paths if path and path.elements}
    assert names <= {field.name for field in _message(method.request).fields}


ENUM_FIELDS = [field for field in SENT_FIELDS if field.enum_type is not None]


@pytest.mark.parametrize("field", ENUM_FIELDS, ids=_name)
@pytest.mark.parametrize("kind", ["unknown", "unspecified"])
def test_enum_value_is_refused_when_not_defined(field: FieldDescriptor, kind: str) -> None:
    """A number that the enum does not have, and its zero, are violations of that very field."""
    assert field.enum_type is not None
    message = _empty(field.containing_type)
    setattr(message, field.name, 0 if kind == "unspecified" else max(field.enum_type.values_by_number) + 1)
    found = {
        violation.proto.field.elements[0].field_name: violation.proto.rule_id
        for violation in protovalidate.collect_violations(message)
        if violation.proto.field
    }
    assert found.get(field.name) in {"enum.defined_only", "enum.not_in"}


@pytest.mark.parametrize("field", SENT_FIELDS, ids=_name)
def test_value_is_refused_when_out_of_range(field: FieldDescriptor) -> None:
    """The greatest number and the longest text that the wire carries are refused, unless the rules let all numbers in."""
    message = _empty(field.containing_type)
    if field.is_repeated or field.cpp_type in _WITHOUT_RULES or field.enum_type is not None:
        assert field.is_repeated or not field.enum_type or field in ENUM_FIELDS
        return
    if field.cpp_type == FieldDescriptor.CPPTYPE_STRING:
        setattr(message, field.name, "x" * 100_000)
    elif _bounded_above(_rules(field)):
        setattr(message, field.name, 2**63 - 1 if "64" in str(_rules(field).WhichOneof("type")) else 2**31 - 1)
    else:
        setattr(message, field.name, -1)
    refused = [v.proto.field.elements[0].field_name for v in protovalidate.collect_violations(message) if v.proto.field]
    assert field.name in refused


def _bounded_above(rules: validate_pb2.FieldRules) -> bool:
    stated = getattr(rules, str(rules.WhichOneof("type")))
    return any(field.name in {"lt", "lte"} for field, _ in stated.ListFields())


def test_services_are_those_promised() -> None:
    """Seven services."""
    assert set(CONTRACT.services) == {"user", "order", "payment", "risk", "notification", "config", "gateway"}


def test_topics_are_those_promised() -> None:
    """The 12 first topics are there; others may stand beside them."""
    assert len(TOPICS) == 12
    assert {event.topic for event in CONTRACT.events.values()} >= TOPICS


def test_routes_are_those_promised() -> None:
    """The 20 first routes are there; others may stand beside them."""
    assert len(ROUTES) == 20
    assert {f"{m.http.verb} {re.sub('{[^}]*}', '{}', m.http.path)}" for m in METHODS if m.http} >= ROUTES


MAY_BE_LEFT_OUT = {
    "request_id": "the header carries the key",
    "phone": "not everybody has one",
    "note": "a remark",
    "description": "a remark",
    "current_password": "asked for by a rule of the message where it is needed",
    "user_id": "0 means nobody with an account",
    "expected_version": "0 means whatever is there",
}


@pytest.mark.parametrize("method", sorted(m.path for m in contract().methods.values() if m.http and m.http.body))
def test_field_left_out_of_a_body_changes_nothing_by_its_zero(method: str) -> None:
    """Envoy drops unknown JSON fields, so a misspelt one is missing: it must be refused, unless its absence is harmless."""
    policy = contract().methods[method]
    assert policy.http is not None
    request = message_factory.GetMessageClass(descriptor_pool.Default().FindMessageTypeByName(policy.request))()
    named = {
        v.proto.field.elements[0].field_name
        for v in protovalidate.Validator().collect_violations(request)
        if v.proto.field
    }
    for field in request.DESCRIPTOR.fields:
        told_apart = field.has_presence or field.is_repeated or "{" + field.name + "}" in policy.http.path
        if field.name not in named and not told_apart:
            said = f"{policy.request}.{field.name} may be left out: make it optional and required, or say why not"
            assert field.name in MAY_BE_LEFT_OUT, said
