"""One OpenAPI operation per REST route: what is sent, what comes back, and under which policy."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from services.contract import model
from services.contract.comments import comment_of
from services.mesh.openapi import errors, rules, samples, schemas
from services.mesh.openapi.schemas import Json, Side

if TYPE_CHECKING:
    from collections.abc import Iterator

    from google.protobuf.descriptor import Descriptor, FieldDescriptor

SECURITY: Final = "bearerAuth"
KEY_SECURITY: Final = "apiKey"
_VARIABLE: Final = re.compile(r"\{([a-z_]+)\}")
_MEDIA_TYPE: Final = re.compile(r"\b(?:application|text|image)/[a-z0-9]+(?:[.+-][a-z0-9]+)*")


def path_fields(http: model.Http) -> frozenset[str]:
    """Names of the request fields that the path carries."""
    return frozenset(_VARIABLE.findall(http.path))


def operation(contract: model.Contract, method: model.Method, request: Descriptor, response: Descriptor) -> Json:
    """The operation of a method that has a REST route."""
    if method.http is None:
        raise ValueError(f"{method.full_name} has no REST route")
    summary, _, rest = method.comment.partition("\n\n")
    out: Json = {
        "tags": [method.service],
        "operationId": method.name,
        "summary": summary.removesuffix("."),
        "description": "\n\n".join(filter(None, [rest, _repeats(method)])),
    }
    if parameters := [*_in_path(method.http, request), *_in_query(method.http, request), *_headers(method)]:
        out["parameters"] = parameters
    if method.http.body:
        out["requestBody"] = _body(method.http, request)
    out["responses"] = {"200": _success(method.http, response)}
    failures = errors.by_status(contract, method, has_fields=bool(request.fields))
    out["responses"] |= {str(status): errors.response(status, reasons) for status, reasons in failures.items()}
    out["security"] = _security(method)
    out["x-paymesh-policy"] = policy(contract, method)
    return out


def _security(method: model.Method) -> list[Json]:
    """What a client shows: nothing, or one of these."""
    if method.auth is model.Auth.PUBLIC:
        return []
    return [{scheme: list(method.scopes)} for scheme in (SECURITY, *([KEY_SECURITY] if method.api_key else []))]


def policy(contract: model.Contract, method: model.Method) -> Json:
    """What the contract says about a method, for people and tools; times in milliseconds."""
    limit, owner = method.rate_limit, method.owner
    return {
        "method": method.path,
        "service": contract.services[method.service].full_name,
        "callers": list(method.callers),
        "auth": str(method.auth),
        "scopes": list(method.scopes),
        "owner": {"field": owner.field, "resource": owner.resource, "lifted_by": owner.lifted_by} if owner else None,
        "timeout_ms": method.timeout_ms,
        "retry": {"attempts": method.retry_attempts, "on": [str(on) for on in method.retry_on]},
        "idempotency": {"mode": str(method.idempotency), "reason": method.idempotency_reason},
        "rate_limit": {
            "requests": limit.requests,
            "per_ms": limit.per_ms,
            "by": limit.by,
            "global": limit.is_global,
        }
        if limit
        else None,
        "audit": method.audit,
        "api_key": method.api_key,
    }


def _repeats(method: model.Method) -> str:
    """Why a repeat needs no key, where the contract says so."""
    reason = method.idempotency_reason
    return f"A repeat is safe: {reason}" if reason else ""


def _in_path(http: model.Http, request: Descriptor) -> Iterator[Json]:
    for name in _VARIABLE.findall(http.path):
        yield _parameter(request.fields_by_name[name], "path", name, needed=True)


def _in_query(http: model.Http, request: Descriptor) -> Iterator[Json]:
    """Every field that neither path nor body carries; fields of messages by dotted names, as the transcoder reads them."""
    if http.body == "*":
        return
    taken = path_fields(http) | {http.body}
    yield from _flat(request, "", taken)


def _flat(message: Descriptor, prefix: str, taken: frozenset[str] | set[str]) -> Iterator[Json]:
    needed = rules.required(message)
    for field in message.fields:
        if not prefix and field.name in taken:
            continue
        name = f"{prefix}{field.name}"
        if field.message_type is not None and not schemas.is_plain(field.message_type):
            yield from _flat(field.message_type, f"{name}.", taken)
        else:
            yield _parameter(field, "query", name, needed=not prefix and field.name in needed)


def _parameter(field: FieldDescriptor, place: str, name: str, *, needed: bool) -> Json:
    schema = schemas.of_field(field, Side.SENT)
    if isinstance(schema.get("type"), list):  # where all is text, a number is its digits
        schema = {key: value for key, value in schema.items() if key not in {"minimum", "maximum"}} | {"type": "string"}
    return {
        "name": name,
        "in": place,
        "required": needed,
        "description": schema.pop("description", ""),
        "schema": schema,
        **({"example": samples.of_field(field)} if needed else {}),
    }


def _headers(method: model.Method) -> Iterator[Json]:
    if method.idempotency is model.Idempotency.REQUIRED:
        yield {"$ref": "#/components/parameters/IdempotencyKeyRequired"}
    if method.idempotency is model.Idempotency.OPTIONAL:
        yield {"$ref": "#/components/parameters/IdempotencyKey"}


def _body(http: model.Http, request: Descriptor) -> Json:
    """The body: the request as JSON without the fields of the path, or one field of it, which may be raw bytes."""
    if http.body == "*":
        schema = schemas.reference(request, Side.SENT)
        needed = bool(rules.required(request) - path_fields(http))
        example: object = samples.of_message(request, path_fields(http))
    else:
        field = request.fields_by_name[http.body]
        needed = field.name in rules.required(request)
        if schemas.is_raw(field.message_type):
            described = comment_of(field.full_name)
            return {"description": described, "required": needed, "content": _raw(described)}
        schema, example = schemas.of_field(field, Side.SENT), samples.of_field(field)
    content: Json = {"schema": schema, "example": example}
    return {"required": needed, "content": {"application/json": content}}


def _success(http: model.Http, response: Descriptor) -> Json:
    """The answer of 200: the response, one field of it, or the raw body that an HttpBody carries."""
    described = " ".join(filter(None, (comment_of(field.full_name) for field in response.fields))) or "Done."
    if not http.response_body:
        content: Json = {"schema": schemas.reference(response, Side.RECEIVED), "example": samples.of_message(response)}
        return {"description": described, "content": {"application/json": content}}
    field = response.fields_by_name[http.response_body]
    described = comment_of(field.full_name) or described
    if schemas.is_raw(field.message_type):
        return {"description": described, "content": _raw(described)}
    content = {"schema": schemas.of_field(field, Side.RECEIVED), "example": samples.of_field(field)}
    return {"description": described, "content": {"application/json": content}}


def _raw(comment: str) -> Json:
    """Raw bytes have no schema, only the media types that the comment of their HttpBody field names."""
    return {media_type: {} for media_type in _MEDIA_TYPE.findall(comment) or ["*/*"]}
