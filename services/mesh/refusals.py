"""What a refusal of Envoy's own looks like: the same google.rpc.Status with one ErrorInfo that the services answer with.

Envoy takes the first row of a table that fits a refusal. For REST a row is the Status as JSON; for native gRPC it is
grpc-status, grpc-message and the Status as grpc-status-details-bin, which is written out in advance, since Envoy cannot
encode protobuf. What differs from route to route (the scope that is missing) stands in the route's metadata.
"""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from envoy_data_plane.envoy.config.accesslog import v3 as accesslog
from envoy_data_plane.envoy.config.core import v3 as core
from envoy_data_plane.envoy.config.route import v3 as route
from envoy_data_plane.envoy.extensions.access_loggers.filters.cel import v3 as cel
from envoy_data_plane.envoy.extensions.filters.network.http_connection_manager import v3 as hcm
from envoy_data_plane.envoy.type.matcher import v3 as matcher
from envoy_data_plane.google.protobuf import Struct

from services.kernel.errors import DomainError
from services.mesh import keys, waf
from services.mesh.resource import header, packed
from services.platform import status
from services.platform.identity import SUBJECT

if TYPE_CHECKING:
    from collections.abc import Iterable

    from google.rpc import status_pb2

    from services.contract.model import Contract

NOT_SENT = "x-paymesh-not-sent"
"""On an answer of a sidecar whose service took no connection: the call was not handled, so any caller may repeat it."""

