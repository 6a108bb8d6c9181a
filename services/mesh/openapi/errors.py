"""What a method can fail with: reasons by HTTP status, by the transcoder's standard map."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from services.contract import model

if TYPE_CHECKING:
    from collections.abc import Iterator

HTTP_STATUS: Final[dict[str, int]] = {
    "CANCELLED": 499,
    "UNKNOWN": 500,
    "INVALID_ARGUMENT": 400,
    "DEADLINE_EXCEEDED": 504,
    "NOT_FOUND": 404,
    "ALREADY_EXISTS": 409,
    "PERMISSION_DENIED": 403,
    "RESOURCE_EXHAUSTED": 429,
    "FAILED_PRECONDITION": 400,
    "ABORTED": 409,
    "OUT_OF_RANGE": 400,
    "UNIMPLEMENTED": 501,
    "INTERNAL": 500,
    "UNAVAILABLE": 503,
    "DATA_LOSS": 500,
    "UNAUTHENTICATED": 401,
}
"""google.rpc.Code -> HTTP status, as grpc_json_transcoder maps it."""

TOO_LARGE: Final = "REQUEST_TOO_LARGE"
OF_HTTP: Final = {TOO_LARGE: 413, "VERB_NOT_ALLOWED": 405}
"""Refused by Envoy before there is a gRPC call, so its HTTP status is HTTP's own."""

_TITLES: Final = {
    400: "The request breaks a rule, or the state of things does not allow it.",
    401: "No valid access token.",
    403: "Not allowed.",
    404: "Nothing there that the caller may see.",
    405: "The path takes other verbs.",
    409: "In conflict with what is there, or with a call at work.",
    413: "The body is too large.",
    429: "Too many calls, or too much work at once.",
    499: "The caller ended the call.",
    500: "A fault on our side.",
    501: "No such method.",
    503: "A service that the call needs does not answer.",
    504: "The time for the call ran out.",
}
_WORD: Final = re.compile(r"\b[A-Z][A-Z_]{3,}\b")


def http_status(reason: model.Reason) -> int:
    """The HTTP status with which a reason reaches a REST client."""
    return OF_HTTP.get(reason.name) or HTTP_STATUS[reason.code]


def by_status(contract: model.Contract, method: model.Method, *, has_fields: bool) -> dict[int, list[model.Reason]]:
    """HTTP status -> reasons, of everything that a REST call of the method can fail with."""
    names = {*_general(method, has_fields=has_fields), *_named(contract, method)}
    out: dict[int, list[model.Reason]] = {}
    for reason in sorted((contract.reasons[name] for name in names), key=lambda reason: reason.number):
        out.setdefault(http_status(reason), []).append(reason)
    return dict(sorted(out.items()))


def response(status: int, reasons: list[model.Reason]) -> dict[str, Any]:
    """The answer of one HTTP status: a google.rpc.Status whose ErrorInfo has one of the reasons."""
    lines = [f"- `{reason.name}`: {reason.en}" for reason in reasons]
    answer: dict[str, Any] = {"description": "\n".join([_TITLES[status], "", *lines])}
    if status == 429:
        answer["headers"] = {"Retry-After": {"$ref": "#/components/headers/RetryAfter"}}
    examples = {reason.name: {"$ref": f"#/components/examples/{reason.name}"} for reason in reasons}
    answer["content"] = {
        "application/json": {"schema": {"$ref": "#/components/schemas/Status"}, "examples": examples},
    }
    answer["x-paymesh-reasons"] = [reason.name for reason in reasons]
    return answer


def component(response: dict[str, Any]) -> str:
    """Name of an error's answer among the components: `RateLimitedOrOverloaded`."""
    return "Or".join(reason.title().replace("_", "") for reason in response["x-paymesh-reasons"])


def example(reason: model.Reason) -> dict[str, Any]:
    """The body of an error with this reason; `{key}` stands where a value of the call would."""
    info = {
        "@type": "type.googleapis.com/google.rpc.ErrorInfo",
        "reason": reason.name,
        "domain": "paymesh",
        "metadata": {key: f"{{{key}}}" for key in reason.metadata},
    }
    body = {"code": reason.code_number, "message": reason.en, "details": [info]}
    return {"summary": reason.zh, "value": body}


def status_schema() -> dict[str, Any]:
    """google.rpc.Status as the transcoder writes it."""
    info = {
        "type": "object",
        "description": "google.rpc.ErrorInfo: exactly one in every error. Other details stand beside it, such as "
        "google.rpc.BadRequest with `field_violations`, every one of them at once.",
        "properties": {
            "@type": {"type": "string"},
            "reason": {"type": "string", "description": "A value of paymesh.error.v1.ErrorReason, without prefix."},
            "domain": {"type": "string"},
            "metadata": {"type": "object", "additionalProperties": {"type": "string"}},
        },
        "required": ["@type"],
    }
    return {
        "type": "object",
        "description": "google.rpc.Status: the body of every error. Decide by `details[].reason`, never by `message`.",
        "properties": {
            "code": {"type": "integer", "format": "int32", "description": "A google.rpc.Code."},
            "message": {"type": "string", "description": "What happened and what to do, for people."},
            "details": {"type": "array", "items": info},
        },
        "required": ["code", "message", "details"],
    }


def _general(method: model.Method, *, has_fields: bool) -> Iterator[str]:
    """What the edge, the mesh and the interceptor refuse, by the method's policy."""
    yield from ("REQUEST_BLOCKED", "BODY_MALFORMED", "OVERLOADED", "UNAVAILABLE", "DEADLINE_EXCEEDED", "INTERNAL")
    if method.rate_limit:
        yield "RATE_LIMITED"
    if has_fields:
        yield "INVALID_ARGUMENT"
    if method.http and method.http.body:
        yield TOO_LARGE
    if method.auth in {model.Auth.USER, model.Auth.SCOPES}:
        yield from ("UNAUTHENTICATED", "SESSION_REVOKED")
    if method.api_key:
        yield "API_KEY_REVOKED"
    if method.scopes:
        yield "SCOPE_MISSING"
    if method.owner and method.owner.field:
        yield "NOT_OWNER"
    if method.idempotency is model.Idempotency.REQUIRED:
        yield "IDEMPOTENCY_KEY_MISSING"
    if method.idempotency is not model.Idempotency.NONE:
        yield from ("IDEMPOTENCY_KEY_REUSED", "IDEMPOTENCY_KEY_IN_FLIGHT")


def _named(contract: model.Contract, method: model.Method) -> Iterator[str]:
    """The reasons that the method's comment names."""
    return (word for word in _WORD.findall(method.comment) if word in contract.reasons)
