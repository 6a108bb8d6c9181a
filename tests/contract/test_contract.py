"""The contracts themselves, walked from the descriptors: what is forgotten on a new RPC, field, event or reason is named."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import protovalidate
import pytest
from google.protobuf import descriptor_pool, message_factory
from google.protobuf.descriptor import FieldDescriptor

from buf.validate import validate_pb2
from paymesh.mesh.v1 import policy_pb2
from services.contract import descriptors, model
from services.contract.comments import comment_of
from services.contract.load import contract

if TYPE_CHECKING:
    from collections.abc import Iterator

    from google.protobuf.descriptor import Descriptor, EnumDescriptor
    from google.protobuf.message import Message

CONTRACT = contract()
METHODS = list(CONTRACT.methods.values())
SERVICES = list(CONTRACT.services.values())
EVENTS = list(CONTRACT.events.values())
REASONS = list(CONTRACT.reasons.values())

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
CHANGES = {"POST", "PUT", "PATCH", "DELETE"}
BODIES = CHANGES - {"DELETE"}
"""What a DELETE takes away stands in its path: proxies and clients drop a body there."""
HTTP_BODY = "google.api.HttpBody"
PAGE_MAX = 100
TIMEOUT_MS_MAX = 10_000
LIST_WITHOUT_PAGES = {
    "paymesh.user.v1.UserService.GetJwks": "few keys, and RFC 7517 gives their document no pages",
    "paymesh.payment.v1.PaymentService.GetTrialBalance": "a line per kind of account and currency, and a sum over all of it",
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


@pytest.mark.parametrize("method", METHODS, ids=_name)
def test_method_states_its_policy(method: model.Method) -> None:
    """Who may call, for how long, what a repeat does, and what it is for: nothing is left to a default."""
    options = descriptor_pool.Default().FindMethodByName(method.full_name).GetOptions()
    assert options.HasExtension(policy_pb2.method)
    assert method.auth in model.Auth
    assert 0 < method.timeout_ms <= TIMEOUT_MS_MAX
    assert len(method.comment) > 10
    assert method.callers
    assert set(method.callers) <= {*CONTRACT.services, "edge"}
    if method.auth is model.Auth.SCOPES:
        assert method.scopes
    if method.auth in {model.Auth.PUBLIC, model.Auth.INTERNAL}:
        assert method.owner is None
    if method.auth is model.Auth.INTERNAL:
        assert method.http is None
        assert "edge" not in method.callers
    else:
        assert method.rate_limit is not None, "what the edge lets in has a limit"
        assert method.rate_limit.requests > 0
        assert method.rate_limit.per_ms > 0


@pytest.mark.parametrize("method", METHODS, ids=_name)
def test_method_has_one_request_and_one_answer(method: model.Method) -> None:
    """No streaming: deadline, validation and idempotency are those of one request, and the interceptor refuses all else."""
    described = descriptor_pool.Default().FindMethodByName(method.full_name)
    assert not described.client_streaming
    assert not described.server_streaming


@pytest.mark.parametrize("method", METHODS, ids=_name)
def test_method_says_what_a_repeat_does(method: model.Method) -> None:
    """Without a key there is a reason why a repeat is safe; with one the request can carry it too; retries need either."""
    request = _message(method.request)
    if method.idempotency is model.Idempotency.NONE:
        assert method.idempotency_reason
        assert "request_id" not in request.fields_by_name
    else:
        assert "request_id" in request.fields_by_name
        assert "repeat" in method.comment.lower()
    if method.retry_attempts:
        assert method.retry_on
    if model.RetryOn.UNAVAILABLE in method.retry_on and method.http and method.http.verb in CHANGES:
        safe = method.idempotency is model.Idempotency.REQUIRED or method.idempotency_reason
        assert safe, "repeated after it may have been done, so a repeat must be safe without the caller's help"


@pytest.mark.parametrize("method", METHODS, ids=_name)
def test_method_names_only_reasons_that_exist(method: model.Method) -> None:
    """A word in capitals in a comment is a reason of the contract (or a status that one has)."""
    words = set(re.findall(r"\b[A-Z]+(?:_[A-Z]+)+\b", method.comment))
    assert words <= CONTRACT.reasons.keys()


@pytest.mark.parametrize("method", METHODS, ids=_name)
def test_owner_is_a_field_when_it_names_one(method: model.Method) -> None:
    """The owner's field exists and is an id; the scope that lifts it is one that a token can carry."""
    if method.owner:
        assert bool(method.owner.field) != method.owner.resource
        if method.owner.field:
            assert _message(method.request).fields_by_name[method.owner.field].type == FieldDescriptor.TYPE_INT64
        assert not method.owner.lifted_by or method.owner.lifted_by in CONTRACT.scopes