_ANY = "[^/?]+"
_VARIABLE = re.compile(r"\{[a-z_]+\}")
_ROUTE = "paymesh"
"""The namespace of our route metadata."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """One row: when it fits, and what is answered.

    `status` and `flags` (Envoy's response flags) say when; both must fit, and `with_header` must be on the request,
    `without_header` must not. `paths` is what the path must be (RE2); with `verbs_but`, what the verb must not be, both are
    those before the transcoder. `details` stands in what Envoy says of its refusal: its filters tell more there than by flags.
    `http` is the status shown to REST (None: the one refused with). `forbidden` takes text and details from the route.
    `add` are further headers of the answer.
    """

    error: DomainError
    status: int | tuple[int, int] = (400, 599)
    flags: tuple[str, ...] = ()
    with_header: str = ""
    without_header: str = ""
    paths: str = ""
    verbs_but: str = ""
    details: str = ""
    http: int | None = None
    forbidden: bool = False
    add: tuple[tuple[str, str], ...] = ()


_SHARED = (
    # The callee's circuit breaker; our own memory.
    Refusal(DomainError("OVERLOADED"), flags=("UO",), http=429, add=(("retry-after", "1"),)),
    Refusal(DomainError("OVERLOADED"), status=503, details="overload", http=429, add=(("retry-after", "1"),)),
    Refusal(DomainError("DEADLINE_EXCEEDED"), status=504),
    Refusal(DomainError("DEADLINE_EXCEEDED"), status=408, http=504),
    Refusal(DomainError("REQUEST_TOO_LARGE"), status=413),
    Refusal(DomainError("RATE_LIMITED"), status=429),
    Refusal(DomainError("UNAVAILABLE"), status=503),
    Refusal(DomainError("UNAVAILABLE"), status=502, http=503),
)
_ATTACK = Refusal(DomainError("REQUEST_BLOCKED"), status=403, details=f"[{waf.NAME}_")
_INTERNAL = Refusal(DomainError("INTERNAL", request_id="x-request-id"), status=(500, 599))

_EDGE_REST = (
    # A token for somebody else is refused with 403 by the JWT filter, which leaves the header there; RBAC comes after
    # a good token, which was taken away.
    Refusal(DomainError("UNAUTHENTICATED"), status=403, with_header="authorization", http=401),
    Refusal(DomainError("UNAUTHENTICATED"), status=403, with_header=keys.HEADER, http=401),
    Refusal(DomainError("API_KEY_REVOKED"), status=403, details=keys.REFUSED, http=401),
    # Istio asks for no token but lets RBAC miss its subject.
    Refusal(DomainError("UNAUTHENTICATED"), status=403, without_header=SUBJECT, http=401),
    Refusal(DomainError("UNAUTHENTICATED"), status=401),
    Refusal(DomainError("SCOPE_MISSING", scope=f"%METADATA(ROUTE:{_ROUTE}:scope)%"), status=403, forbidden=True),
    Refusal(DomainError("ROUTE_NOT_FOUND"), status=404),
    *_SHARED,
    Refusal(DomainError("INTERNAL", request_id="%REQ(X-REQUEST-ID)%"), status=(500, 599)),
    Refusal(DomainError("BODY_MALFORMED"), status=(400, 499)),
)

EDGE_GRPC = (
    _ATTACK,
    Refusal(DomainError("UNAUTHENTICATED"), status=403, with_header="authorization"),
    Refusal(DomainError("UNAUTHENTICATED"), status=403, with_header=keys.HEADER),
    Refusal(DomainError("API_KEY_REVOKED"), status=403, details=keys.REFUSED),
    Refusal(DomainError("UNAUTHENTICATED"), status=403, without_header=SUBJECT),
    Refusal(DomainError("UNAUTHENTICATED"), status=401),
    Refusal(DomainError("SCOPE_MISSING", scope=""), status=403, forbidden=True),
    Refusal(DomainError("METHOD_NOT_FOUND"), status=404),
    *_SHARED,
    _INTERNAL,
    Refusal(DomainError("BODY_MALFORMED"), status=(400, 499)),
)
"""Refusals of the edge's listener for native gRPC."""

SIDECAR = (
    Refusal(DomainError("UNAVAILABLE"), status=503, flags=("UF",), add=((NOT_SENT, "1"),)),
    Refusal(DomainError("CALLER_NOT_ALLOWED", caller="", method=""), status=403, forbidden=True),
    Refusal(DomainError("METHOD_NOT_FOUND"), status=404),
    *_SHARED,
    _INTERNAL,
    Refusal(DomainError("BODY_MALFORMED"), status=(400, 499)),
)
"""Refusals of a sidecar, towards peers and towards its own service."""


def edge_rest(contract: Contract) -> tuple[Refusal, ...]:
    """Refusals of the edge's REST listener. A path that is there with other verbs is no unknown one.

    Nor is it the malformed id of a path with a variable: `GET /api/users/login` is no user called login.
    """
    routes: dict[str, set[str]] = {}
    for http in (method.http for method in contract.methods.values() if method.http):
        routes.setdefault(_VARIABLE.sub(_ANY, http.path.replace(".", "[.]")), set()).add(http.verb)
    by_verbs: dict[tuple[bool, str], list[str]] = {}
    for path, taken in routes.items():
        by_verbs.setdefault((_ANY in path, ", ".join(sorted(taken))), []).append(path)
    wrong_verb: list[Refusal] = []
    for (variable, verbs), found in sorted(by_verbs.items()):
        paths = f"(?:{'|'.join(sorted(found))})(?:[?].*)?"
        row = Refusal(DomainError("VERB_NOT_ALLOWED"), status=404, paths=paths, http=405, add=(("allow", verbs),))
        taken_for_id = [] if variable else [replace(row, status=400, verbs_but=verbs.replace(", ", "|"))]
        wrong_verb += [row, *taken_for_id]
    return (_ATTACK, *wrong_verb, *_EDGE_REST)


def forbidden(error: DomainError) -> core.Metadata:
    """Make the metadata of a route on which RBAC refuses with this error."""
    said = status.status_of(error)
    texts = {**error.metadata, "message": said.message, "details": _details(said)}
    return core.Metadata(filter_metadata={_ROUTE: Struct.from_dict(texts)})


def as_json(refusals: Iterable[Refusal]) -> hcm.LocalReplyConfig:
    """Answer in REST's shape."""
    return hcm.LocalReplyConfig(mappers=[_json(refusal) for refusal in refusals])


def as_grpc(refusals: Iterable[Refusal]) -> hcm.LocalReplyConfig:
    """Answer in gRPC's shape."""
    return hcm.LocalReplyConfig(mappers=[_grpc(refusal) for refusal in refusals])


def _json(refusal: Refusal) -> hcm.ResponseMapper:
    said = status.status_of(refusal.error)
    info = {
        "@type": "type.googleapis.com/google.rpc.ErrorInfo",
        "reason": refusal.error.reason,
        "domain": status.DOMAIN,
        "metadata": refusal.error.metadata,
    }
    body = {"code": said.code, "message": said.message, "details": [info]}
    return hcm.ResponseMapper(
        filter=_when(refusal),
        status_code=refusal.http,
        body_format_override=core.SubstitutionFormatString(json_format=Struct.from_dict(body)),
        headers_to_add=[header(name, value) for name, value in refusal.add],
    )


def _grpc(refusal: Refusal) -> hcm.ResponseMapper:
    said = status.status_of(refusal.error)
    text, details = said.message, _details(said)
    if refusal.forbidden:
        text, details = (f"%METADATA(ROUTE:{_ROUTE}:{key})%" for key in ("message", "details"))
    return hcm.ResponseMapper(
        filter=_when(refusal),
        body_format_override=core.SubstitutionFormatString(text_format_source=core.DataSource(inline_string=text)),
        headers_to_add=[
            header("grpc-status", str(said.code)),
            header("grpc-status-details-bin", details),
            *(header(name, value) for name, value in refusal.add),
        ],
    )


def _details(said: status_pb2.Status) -> str:
    return base64.b64encode(said.SerializeToString(deterministic=True)).decode().rstrip("=")


def _when(refusal: Refusal) -> accesslog.AccessLogFilter:
    lowest, highest = refusal.status if isinstance(refusal.status, tuple) else (refusal.status, refusal.status)
    operator = accesslog.ComparisonFilterOp
    if lowest == highest:
        filters = [_status(operator.EQ, lowest)]
    else:
        filters = [_status(operator.GE, lowest), _status(operator.LE, highest)]
    if refusal.flags:
        flags = accesslog.ResponseFlagFilter(flags=list(refusal.flags))
        filters.append(accesslog.AccessLogFilter(response_flag_filter=flags))
    for name, absent in ((refusal.with_header, False), (refusal.without_header, True)):
        if name:
            header_is = route.HeaderMatcher(name=name, present_match=True, invert_match=absent)
            filters.append(accesslog.AccessLogFilter(header_filter=accesslog.HeaderFilter(header=header_is)))
    # The transcoder has put the method in the place of the path before it finds that an id is none.
    path = "x-envoy-original-path" if refusal.verbs_but else ":path"
    verb = "x-envoy-original-method"
    for name, form, inverted in ((path, refusal.paths, False), (verb, refusal.verbs_but, True)):
        if form:
            text = matcher.StringMatcher(safe_regex=matcher.RegexMatcher(regex=form))
            header_is = route.HeaderMatcher(name=name, string_match=text, invert_match=inverted)
            filters.append(accesslog.AccessLogFilter(header_filter=accesslog.HeaderFilter(header=header_is)))
    if refusal.details:
        said = cel.ExpressionFilter(expression=f"response.code_details.contains('{refusal.details}')")
        found = accesslog.ExtensionFilter(name="envoy.access_loggers.extension_filters.cel", typed_config=packed(said))
        filters.append(accesslog.AccessLogFilter(extension_filter=found))
    if len(filters) == 1:
        return filters[0]
    return accesslog.AccessLogFilter(and_filter=accesslog.AndFilter(filters=filters))


def _status(operator: accesslog.ComparisonFilterOp, code: int) -> accesslog.AccessLogFilter:
    # The key is a place where an operator could override the number at run time; Envoy insists on one.
    value = core.RuntimeUInt32(default_value=code, runtime_key=f"paymesh.refusal.{code}")
    comparison = accesslog.ComparisonFilter(op=operator, value=value)
    return accesslog.AccessLogFilter(status_code_filter=accesslog.StatusCodeFilter(comparison=comparison))
