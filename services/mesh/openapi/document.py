"""The whole document."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from google.protobuf import descriptor_pool

from services.contract import load
from services.mesh import keys
from services.mesh.openapi import errors, operations, schemas
from services.mesh.openapi.schemas import Json, Side

if TYPE_CHECKING:
    from google.protobuf.descriptor import Descriptor

    from services.contract import model

_DESCRIPTION: Final = """\
Payments as a service mesh, over REST. Every route is a gRPC method too, with the same policy.

- Amounts are integers in the currency's minor unit; 64-bit integers are decimal strings.
- Lists have pages: send `next_page_token` of one answer as `page_token` of the next call.
- A call that changes something takes an `Idempotency-Key`: repeat it with the same key after a failure whose outcome
  you do not know, and it counts once.
- Every error is a google.rpc.Status with one google.rpc.ErrorInfo: decide by its `reason`.
- A field that is not in these schemas is ignored without a word: one that is misspelt counts as absent."""

_KEY: Final[Json] = {
    "name": "Idempotency-Key",
    "in": "header",
    "schema": {"type": "string", "pattern": "^[A-Za-z0-9._:-]{8,64}$", "minLength": 8, "maxLength": 64},
    "example": "order-4711-attempt-1",
}


def document() -> Json:
    """OpenAPI 3.1 of every REST route of the contract."""
    return of_contract(load.contract())


def of_contract(contract: model.Contract) -> Json:
    """OpenAPI 3.1 of every REST route of a contract whose messages are in the descriptor pool."""
    methods = [method for method in contract.methods.values() if method.http]
    paths: dict[str, Json] = {}
    for method in methods:
        if method.http:
            made = operations.operation(contract, method, _message(method.request), _message(method.response))
            paths.setdefault(method.http.path, {})[method.http.verb.lower()] = made
    used = {method.service for method in methods}
    shared = _share(paths)
    return {
        "openapi": "3.1.0",
        "info": {"title": "paymesh", "version": "v1", "description": _DESCRIPTION},
        "servers": [{"url": "/", "description": "The edge that served this document."}],
        "tags": [
            {"name": service.name, "description": service.comment}
            for service in contract.services.values()
            if service.name in used
        ],
        "paths": paths,
        "components": _components(contract, methods) | {"responses": shared},
    }


def _share(paths: dict[str, Json]) -> dict[str, Json]:
    """Move the answers of errors, most of which many routes have, into components. Changes ``paths``."""
    shared: dict[str, Json] = {}
    for operation in (operation for verbs in paths.values() for operation in verbs.values()):
        for status, answer in operation["responses"].items():
            if "x-paymesh-reasons" in answer:
                name = errors.component(answer)
                shared[name] = answer
                operation["responses"][status] = {"$ref": f"#/components/responses/{name}"}
    return dict(sorted(shared.items()))


def _components(contract: model.Contract, methods: list[model.Method]) -> Json:
    return {
        "schemas": _schemas(methods),
        "parameters": {
            "IdempotencyKey": {
                **_KEY,
                "required": False,
                "description": "A value of yours, the same for each repeat: with it a repeat gets the first answer. "
                "The body's `request_id` does the same.",
            },
            "IdempotencyKeyRequired": {
                **_KEY,
                "required": True,
                "description": "A value of yours, the same for each repeat: a repeat gets the first answer. Without it "
                "the call is refused, unless the body's `request_id` carries it for a client that cannot set headers.",
            },
        },
        "headers": {
            "RetryAfter": {"description": "Seconds to wait before the next try.", "schema": {"type": "integer"}},
        },
        "examples": {reason.name: errors.example(reason) for reason in contract.reasons.values()},
        "securitySchemes": {
            operations.SECURITY: {
                "type": "http",
                "scheme": "bearer",
                "bearerFormat": "JWT",
                "description": "The access token of a log-in, valid for 15 minutes. The scopes that a route names must "
                "all be in it.",
            },
            operations.KEY_SECURITY: {
                "type": "apiKey",
                "in": "header",
                "name": keys.HEADER,
                "description": "An API key that its user made (POST /api/gateway/keys), in place of a token and never "
                "beside one. The scopes that a route names must all be the key's.",
            },
        },
    }


def _schemas(methods: list[model.Method]) -> dict[str, Json]:
    """Bodies of requests, responses, and everything below them."""
    out: dict[str, Json] = {"Status": errors.status_schema()}
    roots: list[tuple[Descriptor, Side]] = []
    for method in methods:
        request, response = _message(method.request), _message(method.response)
        roots.append((request, Side.SENT))
        if method.http and method.http.body == "*":
            without = operations.path_fields(method.http)
            out[schemas.name(request, Side.SENT)] = schemas.of_message(request, Side.SENT, without)
        if method.http and not method.http.response_body:
            roots.append((response, Side.RECEIVED))
            out[schemas.name(response, Side.RECEIVED)] = schemas.of_message(response, Side.RECEIVED)
    return dict(sorted((out | schemas.components(roots)).items()))


def _message(full_name: str) -> Descriptor:
    return descriptor_pool.Default().FindMessageTypeByName(full_name)
