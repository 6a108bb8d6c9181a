"""Errors as google.rpc.Status: the code and text of the contract, exactly one ErrorInfo, violations where there are any."""

from __future__ import annotations

from typing import TYPE_CHECKING

import grpc
from google.protobuf import any_pb2
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

from services.contract.load import contract
from services.kernel.errors import DomainError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from google.protobuf.message import Message

DOMAIN = "paymesh"

_VIOLATIONS_BYTES = 4_500
"""A status travels base64 in a trailer, of which gRPC takes 8 KiB: a longer list would be lost as a whole."""

_CODES: Mapping[int, grpc.StatusCode] = {code.value[0]: code for code in grpc.StatusCode}


class InvalidArgument(DomainError):
    """A request that breaks the contract: every violation as (field path, rule, what is wrong)."""

    def __init__(self, violations: Sequence[tuple[str, str, str]]) -> None:
        """Carry the ``violations``."""
        super().__init__("INVALID_ARGUMENT")
        self.violations = violations


def _any(message: Message) -> any_pb2.Any:
    packed = any_pb2.Any()
    # Deterministic: config hashes what Envoy is told, and a map has an order of its own in each process.
    packed.Pack(message, deterministic=True)
    return packed


def text_of(error: DomainError, language: str = "en") -> str:
    """Render the contract's text of an error; a place without metadata keeps its name."""
    reason = contract().reasons[error.reason]
    text = reason.zh if language.lower().startswith("zh") else reason.en
    for key, value in error.metadata.items():
        text = text.replace("{" + key + "}", value)
    return text


def status_of(error: DomainError, language: str = "en") -> status_pb2.Status:
    """Render an error as google.rpc.Status."""
    reason = contract().reasons[error.reason]
    info = error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=error.metadata)
    details = [_any(info)]
    if isinstance(error, InvalidArgument):
        details.append(_any(_bad_request(error.violations)))
    return status_pb2.Status(code=reason.code_number, message=text_of(error, language), details=details)


def _bad_request(violations: Sequence[tuple[str, str, str]]) -> error_details_pb2.BadRequest:
    bad, size = error_details_pb2.BadRequest(), 0
    for listed, (path, rule, text) in enumerate(violations):
        one = bad.field_violations.add(field=path, description=text, reason=rule)
        size += one.ByteSize() + 3
        if size > _VIOLATIONS_BYTES:
            one.CopyFrom(
                error_details_pb2.BadRequest.FieldViolation(description=f"and {len(violations) - listed} more")
            )
            break
    return bad


def grpc_code(status: status_pb2.Status) -> grpc.StatusCode:
    """Return gRPC's enum value for a status."""
    return _CODES[status.code]


def error_from(call: grpc.RpcError) -> DomainError:
    """Read the DomainError that a peer answered with; what carries none becomes UNAVAILABLE or DEADLINE_EXCEEDED."""
    trailers: Sequence[tuple[str, str | bytes]] = call.trailing_metadata() or () if isinstance(call, grpc.Call) else ()
    for key, value in trailers:
        if key == "grpc-status-details-bin" and isinstance(value, bytes):
            try:
                details = status_pb2.Status.FromString(value).details
            except DecodeError:
                break
            for detail in details:
                info = error_details_pb2.ErrorInfo()
                if detail.Unpack(info) and info.domain == DOMAIN and info.reason in contract().reasons:
                    return DomainError(info.reason, **dict(info.metadata))
    code = call.code() if isinstance(call, grpc.Call) else None
    return DomainError("DEADLINE_EXCEEDED" if code is grpc.StatusCode.DEADLINE_EXCEEDED else "UNAVAILABLE")
