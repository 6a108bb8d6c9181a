"""Rules of a method's policy: for how long, what a repeat does, how often, and what is written of it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from google.protobuf.descriptor_pb2 import MethodOptions

from paymesh.mesh.v1 import policy_pb2
from services.contract.lint.view import at_edge, name_of
from services.contract.load import TIMEOUT_MS_MAX
from services.contract.options import http_of, ms, reads, repeatable

if TYPE_CHECKING:
    from google.protobuf.descriptor import MethodDescriptor

    from services.contract.lint.view import Said, View

_UNHANDLED = {policy_pb2.RETRY_ON_CONNECT_FAILURE, policy_pb2.RETRY_ON_REFUSED_STREAM}
_KEYED = {policy_pb2.IDEMPOTENCY_MODE_OPTIONAL, policy_pb2.IDEMPOTENCY_MODE_REQUIRED}
_WRITE_RETRY = "`retry: {attempts: 1 on: RETRY_ON_CONNECT_FAILURE on: RETRY_ON_REFUSED_STREAM}`"
_REASON = re.compile(r"\b[A-Z]+(?:_[A-Z]+)+\b")


def unary(view: View) -> Said:
    """Deadline, validation and idempotency are those of one request, and the interceptor refuses all else."""
    for method, _ in view.methods():
        if method.client_streaming or method.server_streaming:
            yield method, "streams; write it with one request and one answer, a long list with pages"


def timeout(view: View) -> Said:
    """Every call ends."""
    for method, policy in view.methods():
        if not 0 < ms(policy.timeout) <= TIMEOUT_MS_MAX:
            yield (
                method,
                (
                    f"ends after {ms(policy.timeout)} ms; write `timeout: {{seconds: 2}}`, more than 0 and at most "
                    f"{TIMEOUT_MS_MAX // 1000} s"
                ),
            )


def retry(view: View) -> Said:
    """What was not handled may be made again, and what may have been only where a repeat is safe."""
    for method, policy in view.methods():
        on = set(policy.retry.on)
        if not policy.HasField("retry"):
            yield method, f"does not say what is repeated; write {_WRITE_RETRY}, or `retry: {{}}` for nothing"
        elif bool(policy.retry.attempts) != bool(on):
            yield (
                method,
                f"repeats {policy.retry.attempts} times on {len(on)} failures; write both, as in {_WRITE_RETRY}",
            )
        elif on and not on >= _UNHANDLED:
            lacking = ", ".join(f"`on: {policy_pb2.RetryOn.Name(each)}`" for each in sorted(_UNHANDLED - on))
            yield method, f"what was never handled can always be repeated; write {lacking} too"
        else:
            yield from _after_unavailable(method, on)


def _after_unavailable(method: MethodDescriptor, on: set[policy_pb2.RetryOn.ValueType]) -> Said:
    stated = policy_pb2.RETRY_ON_UNAVAILABLE in on
    if stated and not repeatable(method):
        yield (
            method,
            (
                "is repeated after it may have been done; take `on: RETRY_ON_UNAVAILABLE` out, or write why it is safe: "
                "`mode: IDEMPOTENCY_MODE_REQUIRED`, or `option idempotency_level = IDEMPOTENT`"
            ),
        )
    if repeatable(method) and not stated:
        yield method, "can be repeated safely and is not; write `on: RETRY_ON_UNAVAILABLE`"


def idempotency(view: View) -> Said:
    """Without a key there is a reason why a repeat harms nobody; with one the request can carry it too."""
    for method, policy in view.methods():
        said, has_key = policy.idempotency, "request_id" in method.input_type.fields_by_name
        keyed = said.mode in _KEYED
        if not said.mode:
            yield method, "does not say what a repeat does; write `idempotency: {mode: IDEMPOTENCY_MODE_REQUIRED}`"
        elif not keyed and not said.reason:
            yield method, 'does not say why a repeat harms nobody; write `reason: "It reads."`, or take a key'
        elif keyed and said.reason:
            yield method, "has a key, which is the reason; write no other `reason`"
        if keyed and not has_key:
            yield method.input_type, "has no place for the key; write `string request_id` with its pattern"
        if not keyed and has_key:
            yield method.input_type, "has a key that nobody looks at; write `mode: IDEMPOTENCY_MODE_OPTIONAL`"
        if keyed and "repeat" not in view.comment(method).lower():
            yield method, "takes a key; write in its comment what a repeat gets"


def idempotency_level(view: View) -> Said:
    """Protobuf's own option says that a repeat is safe where nothing else says it."""
    for method, policy in view.methods():
        http, level = http_of(method), method.GetOptions().idempotency_level
        if level == MethodOptions.IDEMPOTENCY_UNKNOWN:
            continue
        if policy.idempotency.mode != policy_pb2.IDEMPOTENCY_MODE_NONE or (http and http.verb == "GET"):
            yield method, "is repeatable as it is; write no `idempotency_level` beside the key or the GET that says so"


