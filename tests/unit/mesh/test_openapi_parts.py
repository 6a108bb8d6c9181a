"""The parts of the OpenAPI generator, on what the contracts do not have (yet) as well as on what they have."""

from __future__ import annotations

import re

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool
from google.protobuf.json_format import ParseDict
from google.rpc import code_pb2

from buf.validate import validate_pb2
from services.contract import model
from services.contract.load import contract
from services.mesh.openapi import errors, operations, rules, samples, schemas
from services.mesh.openapi.schemas import Side


@pytest.mark.parametrize(
    ("stated", "expected"),
    [
        (
            validate_pb2.FieldRules(string=validate_pb2.StringRules(min_len=1, max_len=9)),
            {"minLength": 1, "maxLength": 9},
        ),
        (validate_pb2.FieldRules(string=validate_pb2.StringRules(pattern="^a$")), {"pattern": "^a$"}),
        (validate_pb2.FieldRules(string=validate_pb2.StringRules(email=True)), {"format": "email"}),
        (ParseDict({"string": {"in": ["a", "b"]}}, validate_pb2.FieldRules()), {"enum": ["a", "b"]}),
        (validate_pb2.FieldRules(int32=validate_pb2.Int32Rules(gte=0, lte=100)), {"minimum": 0, "maximum": 100}),
        (
            validate_pb2.FieldRules(int32=validate_pb2.Int32Rules(gt=1, lt=5)),
            {"exclusiveMinimum": 1, "exclusiveMaximum": 5},
        ),
        (
            validate_pb2.FieldRules(int64=validate_pb2.Int64Rules(gt=0)),
            {"pattern": "^[1-9][0-9]{0,18}$", "x-minimum": "1"},
        ),
        (
            validate_pb2.FieldRules(int64=validate_pb2.Int64Rules(gte=0, lte=9)),
            {"pattern": "^(0|[1-8]|9)$", "x-minimum": "0", "x-maximum": "9"},
        ),
        (validate_pb2.FieldRules(int64=validate_pb2.Int64Rules(gte=-5, lt=5)), {"x-minimum": "-5", "x-maximum": "4"}),
        (
            validate_pb2.FieldRules(repeated=validate_pb2.RepeatedRules(min_items=1, max_items=8, unique=True)),
            {"minItems": 1, "maxItems": 8, "uniqueItems": True},
        ),
        (validate_pb2.FieldRules(), {}),
    ],
)
def test_keywords_say_what_the_rules_say(stated: validate_pb2.FieldRules, expected: dict[str, object]) -> None:
    """Each rule has its keyword; bounds of 64-bit integers, which are strings in JSON, stand beside a pattern."""
    assert rules.keywords(stated) == expected


def test_http_status_covers_every_code() -> None:
    """The transcoder's map has every code but OK, and each reason of the contract has a title to be shown under."""
    assert set(errors.HTTP_STATUS) == set(code_pb2.Code.keys()) - {"OK"}
    assert all(errors.response(errors.http_status(reason), [reason]) for reason in contract().reasons.values())


def test_reasons_follow_policy() -> None:
    """What the edge and the interceptor refuse is there by policy, without being named in a comment."""
    method = contract().methods["/paymesh.payment.v1.PaymentService/CreatePayment"]
    found = {
        status: {reason.name for reason in reasons}
        for status, reasons in errors.by_status(contract(), method, has_fields=True).items()
    }
    assert {"IDEMPOTENCY_KEY_MISSING", "INVALID_ARGUMENT", "BALANCE_INSUFFICIENT"} <= found[400]
    assert found[401] == {"UNAUTHENTICATED", "SESSION_REVOKED", "API_KEY_REVOKED"}
    assert found[413] == {"REQUEST_TOO_LARGE"}
    assert found[429] == {"RATE_LIMITED", "OVERLOADED"}