@pytest.mark.parametrize("method", METHODS, ids=_name)
def test_list_has_pages_and_a_stated_maximum(method: model.Method) -> None:
    """Every method that answers with a list takes a page size of at most 100, or at most 200 things to look up."""
    response, request = _message(method.response), _message(method.request)
    lists = [f for f in response.fields if f.is_repeated and f.message_type is not None]
    if not method.name.startswith("List"):
        assert "page_size" not in request.fields_by_name
        bounded = [f for f in request.fields if f.is_repeated and 0 < _rules(f).repeated.max_items <= 200]
        known = method.full_name in LIST_WITHOUT_PAGES or method.name == "GetMeshHealth"
        assert not lists or bounded or known
        return
    size = request.fields_by_name["page_size"]
    assert (_rules(size).int32.gte, _rules(size).int32.lte) == (0, PAGE_MAX)
    assert str(PAGE_MAX) in comment_of(size.full_name)
    assert 0 < _rules(request.fields_by_name["page_token"]).string.max_len <= 1000
    assert "next_page_token" in response.fields_by_name
    assert len(lists) == 1


@pytest.mark.parametrize("field", SENT_FIELDS, ids=_name)
def test_field_has_rules_when_it_is_sent(field: FieldDescriptor) -> None:
    """Every field that a caller sends says what is refused; bools and messages need nothing (their fields do)."""
    rules = _rules(field)
    assert comment_of(field.full_name)
    if field.is_repeated:
        assert 0 < rules.repeated.max_items <= 1000
        rules = rules.repeated.items
    if field.cpp_type in _WITHOUT_RULES:
        return
    kind = rules.WhichOneof("type")
    assert kind, "state with buf.validate what is refused"
    if kind == "string":
        bounded = rules.string.max_len or re.search(r"\{\d+,\d+\}|\{\d+\}", rules.string.pattern)
        assert bounded, "a string without a greatest length"
    if kind == "enum":
        assert rules.enum.defined_only
        assert list(rules.enum.not_in) == [0]


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


@pytest.mark.parametrize("service", SERVICES, ids=_name)
def test_service_states_its_policy(service: model.Service) -> None:
    """Callers, port, balancing, breaker and outlier detection are all stated, and within sense."""
    breaker, outlier = service.circuit_breaker, service.outlier
    assert service.comment
    assert set(service.callers) <= {*CONTRACT.services, "edge"}
    assert service.callers
    assert set(service.on_behalf) <= set(service.callers)
    assert 1024 < service.port < 65536
    assert service.load_balancing != "unspecified"
    assert min(breaker.connections_max, breaker.pending_max, breaker.requests_max) > 0
    assert 0 < breaker.retry_budget_percent <= 100
    assert outlier.consecutive_failures > 0
    assert min(outlier.interval_ms, outlier.ejection_time_ms) > 0
    assert 0 < outlier.ejection_percent_max <= 100


def test_services_differ_where_they_must() -> None:
    """Seven services, each with a name and a port of its own."""
    assert set(CONTRACT.services) == {"user", "order", "payment", "risk", "notification", "config", "gateway"}
    assert len({service.port for service in SERVICES}) == len(SERVICES)


@pytest.mark.parametrize("event", EVENTS, ids=_name)
def test_event_names_fields_that_exist(event: model.Event) -> None:
    """Key and version are fields of the message: an id (or a name) to partition by, and a number to order by."""
    fields = _message(event.message).fields_by_name
    assert fields[event.key].type in {FieldDescriptor.TYPE_INT64, FieldDescriptor.TYPE_STRING}
    assert fields[event.version].type == FieldDescriptor.TYPE_INT64
    assert "event_time" in fields
    assert event.retention_ms > 0
    assert event.topic.startswith(f"{event.service}.")
    assert set(event.consumers) <= CONTRACT.services.keys()
    assert comment_of(event.message)


def test_topics_are_those_promised() -> None:
    """The 12 first topics are there, each with one event; others may stand beside them."""
    topics = [event.topic for event in EVENTS]
    assert len(TOPICS) == 12
    assert set(topics) >= TOPICS
    assert len(topics) == len(set(topics))