def rate_limit(view: View) -> Said:
    """What clients reach has a limit, by something that is known of them."""
    for method, policy in view.methods():
        limit, public = policy.rate_limit, policy.auth == policy_pb2.AUTH_PUBLIC
        by = "RATE_LIMIT_BY_IP" if public else "RATE_LIMIT_BY_USER"
        wanted = f"`rate_limit: {{requests: 600 per: {{seconds: 60}} by: {by}}}`"
        if policy.HasField("rate_limit") and not (limit.requests and ms(limit.per) > 0 and limit.by):
            yield method, f"has a limit that is not whole; write all of it: {wanted}"
        elif policy.HasField("rate_limit") and policy.auth == policy_pb2.AUTH_INTERNAL:
            yield method, "is not at the edge, where limits are; write no `rate_limit`"
        elif at_edge(method) and not policy.HasField("rate_limit"):
            yield method, f"is open to clients without a limit; write {wanted}"
        elif public and limit.by == policy_pb2.RATE_LIMIT_BY_USER:
            yield method, "is public: there is no user to count by; write `by: RATE_LIMIT_BY_IP`"


def audit(view: View) -> Said:
    """Whatever is changed from outside is in the audit trail."""
    for method, policy in view.methods():
        if at_edge(method) and not reads(method) and not policy.audit:
            yield (
                method,
                (
                    "is a change that a client makes; write `audit: true` (or, where it changes nothing, "
                    "`option idempotency_level = NO_SIDE_EFFECTS`)"
                ),
            )


def comments(view: View) -> Said:
    """A method says what it does and with which reasons it fails; a word in capitals is such a reason."""
    known = {value.name.removeprefix("ERROR_REASON_") for value, _ in view.reasons()}
    for method, _ in view.methods():
        comment = view.comment(method)
        if len(comment) <= 10:
            yield method, "has no comment; write what success means, which reasons it can fail with, what a repeat does"
        for word in sorted(set(_REASON.findall(comment)) - known):
            yield method, f"names {word}, which is no reason; write one of ErrorReason, or add it there"


def business(view: View) -> Said:
    """A refusal that a method with a key is known to fail with is stored under the key and replayed."""
    reasons = {value.name.removeprefix("ERROR_REASON_"): (value, said) for value, said in view.reasons()}
    keyed = [method for method, policy in view.methods() if policy.idempotency.mode in _KEYED]
    replayed = {word for method in keyed for word in _REASON.findall(view.comment(method))} & reasons.keys()
    for name, (value, said) in reasons.items():
        if said.business and name not in replayed:
            yield value, "no method with a key names it; write no `business: true`, or name it in the method's comment"
        if name in replayed and not said.business and value.number > _OF_THE_PLATFORM:
            (first, *_) = (name_of(m) for m in keyed if name in _REASON.findall(view.comment(m)))
            yield value, f"{first} takes a key and fails with it, so a repeat must get it again; write `business: true`"


_OF_THE_PLATFORM = 99
"""Reasons up to here are said before the key is looked at, or about the key itself."""

RULES = (
    unary,
    timeout,
    retry,
    idempotency,
    idempotency_level,
    rate_limit,
    audit,
    comments,
    business,
)
