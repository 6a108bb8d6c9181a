"""Protobuf <-> domain."""

from __future__ import annotations

from typing import TYPE_CHECKING

import orjson

from paymesh.config.v1 import config_event_pb2, config_pb2
from paymesh.config.v1 import config_service_pb2 as pb
from services.config.domain import LEASE_S, Deregister, Health, Name, Phase, Register, RotateAuthority, SetConfig
from services.platform.wire import timestamp

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from paymesh.gateway.v1 import gateway_pb2 as gateway_types
    from paymesh.gateway.v1 import gateway_service_pb2 as gateway_pb
    from paymesh.user.v1 import user_pb2 as user_types
    from paymesh.user.v1 import user_service_pb2 as user_pb
    from services.config.domain import Authority, Entry, Lease, NodeState, ServiceHealth
    from services.kernel.clock import Clock
    from services.platform.interceptor import Call

_HEALTH = {
    Health.HEALTHY: config_pb2.Instance.HEALTH_HEALTHY,
    Health.UNHEALTHY: config_pb2.Instance.HEALTH_UNHEALTHY,
    Health.DRAINING: config_pb2.Instance.HEALTH_DRAINING,
}


_PHASE = {
    Phase.STABLE: config_pb2.Authority.PHASE_STABLE,
    Phase.TRUSTING_BOTH: config_pb2.Authority.PHASE_TRUSTING_BOTH,
    Phase.ISSUING_NEW: config_pb2.Authority.PHASE_ISSUING_NEW,
}
_PHASE_OF = {there: here for here, there in _PHASE.items()}


def set_config(request: pb.SetConfigRequest, call: Call) -> SetConfig:
    """Read a command."""
    return SetConfig(request.key, request.value, request.expected_version, call.caller.subject)


def register(request: pb.RegisterInstanceRequest, call: Call) -> Register:
    """Read a command; who gives it says the certificate, not the request."""
    name = Name(request.service, request.instance)
    return Register(name, request.mesh_address, call.peer, _method(call))


def deregister(request: pb.DeregisterInstanceRequest, call: Call) -> Deregister:
    """Read a command."""
    return Deregister(Name(request.service, request.instance), call.peer, _method(call))


def _method(call: Call) -> str:
    return call.method.full_name if call.method else ""


def entry(found: Entry) -> config_pb2.ConfigEntry:
    """Render an entry."""
    return config_pb2.ConfigEntry(
        key=found.key,
        value=found.value,
        version=found.version,
        updated_by=found.updated_by,
        update_time=timestamp(found.update_ms),
    )


def known(request: pb.WatchConfigRequest) -> dict[str, int]:
    """Read which versions a caller has, by key."""
    return {each.key: each.version for each in request.known}


def watched(found: Sequence[Entry]) -> pb.WatchConfigResponse:
    """Render what is newer."""
    return pb.WatchConfigResponse(entries=[entry(e) for e in found])


def entries(found: Sequence[Entry], next_page_token: str) -> pb.ListConfigResponse:
    """Render a page."""
    return pb.ListConfigResponse(entries=[entry(e) for e in found], next_page_token=next_page_token)


def config_changed(changed: Entry) -> config_event_pb2.ConfigChanged:
    """Render the event of a change: without the value, which may be long or sensitive; consumers read it."""
    return config_event_pb2.ConfigChanged(
        key=changed.key,
        version=changed.version,
        event_time=timestamp(changed.update_ms),
        updated_by=changed.updated_by,
    )


def instance(lease: Lease, clock: Clock) -> config_pb2.Instance:
    """Render a lease. Its end is told on the wall clock, from what is left of it."""
    left_s = LEASE_S if lease.permanent else max(lease.until - clock.monotonic(), 0.0)
    return config_pb2.Instance(
        service=lease.name.service,
        instance=lease.name.instance,
        mesh_address=lease.address,
        health=_HEALTH[lease.health],
        lease_expire_time=timestamp(clock.now_ms() + int(left_s * 1000)),
    )


def instances(found: Sequence[Lease], next_page_token: str, clock: Clock) -> pb.ListInstancesResponse:
    """Render a page."""
    return pb.ListInstancesResponse(
        instances=[instance(lease, clock) for lease in found], next_page_token=next_page_token
    )


def jwks(response: user_pb.GetJwksResponse) -> str:
    """Read the keys of the issuer as the JWKS that Envoy takes; "" when there are none."""
    return _jwks(response.keys)


def api_keys(response: gateway_pb.GetApiKeyTrustResponse) -> tuple[str, frozenset[str]]:
    """Read what verifies API keys, likewise, and the ids of those that are revoked."""
    return _jwks(response.jwks), frozenset(map(str, response.revoked_ids))


def _jwks(found: Iterable[user_types.Jwk | gateway_types.ApiKeyJwk]) -> str:
    keys = [{"kty": k.kty, "crv": k.crv, "x": k.x, "y": k.y, "kid": k.kid, "use": k.use, "alg": k.alg} for k in found]
    # In a stable order of names: equal keys are equal text, and change nothing at the edge.
    return orjson.dumps({"keys": keys}, option=orjson.OPT_SORT_KEYS).decode() if keys else ""


def rotate_authority(request: pb.RotateAuthorityRequest) -> RotateAuthority:
    """Read a command."""
    return RotateAuthority(_PHASE_OF[request.phase])


def authority(found: Authority) -> config_pb2.Authority:
    """Render the CA."""
    return config_pb2.Authority(phase=_PHASE[found.phase], fingerprints=found.fingerprints, waiting=found.waiting)


def nodes(found: Sequence[NodeState], next_page_token: str) -> pb.ListNodesResponse:
    """Render a page."""
    return pb.ListNodesResponse(nodes=map(_node, found), next_page_token=next_page_token)


def _node(found: NodeState) -> config_pb2.MeshNode:
    refusal = config_pb2.MeshNode.Refusal
    ends = found.certificate_ends_ms
    return config_pb2.MeshNode(
        id=found.id,
        connected=found.connected,
        settled=found.settled,
        refusals=[refusal(resource=name, complaint=said) for name, said in sorted(found.refusals.items())],
        not_rendered=found.not_rendered,
        revoked=found.revoked,
        certificate_expire_time=timestamp(ends) if ends else None,
    )


def mesh_health(found: Sequence[ServiceHealth]) -> pb.GetMeshHealthResponse:
    """Render the health of every service."""
    return pb.GetMeshHealthResponse(
        services=[pb.ServiceHealth(service=s.service, healthy=s.healthy, registered=s.registered) for s in found]
    )