def test_routes_are_those_promised() -> None:
    """The 20 first routes are there, and no two methods share one."""
    found = [f"{m.http.verb} {re.sub('{[^}]*}', '{}', m.http.path)}" for m in METHODS if m.http]
    assert len(ROUTES) == 20
    assert set(found) >= ROUTES
    assert len(found) == len(set(found))


@pytest.mark.parametrize("method", [method for method in METHODS if method.http], ids=_name)
def test_route_binds_fields_that_exist(method: model.Method) -> None:
    """Variables of the path are fields of the request; only what changes something has a body, all that is left of it."""
    assert method.http
    fields, in_path = _message(method.request).fields_by_name, set(re.findall(r"{(\w+)}", method.http.path))
    assert in_path <= set(fields)
    if method.http.body in {"", "*"}:
        assert (method.http.body == "*") == (method.http.verb in BODIES)
    else:
        assert method.http.verb in BODIES
        assert _is_raw(fields[method.http.body]), "one field is the body only where the bytes count"
        assert method.http.response_body, "who sends raw bytes is answered in his own words"
        assert set(fields) == {*in_path, method.http.body}, "what is left would be in the query"
    if method.http.verb == "DELETE":
        assert set(fields) == in_path
    if method.http.response_body:
        assert _is_raw(_message(method.response).fields_by_name[method.http.response_body])


def _is_raw(field: FieldDescriptor) -> bool:
    return field.message_type is not None and field.message_type.full_name == HTTP_BODY


def _state_enums() -> Iterator[EnumDescriptor]:
    for file in descriptors.FILES:
        for dependency in (file, *file.dependencies):
            for message in dependency.message_types_by_name.values():
                for enum in message.enum_types:
                    if any(value.GetOptions().HasExtension(policy_pb2.state) for value in enum.values):
                        yield enum


STATES = list({enum.full_name: enum for enum in _state_enums()}.values())


@pytest.mark.parametrize("enum", STATES, ids=_name)
def test_states_lead_to_states_that_exist(enum: EnumDescriptor) -> None:
    """Each state can be reached from one in which an entity is made, and emits only topics that have an event."""
    policies = {value.name: value.GetOptions().Extensions[policy_pb2.state] for value in enum.values if value.number}
    topics = {event.topic for event in EVENTS}
    reached = {name for name, policy in policies.items() if policy.initial}
    assert reached
    waiting = list(reached)
    while waiting:
        following = set(policies[waiting.pop()].next)
        assert following <= policies.keys()
        waiting += following - reached
        reached |= following
    assert reached == policies.keys()
    assert {policy.event for policy in policies.values() if policy.event} <= topics


@pytest.mark.parametrize("reason", REASONS, ids=_name)
def test_reason_has_code_and_both_texts(reason: model.Reason) -> None:
    """The texts in both languages have exactly the places that the reason's metadata fills."""
    assert reason.code != "OK"
    assert reason.code_number > 0
    assert comment_of(f"paymesh.error.v1.ERROR_REASON_{reason.name}")
    assert re.search("[\u4e00-\u9fff]", reason.zh)
    assert not re.search("[\u4e00-\u9fff]", reason.en)
    for text in (reason.en, reason.zh):
        assert set(re.findall(r"{(\w+)}", text)) <= set(reason.metadata)
    assert set(re.findall(r"{(\w+)}", reason.en + reason.zh)) == set(reason.metadata)


@pytest.mark.parametrize("reason", REASONS, ids=_name)
def test_reason_is_named_by_a_method_when_it_is_business(reason: model.Reason) -> None:
    """A business refusal that no method's comment names would surprise every caller."""
    named = any(re.search(rf"\b{reason.name}\b", method.comment) for method in METHODS)
    assert named or not reason.business


DATA_CLASSES = {
    "password|refresh_token|access_token": policy_pb2.DATA_CLASS_SECRET,
    "card_number": policy_pb2.DATA_CLASS_PAN,
    "cvv": policy_pb2.DATA_CLASS_CVV,
    "^(?!page).*token$|phone|email|openid": policy_pb2.DATA_CLASS_PII,
}


@pytest.mark.parametrize("field", [f for f in SENT_FIELDS if re.search("|".join(DATA_CLASSES), f.name)], ids=_name)
def test_field_has_data_class_when_it_is_about_a_person(field: FieldDescriptor) -> None:
    """Passwords and tokens are secret, cards a class each, the rest of a person PII: redaction goes by these marks."""
    found = field.GetOptions().Extensions[policy_pb2.data_class]
    assert found == next(kind for name, kind in DATA_CLASSES.items() if re.search(name, field.name))


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
