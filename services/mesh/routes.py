"""Where each method goes and under which policy: one route per method, exactly, and a refusal for the rest."""

from __future__ import annotations

from typing import TYPE_CHECKING

from envoy_data_plane.envoy.config.route import v3 as route
from envoy_data_plane.envoy.extensions.retry.host.previous_hosts import v3 as previous
from envoy_data_plane.envoy.type.matcher import v3 as matcher

from services.contract.descriptors import carries_secret
from services.contract.model import Auth, RetryOn
from services.kernel.errors import DomainError
from services.mesh import filters, hardening, keys, limits
from services.mesh.clusters import LOCAL
from services.mesh.node import EDGE
from services.mesh.refusals import NOT_SENT, forbidden
from services.mesh.resource import ms, packed
from services.platform.identity import PREFIX

if TYPE_CHECKING:
    from collections.abc import Iterable

    from betterproto2 import Message
    from envoy_data_plane.google.protobuf import Any

    from services.contract.model import Contract, Method, Service

INBOUND = "inbound"
OUTBOUND = "outbound"

HEALTH_CHECK = "/grpc.health.v1.Health/Check"
_HEALTH_TIMEOUT_MS = 1000
HEALTH_CALLERS = ("config", EDGE)
"""Who may ask whether an instance serves."""

_FORMS = {"grpc-timeout": "[0-9]{1,8}[HMSmun]", "grpc-encoding": "identity|deflate|gzip"}
"""What a client of gRPC may say of a call, and our servers can read."""

_RETRY_WORDS = {
    # "Not sent" by the callee's own Envoy is a connection that failed one hop further on.
    RetryOn.CONNECT_FAILURE: ("connect-failure", "retriable-headers"),
    RetryOn.REFUSED_STREAM: ("refused-stream",),
    RetryOn.UNAVAILABLE: ("unavailable", "reset", "connect-failure", "retriable-headers"),
}


def inbound(service: Service, revoked: frozenset[str] = frozenset()) -> route.RouteConfiguration:
    """Let the callers of each method through to the service beside this Envoy, and nobody else, nor who is revoked."""
    asking = filters.allow_peers(HEALTH_CALLERS, revoked)
    health = _forward(HEALTH_CHECK, _action(LOCAL, _HEALTH_TIMEOUT_MS), rbac=asking)
    routes = [_inbound(method, revoked) for method in service.methods]
    if service.name == limits.SERVER:
        edge_alone = filters.allow_peers([EDGE], revoked)
        routes.append(_forward(limits.ASK, _action(LOCAL, limits.ASK_MS), rbac=edge_alone))
    table = _table(INBOUND, [*routes, health, _elsewhere()])
    # This Envoy says it, or nobody.
    table.response_headers_to_remove = [NOT_SENT]
    return table


def _inbound(method: Method, revoked: frozenset[str]) -> route.Route:
    made = _forward(method.path, _action(LOCAL, method.timeout_ms), rbac=filters.allow_peers(method.callers, revoked))
    # Who the caller is cannot be written into details that are encoded in advance.
    made.metadata = forbidden(DomainError("CALLER_NOT_ALLOWED", caller="of this connection", method=method.full_name))
    return made


def outbound(contract: Contract, caller: str) -> route.RouteConfiguration:
    """Route what a service may call to its clusters; refuse the rest where it starts, by name."""
    allowed = [_forward(method.path, _call(method)) for method in contract.methods.values() if caller in method.callers]
    refused = [_refused(service, caller) for service in contract.services.values()]
    return _table(OUTBOUND, [*allowed, *refused, _elsewhere()])


def called_by(contract: Contract, caller: str) -> list[Service]:
    """Services of which a caller may call at least one method, in the contract's order."""
    return [s for s in contract.services.values() if any(caller in m.callers for m in s.methods)]


def edge(contract: Contract, origins: frozenset[str] = frozenset()) -> route.RouteConfiguration:
    """Route every method that clients may call; what is internal has no route, as if it were not there.

    Pages of `origins` may call too.
    """
    methods = [m for m in contract.methods.values() if EDGE in m.callers and m.auth is not Auth.INTERNAL]
    open_to_all: dict[str, Message] = {filters.JWT: filters.token_ignored()}
    refused = (_unreadable(name, form, open_to_all) for name, form in _FORMS.items())
    pages = [_of_pages(methods, origins, open_to_all)] if origins else []
    table = _table(EDGE, [*refused, _ambiguous(open_to_all), *map(_edge, methods), *pages, _elsewhere(open_to_all)])
    # Where it is taken, it ended at the filter; where it is not, it is nobody's business.
    table.request_headers_to_remove = [keys.HEADER]
    # Read by the edge's own retries. (Never drop grpc-status here: the transcoder comes after and would say 200.)
    table.response_headers_to_remove = [NOT_SENT]
    return table


def _of_pages(methods: Iterable[Method], origins: frozenset[str], config: dict[str, Message]) -> route.Route:
    """Say which pages may call, where a REST call is before it has become a method.

    The CORS filter looks at no route that answers by itself, so this one leads to a cluster that nobody can name: a 404.
    """
    verbs = {method.http.verb for method in methods if method.http}
    nowhere = route.RouteAction(
        cluster_header=f"{PREFIX}nowhere",
        cluster_not_found_response_code=route.RouteActionClusterNotFoundResponseCode.NOT_FOUND,
    )
    return route.Route(
        name="of pages",
        match=route.RouteMatch(prefix="/", headers=[route.HeaderMatcher(name="origin", present_match=True)]),
        route=nowhere,
        typed_per_filter_config=_per_filter(
            {filters.RBAC: filters.allow_anybody(), hardening.CORS: hardening.allowed(origins, verbs), **config}
        ),
    )


