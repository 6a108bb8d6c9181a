"""The one interceptor: every call runs STEPS in order, then its handler, then what is measured and logged.

The order of STEPS is the documentation: request id, deadline, peer, authorization, validation, idempotency key. Errors
of a step or of the handler are mapped to google.rpc.Status in one place.
"""

from __future__ import annotations

import asyncio
import random
import re
import time
from collections.abc import Awaitable, Callable, Container
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import grpc
import protovalidate
from grpc import aio

from services.contract.load import contract
from services.contract.model import Auth, Idempotency
from services.kernel.caller import NOBODY, Caller
from services.kernel.errors import DomainError
from services.platform import accesslog, failpoint, identity, telemetry
from services.platform.revocation import of_key
from services.platform.status import InvalidArgument, grpc_code, status_of

if TYPE_CHECKING:
    from services.contract.model import Method

    Handler = grpc.RpcMethodHandler[Any, Any]

_CURRENT: ContextVar[Call] = ContextVar("paymesh_call")
_PEER = re.compile(rf"URI=spiffe://{identity.TRUST_DOMAIN}/ns/[^/;,]+/sa/([a-z0-9-]+)")
_KEY = re.compile(r"[A-Za-z0-9._:-]{8,64}")
_VALIDATOR = protovalidate.Validator()


@dataclass(slots=True)
class Call:
    """A call as the steps fill it in. ``method`` is None for methods outside the contract (health, reflection)."""

    method: Method | None
    context: Any
    request: Any
    metadata: dict[str, str]
    revoked: Container[str]
    began: float = field(default_factory=time.monotonic)
    request_id: str = ""
    deadline: float = 0.0
    peer: str = ""
    caller: Caller = NOBODY
    idempotency_key: str = ""


def current() -> Call:
    """Return the call that is being handled; for servicers."""
    return _CURRENT.get()


def request_id(call: Call) -> None:
    """Keep the edge's request id, or make one."""
    call.request_id = call.metadata.get("x-request-id") or f"{random.getrandbits(128):032x}"


def deadline(call: Call) -> None:
    """Cut the caller's deadline to the contract's."""
    assert call.method is not None
    remaining = call.context.time_remaining()
    longest = call.method.timeout_ms / 1000
    call.deadline = call.began + (longest if remaining is None else min(remaining, longest))


def peer(call: Call) -> None:
    """Read who called from the identity that our own Envoy verified (x-forwarded-client-cert)."""
    call.peer = peer_of(call.metadata.get(identity.PEER, ""))


@lru_cache(maxsize=1024)
def peer_of(certificate: str) -> str:
    """Read the service of a peer's SPIFFE identity. An Envoy says the same of each call of a connection."""
    found = _PEER.search(certificate)
    return found.group(1) if found else "unknown"


@lru_cache(maxsize=1024)
def _scopes_of(text: str) -> frozenset[str]:
    return frozenset(text.split())


def authorize(call: Call) -> None:
    """Apply the contract: callers, session, scopes, owner. Identity headers were set by the edge and kept by Envoys."""
    method, metadata = call.method, call.metadata
    assert method is not None
    if call.peer not in method.callers:
        raise DomainError("CALLER_NOT_ALLOWED", caller=call.peer, method=method.full_name)
    subject = metadata.get(identity.SUBJECT, "")
    scopes = _scopes_of(metadata.get(identity.SCOPE, ""))
    session_id = metadata.get(identity.SESSION, "")
    call.caller = Caller(
        subject=int(subject) if subject.isdecimal() else 0,
        scopes=scopes,
        session_id=session_id,
        deadline=call.deadline,
        request_id=call.request_id,
        traceparent=metadata.get("traceparent", ""),
        client_ip=metadata.get("x-envoy-external-address", "") or metadata.get("x-forwarded-for", "").split(",")[0],
    )
    if method.auth in {Auth.PUBLIC, Auth.INTERNAL}:
        return
    if not call.caller.subject:
        raise DomainError("UNAUTHENTICATED")
    if session_id in call.revoked:
        raise DomainError("SESSION_REVOKED")
    if key_id := metadata.get(identity.KEY, ""):
        _take_key(call, key_id)
    for scope in method.scopes:
        if scope not in scopes:
            raise DomainError("SCOPE_MISSING", scope=scope)
    owner = method.owner
    owned = owner is None or not owner.field or owner.lifted_by in scopes
    if owner and not owned and getattr(call.request, owner.field) != call.caller.subject:
        raise DomainError("NOT_OWNER", field=owner.field)


def _take_key(call: Call, key_id: str) -> None:
    """Take an API key where the contract takes one, unless it is revoked. The edge has asked the same before."""
    assert call.method is not None
    if not call.method.api_key:
        raise DomainError("UNAUTHENTICATED")
    if of_key(key_id) in call.revoked:
        raise DomainError("API_KEY_REVOKED")


