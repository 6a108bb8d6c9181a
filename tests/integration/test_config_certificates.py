"""Who is let in, on real Envoys: certificates that end, a CA that changes, identities that are shut out, and impostors."""

from __future__ import annotations

import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import pytest

from paymesh.config.v1 import config_pb2
from paymesh.config.v1 import config_service_pb2 as pb
from paymesh.order.v1 import order_service_pb2_grpc
from services.platform import pki
from services.platform.identity import dns_name
from tests.integration.config_mesh import ConfigMesh, Risks, until
from tests.integration.site import Site, ask, load
from tests.integration.wire import Wire

if TYPE_CHECKING:
    from collections.abc import Iterator

LIFE_S = 12
STABLE, TRUSTING, ISSUING = (
    config_pb2.Authority.PHASE_STABLE,
    config_pb2.Authority.PHASE_TRUSTING_BOTH,
    config_pb2.Authority.PHASE_ISSUING_NEW,
)


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    """A mesh whose certificates live twelve seconds."""
    with (
        tempfile.TemporaryDirectory(prefix="pm-") as directory,
        Wire("").running() as wire,
        ConfigMesh(Path(directory), PAYMESH_LEAF_LIFE_S=str(LIFE_S)).running() as mesh,
    ):
        yield Site(mesh, wire)


def test_certificates_are_renewed_under_load_before_they_end(site: Site) -> None:
    """Over more than a whole life: issued anew at half of it, every handshake good, no request failed."""
    ends = set[int]()
    began, accepted = time.monotonic(), site.wire.accepted
    with load(site) as codes:
        while time.monotonic() - began < LIFE_S + 3:
            ends.add(site.nodes()["payment-1"].certificate_expire_time.ToMilliseconds())
            time.sleep(0.2)
    assert len(codes) > 50
    assert set(codes) == {grpc.StatusCode.OK}
    assert len(ends) >= 3
    assert site.wire.accepted - accepted > 20
    first, second = sorted(ends)[:2]
    assert LIFE_S * 500 - 1500 < second - first < LIFE_S * 500 + 3000


def _rotate(site: Site, phase: config_pb2.Authority.Phase.ValueType) -> config_pb2.Authority:
    """Take a step, as soon as every Envoy has what the one before brought."""
    _until_known(site)
    request = pb.RotateAuthorityRequest(phase=phase)
    made: config_pb2.Authority
    try:
        made = site.mesh.operate("RotateAuthority", request).authority
    except grpc.RpcError as error:
        if error.code() is not grpc.StatusCode.DEADLINE_EXCEEDED:  # whether the step was taken a repeat will say
            raise
        made = site.mesh.operate("RotateAuthority", request).authority
    return made


def _until_known(site: Site) -> None:
    """Wait until every Envoy has what config wants it to have."""
    waiting: list[str] = []

    def known() -> bool:
        waiting[:] = site.mesh.operate("GetAuthority", pb.GetAuthorityRequest()).authority.waiting
        return not waiting

    try:
        until(known, 30)
    except AssertionError:
        raise AssertionError(f"{waiting} lack something: {site.nodes()}") from None


def test_ca_changes_in_three_steps_under_load_and_over_kills(site: Site) -> None:
    """Trust both, sign with the new one, drop the old one: config killed after each step goes on where it was.

    No request fails; afterwards the old CA opens nothing.
    """
    mesh = site.mesh
    old = pki.load_trust(mesh.directory / "pki").issuer
    _until_known(site)
    mesh.invite("order-9")
    with pytest.raises(grpc.RpcError) as refused:
        mesh.operate("RotateAuthority", pb.RotateAuthorityRequest(phase=TRUSTING))
    assert "order-9" in str(refused.value)
    mesh.forget("order-9")
    with load(site) as codes:
        prints = []
        for phase in (TRUSTING, ISSUING, STABLE):
            made = _rotate(site, phase)
            assert made.phase == phase
            prints.append(list(made.fingerprints))
            if phase != STABLE:
                site.cutting = False
                mesh.kill()
                mesh.start()
                _until_known(site)
                site.cutting = True
            again = mesh.operate("GetAuthority", pb.GetAuthorityRequest()).authority
            assert (again.phase, list(again.fingerprints)) == (phase, prints[-1])
        _until_known(site)
        time.sleep(1)
    assert len(codes) > 50
    assert set(codes) == {grpc.StatusCode.OK}
    trusting, issuing, dropped = prints
    assert issuing == trusting[::-1]
    assert dropped == issuing[:1]
    new = pki.load_trust(mesh.directory / "pki").issuer
    with mesh.secure(site.order, new.issue("payment")) as channel:
        assert ask(channel) is grpc.StatusCode.OK
    with mesh.secure(site.order, old.issue("payment")) as channel:
        assert ask(channel) is grpc.StatusCode.UNAVAILABLE


