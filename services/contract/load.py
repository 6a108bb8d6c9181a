"""Reads the policy model from the descriptors.

What a contract does not state is read as the safe thing: nobody may call, a time-out is finite, nothing is repeated that
may have been handled, the edge has a limit. The linter (services.contract.lint) asks for the statement all the same.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from google.rpc import code_pb2

from paymesh.mesh.v1 import policy_pb2
from services.contract import model
from services.contract.comments import comment_of
from services.contract.descriptors import FILES
from services.contract.options import http_of, ms, policy_of, repeatable

if TYPE_CHECKING:
    from collections.abc import Iterable

    from google.protobuf.descriptor import EnumValueDescriptor, FileDescriptor, MethodDescriptor, ServiceDescriptor

TIMEOUT_MS_MAX = 10_000
"""Nobody waits longer for one answer; what takes longer is begun by one call and asked for by others."""
_TIMEOUT_MS_UNSTATED = 1_000
_LIMIT_UNSTATED = (60, 60_000)


def _word(enum: str, value: int) -> str:
    """AUTH_USER of enum Auth -> ``user``."""
    descriptor = policy_pb2.DESCRIPTOR.enum_types_by_name[enum]
    prefix = descriptor.values_by_number[0].name.removesuffix("UNSPECIFIED")
    return descriptor.values_by_number[value].name.removeprefix(prefix).lower()


def _auth(policy: policy_pb2.MethodPolicy) -> model.Auth:
    return model.Auth(_word("Auth", policy.auth)) if policy.auth else model.Auth.INTERNAL


def _callers(policy: policy_pb2.MethodPolicy, of_service: tuple[str, ...]) -> tuple[str, ...]:
    """Who may call; nobody where it is not said whom the method is for, and the edge no internal one."""
    if not policy.auth:
        return ()
    allowed = tuple(policy.callers) or of_service
    return tuple(c for c in allowed if c != "edge" or policy.auth != policy_pb2.AUTH_INTERNAL)


def _retry_on(method: MethodDescriptor) -> tuple[model.RetryOn, ...]:
    """The failures after which a call is repeated; without those of calls that may have been handled, if that may harm."""
    stated = (model.RetryOn(_word("RetryOn", on)) for on in policy_of(method).retry.on if on)
    return tuple(on for on in stated if on is not model.RetryOn.UNAVAILABLE or repeatable(method))


def _limit(policy: policy_pb2.MethodPolicy, callers: tuple[str, ...]) -> model.RateLimit | None:
    limit = policy.rate_limit
    if not policy.HasField("rate_limit") and "edge" not in callers:
        return None
    by = "user" if policy.auth in {policy_pb2.AUTH_USER, policy_pb2.AUTH_SCOPES} else "ip"
    requests, per_ms = _LIMIT_UNSTATED
    return model.RateLimit(
        limit.requests or requests,
        ms(limit.per) or per_ms,
        _word("RateLimitBy", limit.by) if limit.by else by,
        getattr(limit, "global"),
    )


def _idempotency(policy: policy_pb2.MethodPolicy) -> model.Idempotency:
    mode = policy.idempotency.mode
    return model.Idempotency(_word("IdempotencyMode", mode)) if mode else model.Idempotency.NONE


def _method(room: str, of_service: tuple[str, ...], method: MethodDescriptor) -> model.Method:
    policy = policy_of(method)
    owner = model.Owner(policy.owner.field, policy.owner.resource, policy.owner.lifted_by)
    callers = _callers(policy, of_service)
    return model.Method(
        service=room,
        name=method.name,
        full_name=method.full_name,
        path=f"/{method.containing_service.full_name}/{method.name}",
        request=method.input_type.full_name,
        response=method.output_type.full_name,
        comment=comment_of(method.full_name),
        http=http_of(method),
        auth=_auth(policy),
        scopes=tuple(policy.scopes),
        callers=callers,
        owner=owner if policy.HasField("owner") else None,
        timeout_ms=min(ms(policy.timeout) or _TIMEOUT_MS_UNSTATED, TIMEOUT_MS_MAX),
        retry_attempts=policy.retry.attempts,
        retry_on=_retry_on(method),
        idempotency=_idempotency(policy),
        idempotency_reason=policy.idempotency.reason,
        rate_limit=_limit(policy, callers),
        audit=policy.audit,
        # Of what has no user a key says nothing: read as not stated.
        api_key=policy.api_key and policy.auth in {policy_pb2.AUTH_USER, policy_pb2.AUTH_SCOPES},
    )


def _service(service: ServiceDescriptor) -> model.Service:
    policy = service.GetOptions().Extensions[policy_pb2.service]
    breaker, outlier = policy.circuit_breaker, policy.outlier_detection
    callers = tuple(policy.callers)
    return model.Service(
        name=policy.name,
        full_name=service.full_name,
        comment=comment_of(service.full_name),
        callers=callers,
        on_behalf=tuple(policy.on_behalf),
        port=policy.port,
        load_balancing=_word("LoadBalancing", policy.load_balancing or policy_pb2.LOAD_BALANCING_LEAST_REQUEST),
        circuit_breaker=model.CircuitBreaker(
            breaker.connections_max, breaker.pending_max, breaker.requests_max, breaker.retry_budget_percent
        ),
        outlier=model.Outlier(
            outlier.consecutive_failures,
            ms(outlier.interval),
            ms(outlier.ejection_time),
            outlier.ejection_percent_max,
        ),
        methods=tuple(_method(policy.name, callers, m) for m in service.methods),
    )


def _events(files: Iterable[FileDescriptor]) -> dict[str, model.Event]:
    out = {}
    for file in files:
        for message in file.message_types_by_name.values():
            options = message.GetOptions()
            if options.HasExtension(policy_pb2.event):
                e = options.Extensions[policy_pb2.event]
                room = file.package.split(".")[1]
                out[message.full_name] = model.Event(
                    message.full_name, e.topic, e.key, e.version, ms(e.retention), room, tuple(e.consumers)
                )
    return out


def _reason(value: EnumValueDescriptor) -> model.Reason:
    said = value.GetOptions().Extensions[policy_pb2.reason]
    name, code = value.name.removeprefix("ERROR_REASON_"), said.code or "INTERNAL"
    return model.Reason(
        name, value.number, code, code_pb2.Code.Value(code), said.en, said.zh, tuple(said.metadata), said.business
    )


def read(files: Iterable[FileDescriptor]) -> model.Contract:
    """Read the contract that these files make up."""
    files = tuple(files)
    services = {s.name: s for file in files for s in map(_service, file.services_by_name.values())}
    methods = {m.path: m for s in services.values() for m in s.methods}
    scopes = {s for m in methods.values() for s in m.scopes}
    scopes |= {m.owner.lifted_by for m in methods.values() if m.owner and m.owner.lifted_by}
    enums = [file.enum_types_by_name.get("ErrorReason") for file in files]
    reasons = {r.name: r for enum in enums if enum for r in map(_reason, enum.values[1:])}
    return model.Contract(services, methods, _events(files), reasons, tuple(sorted(scopes)))


@cache
def contract() -> model.Contract:
    """Read the whole contract; later calls return the same object."""
    return read(FILES)