def _edge(method: Method) -> route.Route:
    public = method.auth is Auth.PUBLIC
    config: dict[str, Message] = {
        filters.JWT: filters.token_ignored() if public else filters.token_required(or_key=method.api_key),
        filters.RBAC: filters.allow_anybody() if public else filters.allow_scopes(method.scopes),
    }
    if method.rate_limit:
        config[filters.LIMIT] = filters.limit(method.rate_limit)
        if method.rate_limit.is_global:
            config[limits.GLOBAL] = limits.globally(method, method.rate_limit)
    made = _forward(method.path, _call(method))
    made.typed_per_filter_config = _per_filter(config)
    if carries_secret(method.response):
        made.response_headers_to_add = [hardening.untouched()]
    if method.scopes:
        made.metadata = forbidden(DomainError("SCOPE_MISSING", scope=" ".join(method.scopes)))
    return made


def _unreadable(name: str, form: str, config: dict[str, Message]) -> route.Route:
    """Refuse a call with a header that the service could not read, here and not there: see filters.strip_from_rest."""
    of_form = matcher.StringMatcher(safe_regex=matcher.RegexMatcher(regex=form))
    wrong = [
        route.HeaderMatcher(name=name, present_match=True),
        route.HeaderMatcher(name=name, string_match=of_form, invert_match=True),
    ]
    return _answered(f"unreadable {name}", route.RouteMatch(prefix="/", headers=wrong), 400, config)


def _ambiguous(config: dict[str, Message]) -> route.Route:
    """Refuse a call that shows a token and an API key: of two callers at once, neither is believed."""
    both = [route.HeaderMatcher(name=name, present_match=True) for name in ("authorization", keys.HEADER)]
    return _answered("two credentials", route.RouteMatch(prefix="/", headers=both), 401, config)


def _call(method: Method) -> route.RouteAction:
    action = _action(method.service, method.timeout_ms)
    if method.retry_attempts:
        action.retry_policy = route.RetryPolicy(
            retry_on=retry_on(method),
            num_retries=method.retry_attempts,
            retriable_headers=[route.HeaderMatcher(name=NOT_SENT, present_match=True)],
            # Another instance than the one that failed, where there is one.
            retry_host_predicate=[
                route.RetryPolicyRetryHostPredicate(
                    name="envoy.retry_host_predicates.previous_hosts",
                    typed_config=packed(previous.PreviousHostsPredicate()),
                )
            ],
            host_selection_retry_max_attempts=3,
            retry_back_off=route.RetryPolicyRetryBackOff(base_interval=ms(25), max_interval=ms(250)),
        )
    return action


def retry_on(method: Method) -> str:
    """Return the failures after which a method may be repeated, in Envoy's words."""
    return ",".join(sorted({word for on in method.retry_on for word in _RETRY_WORDS[on]}))


def _action(cluster: str, timeout_ms: int) -> route.RouteAction:
    # The whole call, repeats included, whatever longer deadline the client asked for; a shorter one is the client's own.
    # REST brings none, and none is added: gRPC's servers end a call at its deadline without a reason, before Envoy does.
    return route.RouteAction(cluster=cluster, timeout=ms(timeout_ms))


def _forward(path: str, action: route.RouteAction, *, rbac: Message | None = None) -> route.Route:
    return route.Route(
        name=path.strip("/"),
        match=route.RouteMatch(path=path, grpc=route.RouteMatchGrpcRouteMatchOptions()),
        route=action,
        typed_per_filter_config=_per_filter({filters.RBAC: rbac} if rbac else {}),
    )


def _refused(service: Service, caller: str) -> route.Route:
    """Refuse what is left of a service after the methods that the caller may call: a route each would be 30 KiB."""
    return route.Route(
        name=f"refused {service.full_name}",
        match=route.RouteMatch(prefix=f"/{service.full_name}/"),
        direct_response=route.DirectResponseAction(status=403),
        metadata=forbidden(DomainError("CALLER_NOT_ALLOWED", caller=caller, method=service.full_name)),
    )


def _elsewhere(config: dict[str, Message] | None = None) -> route.Route:
    """Answer "no such method" to everything else."""
    return _answered("elsewhere", route.RouteMatch(prefix="/"), 404, config)


def _answered(name: str, match: route.RouteMatch, status: int, config: dict[str, Message] | None = None) -> route.Route:
    """Answer here; it is open to anybody, for there is nothing behind it."""
    return route.Route(
        name=name,
        match=match,
        direct_response=route.DirectResponseAction(status=status),
        typed_per_filter_config=_per_filter({filters.RBAC: filters.allow_anybody(), **(config or {})}),
    )


def _per_filter(config: dict[str, Message]) -> dict[str, Any]:
    return {name: packed(message) for name, message in config.items()}


def _table(name: str, routes: Iterable[route.Route]) -> route.RouteConfiguration:
    everything = route.VirtualHost(name=name, domains=["*"], routes=list(routes))
    # Without the check a route to an unknown cluster is taken, and is a 503 to whoever calls it.
    return route.RouteConfiguration(name=name, virtual_hosts=[everything], validate_clusters=True)