@pytest.mark.parametrize("shut_out", ["payment-1", "payment"])
def test_revocation_reaches_connections_that_are_open(site: Site, shut_out: str) -> None:
    """An instance, or a whole identity, is refused within about a second; the other instance only with its identity."""
    one, other = site.payments
    site.register()
    assert [ask(one), ask(other)] == [grpc.StatusCode.OK] * 2
    accepted = site.wire.accepted
    with grpc.insecure_channel(f"unix:{one.outbound_socket}") as channel:
        assert ask(channel) is grpc.StatusCode.OK
        site.set_revoked(shut_out)
        try:
            took = until(lambda: ask(channel) is grpc.StatusCode.PERMISSION_DENIED, 5)
            assert took < 2.0, f"it took {took:.2f} s"
            expected = grpc.StatusCode.OK if shut_out == "payment-1" else grpc.StatusCode.PERMISSION_DENIED
            assert ask(other) is expected
            assert site.nodes()["payment-1"].revoked
        finally:
            site.set_revoked("")
        until(lambda: ask(channel) is grpc.StatusCode.OK, 5)
    assert site.wire.accepted == accepted, "the connections were the same all the time"


def _renewed(site: Site) -> grpc.StatusCode:
    """Renew the lease of order."""
    try:
        site.mesh.register(site.order, address=site.wire.address)
    except grpc.RpcError as error:
        return error.code()
    return grpc.StatusCode.OK


def test_nobody_calls_an_instance_that_is_shut_out(site: Site) -> None:
    """It leaves the endpoints of every Envoy although it is well, and may not renew its lease."""
    site.register()
    site.set_revoked("order-1")
    try:
        until(lambda: site.mesh.endpoints(site.payments[0], "order") == [], 2)
        assert until(lambda: _renewed(site) is grpc.StatusCode.PERMISSION_DENIED, 5) < 2
    finally:
        site.set_revoked("")
    until(lambda: site.mesh.endpoints(site.payments[0], "order") == [site.wire.address])


def _leaf(mesh: ConfigMesh, fault: str, service: str) -> pki.KeyPair:
    """A certificate for ``service`` with one thing wrong."""
    ours, now = pki.load_trust(mesh.directory / "pki").issuer, datetime.now(UTC)
    match fault:
        case "expired":
            return ours.issue(service, now=now - timedelta(days=2))
        case "not yet valid":
            return ours.issue(service, now=now + timedelta(days=1))
        case "wrong ca":
            return pki.make_authority().issue(service)
        case "no identity":
            return ours.issue_server(service, names=(dns_name(service),))
        case _:
            return ours.issue("notification")


FAULTS = ("expired", "not yet valid", "wrong ca", "no identity", "wrong identity")


@pytest.mark.parametrize("fault", FAULTS)
def test_caller_with_a_bad_certificate_is_refused(site: Site, fault: str) -> None:
    """At the handshake; another service of the mesh, which may not call this, at the route. Order hears of none."""
    before = site.orders.calls
    with site.mesh.secure(site.order, _leaf(site.mesh, fault, "payment")) as channel:
        denied = grpc.StatusCode.PERMISSION_DENIED if fault == "wrong identity" else grpc.StatusCode.UNAVAILABLE
        assert ask(channel) is denied
    assert site.orders.calls == before


@pytest.mark.parametrize("fault", FAULTS)
def test_callee_with_a_bad_certificate_is_not_called(site: Site, fault: str) -> None:
    """Whoever sits at order's address without order's identity gets no request: the caller's Envoy ends the handshake."""
    site.register()
    until(lambda: ask(site.payments[0]) is grpc.StatusCode.OK, 5)
    leaf, impostor = _leaf(site.mesh, fault, "order"), Risks()  # type: ignore[abstract]
    server = grpc.server(ThreadPoolExecutor(2))
    order_service_pb2_grpc.add_OrderServiceServicer_to_server(impostor, server)
    keys = [(leaf.key_pem.encode(), leaf.cert_pem.encode())]
    port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials(keys))
    server.start()
    failures = r"cluster\.order\.ssl\.fail_verify_(error|san)"
    before = site.mesh.stats(site.payments[0], failures)
    site.wire.target = f"127.0.0.1:{port}"
    site.wire.cut()
    try:
        assert until(lambda: ask(site.payments[0]) is grpc.StatusCode.UNAVAILABLE, 5) < 5
        assert site.mesh.stats(site.payments[0], failures) > before
        assert impostor.calls == 0
    finally:
        site.wire.target = site.order.inbound
        site.wire.cut()
        server.stop(0).wait()