def validate(call: Call) -> None:
    """Check the request against every rule of the contract; all violations are reported at once."""
    violations = _VALIDATOR.collect_violations(call.request)
    if violations:
        found = [(_path(v.proto), str(v.proto.rule_id), str(v.proto.message)) for v in violations]
        raise InvalidArgument(found)


def idempotency_key(call: Call) -> None:
    """Take the key from the header or from the field request_id; refuse what the contract refuses."""
    method = call.method
    assert method is not None
    if method.idempotency is Idempotency.NONE:
        return
    header = call.metadata.get("idempotency-key", "")
    if header and not _KEY.fullmatch(header):
        text = "must be 8 to 64 characters of A-Z a-z 0-9 . _ : -"
        raise InvalidArgument([("Idempotency-Key", "string.pattern", text)])
    call.idempotency_key = header or call.request.request_id
    if not call.idempotency_key and method.idempotency is Idempotency.REQUIRED:
        raise DomainError("IDEMPOTENCY_KEY_MISSING")


STEPS: tuple[Callable[[Call], None], ...] = (request_id, deadline, peer, authorize, validate, idempotency_key)


def _path(violation: Any) -> str:  # noqa: ANN401 - a message of protovalidate's own runtime
    """Render where a violation is: ``items[0].sku``; "" for a rule about the whole message."""
    if violation.field is None:
        return ""
    path = ""
    for element in violation.field.elements:
        path += f".{element.field_name}" if path else element.field_name
        if element.subscript is not None:
            path += f"[{element.subscript.value}]"
    return path


class Interceptor(aio.ServerInterceptor):
    """Wraps each unary method of the contract once and keeps the wrapped handler."""

    def __init__(self, revoked: Container[str], trace_ratio: float) -> None:
        """Refuse sessions in ``revoked``; trace ``trace_ratio`` of the calls whose caller did not decide."""
        self._revoked, self._ratio = revoked, trace_ratio
        self._wrapped: dict[str, Handler] = {}

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        """Return the wrapped handler of a method."""
        path = handler_call_details.method
        known = self._wrapped.get(path)
        if known is None:
            handler, method = await continuation(handler_call_details), contract().methods.get(path)
            if handler is None or method is None:
                return handler
            if handler.unary_unary is None:  # the steps know one request and one answer: nothing passes beside them
                return grpc.unary_unary_rpc_method_handler(_streamed)
            known = self._wrapped[path] = grpc.unary_unary_rpc_method_handler(
                self._wrap(method, handler.unary_unary), handler.request_deserializer, handler.response_serializer
            )
        return known

    def _wrap(
        self, method: Method, handler: Callable[[Any, Any], Awaitable[Any]]
    ) -> Callable[[Any, Any], Awaitable[Any]]:
        revoked, ratio = self._revoked, self._ratio

        async def handle(request: Any, context: Any) -> Any:  # noqa: ANN401 - any message of the contract
            metadata = dict(context.invocation_metadata())
            call = Call(method, context, request, metadata, revoked)
            _CURRENT.set(call)
            parent, span = metadata.get("traceparent", ""), None
            if telemetry.sampled(parent, ratio):
                span = telemetry.span(method.full_name, parent)
                metadata["traceparent"] = telemetry.traceparent_of(span)  # what is called from here hangs below it
            error: BaseException | None = None
            try:
                for step in STEPS:
                    step(call)
                failpoint.reach("P1", method.name)
                answer = await handler(request, context)
                failpoint.reach("P11", method.name)
                return answer  # noqa: TRY300 - what is reached after the handler may fail like it
            except asyncio.CancelledError as gone:  # the caller hung up, or its time is over
                error = gone
                raise
            except Exception as raised:  # noqa: BLE001 - mapped to a status right below
                error = raised
            finally:
                accesslog.finish(call, error, span)
            await _refuse(call, error)
            return None

        return handle


async def _streamed(request: object, context: Any) -> None:  # noqa: ANN401 - a context of grpc.aio
    """Refuse a method of the contract that streams."""
    del request
    await context.abort(grpc.StatusCode.UNIMPLEMENTED, "methods of the contract have one request and one answer")


async def _refuse(call: Call, error: BaseException | None) -> None:
    """End a call with the status of its error; what is not a DomainError is INTERNAL, and its text stays here."""
    if isinstance(error, aio.AbortError):
        raise error
    known = error if isinstance(error, DomainError) and error.reason in contract().reasons else None
    said = known or DomainError("INTERNAL", request_id=call.request_id)
    status = status_of(said, call.metadata.get("accept-language", ""))
    trailers: list[tuple[str, str | bytes]] = [("grpc-status-details-bin", status.SerializeToString())]
    await call.context.abort(grpc_code(status), status.message, trailing_metadata=tuple(trailers))
