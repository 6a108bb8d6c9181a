"""Reads the policy model from the descriptors."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, cast

from google.api import annotations_pb2
from google.rpc import code_pb2

from paymesh.error.v1 import error_reason_pb2
from paymesh.mesh.v1 import policy_pb2
from services.contract import model
from services.contract.comments import comment_of
from services.contract.descriptors import FILES

if TYPE_CHECKING:
    from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
    from google.protobuf.duration_pb2 import Duration


def _word(enum: str, value: int) -> str:
    """AUTH_USER of enum Auth -> ``user``."""
    descriptor = policy_pb2.DESCRIPTOR.enum_types_by_name[enum]
    prefix = descriptor.values_by_number[0].name.removesuffix("UNSPECIFIED")
    return descriptor.values_by_number[value].name.removeprefix(prefix).lower()


def _ms(duration: Duration) -> int:
    return duration.seconds * 1000 + duration.nanos // 1_000_000


def _http(method: MethodDescriptor) -> model.Http | None:
    options, extension = method.GetOptions(), cast("Any", annotations_pb2.http)  # its stubs call it a plain field
    if not options.HasExtension(extension):
        return None
    rule = options.Extensions[extension]
    verb = str(rule.WhichOneof("pattern"))
    return model.Http(verb.upper(), str(getattr(rule, verb)), rule.body, rule.response_body)


def _method(room: str, callers: tuple[str, ...], method: MethodDescriptor) -> model.Method:
    policy = method.GetOptions().Extensions[policy_pb2.method]
    owner = model.Owner(policy.owner.field, policy.owner.resource, policy.owner.lifted_by)
    limit = policy.rate_limit
    auth = model.Auth(_word("Auth", policy.auth))
    allowed = tuple(policy.callers) or callers
    return model.Method(
        service=room,
        name=method.name,
        full_name=method.full_name,
        path=f"/{method.containing_service.full_name}/{method.name}",
        request=method.input_type.full_name,
        response=method.output_type.full_name,
        comment=comment_of(method.full_name),
        http=_http(method),
        auth=auth,
        scopes=tuple(policy.scopes),
        callers=tuple(c for c in allowed if c != "edge" or auth is not model.Auth.INTERNAL),
        owner=owner if policy.HasField("owner") else None,
        timeout_ms=_ms(policy.timeout),
        retry_attempts=policy.retry.attempts,
        retry_on=tuple(model.RetryOn(_word("RetryOn", on)) for on in policy.retry.on),
        idempotency=model.Idempotency(_word("IdempotencyMode", policy.idempotency.mode)),
        idempotency_reason=policy.idempotency.reason,
        rate_limit=model.RateLimit(
            limit.requests, _ms(limit.per), _word("RateLimitBy", limit.by), getattr(limit, "global")
        )
        if policy.HasField("rate_limit")
        else None,
        audit=policy.audit,
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
        load_balancing=_word("LoadBalancing", policy.load_balancing),
        circuit_breaker=model.CircuitBreaker(
            breaker.connections_max, breaker.pending_max, breaker.requests_max, breaker.retry_budget_percent
        ),
        outlier=model.Outlier(
            outlier.consecutive_failures,
            _ms(outlier.interval),
            _ms(outlier.ejection_time),
            outlier.ejection_percent_max,
        ),
        methods=tuple(_method(policy.name, callers, m) for m in service.methods),
    )


def _events() -> dict[str, model.Event]:
    out = {}
    for file in FILES:
        for message in file.message_types_by_name.values():
            options = message.GetOptions()
            if options.HasExtension(policy_pb2.event):
                e = options.Extensions[policy_pb2.event]
                room = file.package.split(".")[1]
                out[message.full_name] = model.Event(
                    message.full_name, e.topic, e.key, e.version, _ms(e.retention), room, tuple(e.consumers)
                )
    return out


def _reasons() -> dict[str, model.Reason]:
    out = {}
    for value in error_reason_pb2.ErrorReason.DESCRIPTOR.values:
        if value.number:
            r = value.GetOptions().Extensions[policy_pb2.reason]
            name = value.name.removeprefix("ERROR_REASON_")
            out[name] = model.Reason(
                name, value.number, r.code, code_pb2.Code.Value(r.code), r.en, r.zh, tuple(r.metadata), r.business
            )
    return out


@cache
def contract() -> model.Contract:
    """Read the whole contract; later calls return the same object."""
    services = {s.name: s for file in FILES for s in map(_service, file.services_by_name.values())}
    methods = {m.path: m for s in services.values() for m in s.methods}
    scopes = {s for m in methods.values() for s in m.scopes}
    scopes |= {m.owner.lifted_by for m in methods.values() if m.owner and m.owner.lifted_by}
    return model.Contract(services, methods, _events(), _reasons(), tuple(sorted(scopes)))