def _strange() -> descriptor_pb2.FileDescriptorProto:
    """A request with what no contract has: a message and a list in the query, a body that is one field."""
    file = descriptor_pb2.FileDescriptorProto(name="paymesh/strange/v1/strange.proto", package="paymesh.strange.v1")
    file.syntax = "proto3"
    inner = file.message_type.add(name="Range")
    inner.field.add(name="low", number=1, type="TYPE_INT64", label="LABEL_OPTIONAL")
    outer = file.message_type.add(name="FindRequest")
    outer.field.add(name="id", number=1, type="TYPE_STRING", label="LABEL_OPTIONAL")
    outer.field.add(name="tags", number=2, type="TYPE_STRING", label="LABEL_REPEATED")
    outer.field.add(
        name="range",
        number=3,
        type="TYPE_MESSAGE",
        type_name=".paymesh.strange.v1.Range",
        label="LABEL_OPTIONAL",
    )
    outer.field.add(name="blob", number=4, type="TYPE_BYTES", label="LABEL_OPTIONAL")
    return file


POOL = descriptor_pool.DescriptorPool()
POOL.Add(_strange())
FIND = POOL.FindMessageTypeByName("paymesh.strange.v1.FindRequest")


@pytest.mark.parametrize("high", [1, 9, 10, 105, 2_000, 98_765])
def test_pattern_of_a_bound_takes_what_is_up_to_it(high: int) -> None:
    """Around every change of length and around the bound itself, and nothing with a leading zero."""
    pattern = re.compile(
        str(rules.keywords(validate_pb2.FieldRules(int64=validate_pb2.Int64Rules(gt=0, lte=high)))["pattern"])
    )
    near = {n for middle in (0, 10, 100, 1000, 10_000, high, 10 * high) for n in range(middle - 20, middle + 20)}
    assert {n for n in near if pattern.fullmatch(str(n))} == {n for n in near if 1 <= n <= high}
    assert not pattern.fullmatch("01")


def test_query_has_dotted_names_when_a_message_is_in_it() -> None:
    """Fields of a message in the query are parameters by dotted name, and a list is an array."""
    found = {p["name"]: p["schema"] for p in operations._in_query(model.Http("GET", "/x/{id}", "", ""), FIND)}
    assert set(found) == {"tags", "range.low", "blob"}
    assert found["tags"]["type"] == "array"
    assert found["range.low"]["format"] == "int64"


def test_query_has_the_rest_when_the_body_is_one_field() -> None:
    """With `body: "blob"` all but path and blob are in the query, and the body is the blob."""
    http = model.Http("POST", "/x/{id}", "blob", "")
    assert {p["name"] for p in operations._in_query(http, FIND)} == {"tags", "range.low"}
    body = operations._body(http, FIND)["content"]["application/json"]["schema"]
    assert body == {"type": "string", "contentEncoding": "base64"}


def test_component_names_differ_by_side() -> None:
    """What is sent and what is received are two components; a request is only sent."""
    inner = POOL.FindMessageTypeByName("paymesh.strange.v1.Range")
    assert schemas.name(inner, Side.SENT) == "RangeInput"
    assert schemas.name(inner, Side.RECEIVED) == "Range"
    assert schemas.name(FIND, Side.SENT) == "FindRequest"
    assert list(schemas.components([(FIND, Side.SENT)])) == ["RangeInput"]


def test_schema_says_that_more_may_be_sent() -> None:
    """An answer may grow; what nobody reads of a request is ignored. An answer always has its plain fields."""
    assert schemas.of_message(FIND, Side.SENT)["additionalProperties"] is True
    received = schemas.of_message(FIND, Side.RECEIVED)
    assert "additionalProperties" not in received
    assert received["required"] == ["id", "tags", "blob"]


def test_sample_has_every_field_but_those_of_the_path() -> None:
    """Fields that the path carries are not shown in the body again."""
    assert set(samples.of_message(FIND, frozenset({"id"}))) == {"tags", "range", "blob"}
