"""A refusal as a client meets it, read the same way from REST and from gRPC, and held against the contract."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import grpc
from google.protobuf import json_format
from google.rpc import error_details_pb2, status_pb2

from services.contract.load import contract

if TYPE_CHECKING:
    from collections.abc import Callable

    import httpx

_HTTP = {3: 400, 4: 504, 5: 404, 6: 409, 7: 403, 8: 429, 9: 400, 10: 409, 11: 400, 12: 501, 13: 500, 14: 503, 16: 401}
"""google.rpc.Code -> HTTP status, as Envoy's transcoder maps it."""
_HTTP_OF_REASON = {"REQUEST_TOO_LARGE": 413, "VERB_NOT_ALLOWED": 405}
"""Reasons whose status at REST is Envoy's own."""
_INFO = "type.googleapis.com/google.rpc.ErrorInfo"
_BAD_REQUEST = "type.googleapis.com/google.rpc.BadRequest"


@dataclass(frozen=True, slots=True)
class Refusal:
    """What was refused and why. ``violations`` are the fields that break a rule, sorted; ``text`` is for people."""

    code: str
    reason: str
    metadata: dict[str, str]
    violations: tuple[str, ...] = ()
    text: str = field(default="", compare=False)
    retry_after: str = field(default="", compare=False)


class Refused(Exception):
    """A call was refused."""

    def __init__(self, refusal: Refusal) -> None:
        """Carry the ``refusal``."""
        self.refusal = refusal
        super().__init__(repr(refusal))


def of_rest(answer: httpx.Response) -> Refusal:
    """Read a refusal at REST: google.rpc.Status as JSON, under the transcoder's HTTP status."""
    body = answer.json()
    assert answer.headers["content-type"].startswith("application/json"), answer.headers
    refusal = _refusal(body, answer.headers.get("retry-after", ""))
    wanted = _HTTP_OF_REASON.get(refusal.reason, _HTTP[int(body["code"])])
    assert answer.status_code == wanted, f"{answer.status_code} where {wanted} was wanted: {answer.text}"
    return refusal


def of_grpc(error: grpc.RpcError) -> Refusal:
    """Read a refusal in gRPC: google.rpc.Status in the trailer grpc-status-details-bin, equal to the status itself."""
    assert isinstance(error, grpc.Call)
    trailers = {**dict(error.initial_metadata() or ()), **dict(error.trailing_metadata() or ())}
    assert "grpc-status-details-bin" in trailers, f"{error.code()} {error.details()}: no details in {trailers}"
    status = status_pb2.Status.FromString(trailers["grpc-status-details-bin"])
    assert status.code == error.code().value[0]
    assert status.message == error.details()
    assert error_details_pb2.ErrorInfo.DESCRIPTOR  # the pool knows what the details hold
    return _refusal(json_format.MessageToDict(status), str(trailers.get("retry-after", "")))


def _refusal(status: dict[str, Any], retry_after: str) -> Refusal:
    assert set(status) == {"code", "message", "details"}, status
    (info,) = [each for each in status["details"] if each["@type"] == _INFO]
    others = [each for each in status["details"] if each["@type"] != _INFO]
    assert info["domain"] == "paymesh", status
    reason = contract().reasons[info["reason"]]
    metadata = info.get("metadata", {})
    assert set(metadata) == set(reason.metadata), status
    assert status["code"] == reason.code_number, status
    text = reason.en
    for key, value in metadata.items():
        text = text.replace("{" + key + "}", value)
    assert status["message"] == text, status
    violations: list[str] = []
    for detail in others:
        assert detail["@type"] == _BAD_REQUEST, status
        named = detail.get("fieldViolations") or detail.get("field_violations") or []
        violations += [each.get("field", "") for each in named]
        assert all(each["description"] for each in named), status
    assert bool(violations) == (reason.name == "INVALID_ARGUMENT"), status
    return Refusal(reason.code, reason.name, metadata, tuple(sorted(violations)), text, retry_after)


def refusal(call: Callable[[], object]) -> Refusal:
    """Make a call that must be refused."""
    try:
        answer = call()
    except Refused as refused:
        return refused.refusal
    raise AssertionError(f"not refused: {answer}")


def outcome(call: Callable[[], dict[str, Any]]) -> dict[str, Any] | Refusal:
    """Make a call that may be refused."""
    try:
        return call()
    except Refused as refused:
        return refused.refusal


def reason(call: Callable[[], object]) -> str:
    """Make a call that must be refused; returns why."""
    return refusal(call).reason
