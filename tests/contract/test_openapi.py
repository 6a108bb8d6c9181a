"""gen/openapi/paymesh.json says what the contracts say: every route, every rule, every failure."""

from __future__ import annotations

import json
import re
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import protovalidate
import pytest
from google.protobuf import descriptor_pool, json_format, message_factory
from openapi_schema_validator import OAS31Validator
from openapi_spec_validator import validate

from services.contract import model
from services.contract.load import contract
from services.mesh import openapi
from services.mesh.openapi import errors
from services.payment.domain.card import luhn_valid

if TYPE_CHECKING:
    from google.protobuf.message import Message

ROOT = Path(__file__).resolve().parents[2]
DOCUMENT = openapi.document()
REST = [method for method in contract().methods.values() if method.http]
JSON = [method for method in REST if method.http and method.http.body == "*"]
RAW = [method for method in REST if method.http and method.http.body not in {"", "*"}]

PROMISED = [
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
]
"""The routes that must stay as they were first written; names of path variables are not on the wire."""


def _operation(method: model.Method) -> dict[str, Any]:
    assert method.http
    operation: dict[str, Any] = DOCUMENT["paths"][method.http.path][method.http.verb.lower()]
    return operation


def _resolved(node: dict[str, Any]) -> dict[str, Any]:
    """Follow a `$ref` inside the document."""
    if "$ref" not in node:
        return node
    found: Any = DOCUMENT
    for part in node["$ref"].removeprefix("#/").split("/"):
        found = found[part]
    return dict(found)


def _parameters(method: model.Method) -> list[dict[str, Any]]:
    return [_resolved(parameter) for parameter in _operation(method).get("parameters", [])]


def _empty(full_name: str) -> Message:
    return message_factory.GetMessageClass(descriptor_pool.Default().FindMessageTypeByName(full_name))()


def test_document_is_valid_openapi() -> None:
    """The whole document passes the specification's own validator."""
    validate(DOCUMENT)
    assert DOCUMENT["openapi"].startswith("3.1.")


def test_committed_file_equals_document_when_contracts_are_unchanged() -> None:
    """The file for people and the one inside the package are both what the contracts render to."""
    committed = json.loads(Path(ROOT, "gen/openapi/paymesh.json").read_text(encoding="utf-8"))
    shipped = json.loads(resources.files("paymesh").joinpath("openapi.json").read_text(encoding="utf-8"))
    assert committed == DOCUMENT, "run `tox -e gen` and commit gen/"
    assert shipped == DOCUMENT, "run `tox -e gen` and commit gen/"


@pytest.mark.parametrize("route", PROMISED)
def test_route_exists_when_promised(route: str) -> None:
    """Each of the 20 first routes is there by verb and path."""
    assert len(PROMISED) == 20
    found = {
        f"{verb.upper()} {re.sub('{[^}]*}', '{}', path)}" for path, verbs in DOCUMENT["paths"].items() for verb in verbs
    }
    assert route in found


def test_operations_are_the_rest_methods_exactly() -> None:
    """No method with a REST route is missing, and there is no operation without a method."""
    ids = [operation["operationId"] for verbs in DOCUMENT["paths"].values() for operation in verbs.values()]
    assert sorted(ids) == sorted(method.name for method in REST)


@pytest.mark.parametrize("method", REST, ids=lambda method: method.full_name)
def test_operation_tells_policy_when_contract_states_it(method: model.Method) -> None:
    """Time-out, retry, idempotency, limit, owner, security and scopes stand in every operation as in the contract."""
    operation = _operation(method)
    told = operation["x-paymesh-policy"]
    assert told["method"] == method.path
    assert told["timeout_ms"] == method.timeout_ms
    assert told["retry"]["attempts"] == method.retry_attempts
    assert told["idempotency"]["mode"] == method.idempotency
    assert (told["rate_limit"] or {}).get("requests") == (method.rate_limit.requests if method.rate_limit else None)
    assert (told["owner"] is None) == (method.owner is None)
    shown = [] if method.auth is model.Auth.PUBLIC else ["bearerAuth", *(["apiKey"] if method.api_key else [])]
    assert operation["security"] == [{scheme: list(method.scopes)} for scheme in shown]
    assert told["api_key"] == method.api_key
    assert operation["summary"]
    assert operation["tags"] == [method.service]


@pytest.mark.parametrize("method", REST, ids=lambda method: method.full_name)
def test_parameters_cover_request_when_not_in_body(method: model.Method) -> None:
    """Every request field is in exactly one of path, query and body; the key's header is there as the contract says."""
    assert method.http
    request = descriptor_pool.Default().FindMessageTypeByName(method.request)
    by_place: dict[str, set[str]] = {"path": set(), "query": set(), "header": set()}
    for parameter in _parameters(method):
        by_place[parameter["in"]].add(parameter["name"])
    assert by_place["path"] == set(re.findall(r"{(\w+)}", method.http.path))
    in_body = {method.http.body} if method in RAW else set[str]()
    if method in JSON:
        schema = _resolved(_operation(method)["requestBody"]["content"]["application/json"]["schema"])
        in_body = set(schema["properties"])
        assert schema["additionalProperties"] is True
    assert by_place["path"] | by_place["query"] | in_body == {field.name for field in request.fields}
    assert not by_place["path"] & in_body
    header = {p["name"]: p["required"] for p in _parameters(method) if p["in"] == "header"}
    required = method.idempotency is model.Idempotency.REQUIRED
    assert header == ({} if method.idempotency is model.Idempotency.NONE else {"Idempotency-Key": required})


@pytest.mark.parametrize("method", REST, ids=lambda method: method.full_name)
def test_failures_have_status_and_reasons_when_contract_names_them(method: model.Method) -> None:
    """Every reason that the comment names is an answer, under the HTTP status of its code."""
    answers = {int(status): _resolved(answer) for status, answer in _operation(method)["responses"].items()}
    for word in set(re.findall(r"\b[A-Z][A-Z_]{3,}\b", method.comment)) & contract().reasons.keys():
        assert word in answers[errors.http_status(contract().reasons[word])]["x-paymesh-reasons"]
    assert {200, 429, 500, 503, 504} <= answers.keys()
    assert "Retry-After" in answers[429]["headers"]
    for status, answer in answers.items():
        if status != 200:
            assert answer["content"]["application/json"]["schema"] == {"$ref": "#/components/schemas/Status"}


@pytest.mark.parametrize("method", JSON, ids=lambda method: method.full_name)
def test_example_is_accepted_by_validation(method: model.Method) -> None:
    """The body that the document shows, with the path's values, passes protovalidate and the document's own schema."""
    content = _operation(method)["requestBody"]["content"]["application/json"]
    request = _empty(method.request)
    in_path = {p["name"]: p["example"] for p in _parameters(method) if p["in"] == "path"}
    json_format.ParseDict(content["example"] | in_path, request)
    assert protovalidate.collect_violations(request) == []
    assert list(OAS31Validator(_inlined(content["schema"])).iter_errors(content["example"])) == []
    assert luhn_valid(content["example"].get("card_number", "0")), "a number that the networks give out for tests"


@pytest.mark.parametrize("method", JSON, ids=lambda method: method.full_name)
def test_schema_refuses_empty_body_when_validation_does(method: model.Method) -> None:
    """What the rules require by field the schema requires too, and nothing else."""
    assert method.http
    schema = _resolved(_operation(method)["requestBody"]["content"]["application/json"]["schema"])
    paths = [violation.proto.field for violation in protovalidate.collect_violations(_empty(method.request))]
    refused = {path.elements[0].field_name for path in paths if path and path.elements}
    assert set(schema.get("required", [])) == refused - set(re.findall(r"{(\w+)}", method.http.path))


def test_answers_of_examples_parse_as_responses() -> None:
    """Each success example is the JSON of its response message."""
    for method in REST:
        success = _operation(method)["responses"]["200"]["content"]
        if "application/json" in success and "example" in success["application/json"]:
            example = success["application/json"]["example"]
            assert {
                field.name for field, _ in json_format.ParseDict(example, _empty(method.response)).ListFields()
            } <= example.keys()


@pytest.mark.parametrize("method", RAW, ids=lambda method: method.full_name)
def test_body_has_no_schema_when_it_is_raw(method: model.Method) -> None:
    """Bytes that are taken as they come have the media types that the contract's comment names, and no JSON around them."""
    body = _operation(method)["requestBody"]
    assert body["content"] == {"application/x-www-form-urlencoded": {}, "application/json": {}}
    assert body["description"]
    assert not [name for name in DOCUMENT["components"]["schemas"] if "HttpBody" in name or name.startswith("Any")]


def test_http_body_has_its_media_type() -> None:
    """A route that answers with a raw body says of which type."""
    by_name = {method.name: method for method in REST}
    assert list(_operation(by_name["GetOpenApi"])["responses"]["200"]["content"]) == ["application/json"]
    assert list(_operation(by_name["GetApiPage"])["responses"]["200"]["content"]) == ["text/html"]
    answer = _operation(by_name["HandleCallback"])["responses"]["200"]
    assert answer["content"] == {"text/plain": {}, "application/json": {}}


def test_unspecified_cannot_be_sent() -> None:
    """The zero value is in no schema of what a client sends."""
    sent = {name: schema for name, schema in DOCUMENT["components"]["schemas"].items() if name.endswith("Input")}
    values = [value for schema in sent.values() for value in schema.get("enum", [])]
    assert values
    assert not [value for value in values if value.endswith("_UNSPECIFIED")]


def test_reasons_have_examples_when_in_contract() -> None:
    """Every reason has an example body: its code, its text and exactly its metadata keys."""
    for reason in contract().reasons.values():
        body = DOCUMENT["components"]["examples"][reason.name]["value"]
        assert body["code"] == reason.code_number
        assert set(body["details"][0]["metadata"]) == set(reason.metadata)


def _inlined(schema: dict[str, Any]) -> dict[str, Any]:
    """A schema with its references resolved, since the validator of one schema does not know the document."""

    def walk(node: object) -> object:
        if isinstance(node, dict):
            found = {**_resolved(node), **{k: v for k, v in node.items() if k != "$ref"}} if "$ref" in node else node
            return {key: walk(value) for key, value in found.items()}
        return [walk(item) for item in node] if isinstance(node, list) else node

    made = walk(schema)
    assert isinstance(made, dict)
    return made
