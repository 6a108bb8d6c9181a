"""Every method of the contract by REST, by gRPC through the edge and by gRPC inside the mesh, and by every caller there is.

Everything is generated from the descriptors: a method that is added is asked the same questions.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from services.contract.load import contract
from services.contract.model import Auth
from services.mesh.node import EDGE
from services.platform.identity import SUBJECT
from tests.integration.equality import Judge, judging, table, timed
from tests.integration.planes import Native, Planes, Who
from tests.integration.requests import invalid, valid, violations

if TYPE_CHECKING:
    from collections.abc import Iterator

    from services.contract.model import Method, Service

METHODS = [pytest.param(method, id=method.full_name) for method in contract().methods.values()]
SERVICES = [pytest.param(service, id=service.name) for service in contract().services.values()]
PEERS = (*contract().services, EDGE, "nobody")
"""Every identity of the mesh, and one that it does not have."""
KEY = "a-key-of-8"


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Planes, Judge]]:
    with judging(tmp_path_factory.mktemp("m")) as running:
        yield running


@pytest.fixture(scope="module")
def mesh(judged: tuple[Planes, Judge]) -> Planes:
    return judged[0]


@pytest.fixture(scope="module")
def judge(judged: tuple[Planes, Judge]) -> Judge:
    return judged[1]


# -- The same by every way --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_request_that_is_made_from_the_descriptor_is_good_or_bad(method: Method) -> None:
    """What is sent as valid breaks no rule; what is sent as invalid breaks some, unless there is no field to break."""
    bad = invalid(method)
    assert violations(valid(method)) == ()
    assert bad is None or violations(bad)
    assert bad is not None or not valid(method).DESCRIPTOR.fields


@pytest.mark.parametrize("method", METHODS)
def test_method_is_the_same_on_every_plane(judge: Judge, method: Method) -> None:
    """Who may call, whose it is, what is invalid, what is too much: each plane says what the contract says."""
    cells = [*judge.cells(method)]
    assert [str(cell) for cell in cells if not cell.equal] == []
    assert {"right"} < {cell.aspect for cell in cells}


def test_method_that_hangs_is_ended_on_every_plane_when_its_time_is_over(mesh: Planes, judge: Judge) -> None:
    """All of them at once, each at its own time-out, with the same reason."""
    cells = timed(mesh, judge, contract().methods.values())
    assert [str(cell) for cell in cells if not cell.equal] == []
    assert len(cells) == len(contract().methods)


def test_plane_that_is_not_equal_is_named(judge: Judge) -> None:
    """An edge that was given another contract, one that lets through a single call, stands out in the table."""
    method = next(m for m in contract().methods.values() if m.rate_limit and m.auth is Auth.SCOPES)
    told = table(replace(judge, rest=judge.few[0]).cells(method))
    assert "!=- " in told
    assert "limit: " in told.splitlines()[-1]
    assert not told.splitlines()[2].endswith(" 0 unequal")


# -- Every caller -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("peer", PEERS)
def test_sidecar_lets_a_peer_in_where_the_contract_names_it(mesh: Planes, judge: Judge, peer: str) -> None:
    """By certificate, method by method; who is not named reaches no service, whatever identity it claims."""
    for method in contract().methods.values():
        request, before = valid(method), len(mesh.rooms.heard)
        said = judge.inside.as_peer(peer, method, request, Who("42", method.scopes), KEY)
        assert (said.reason != "CALLER_NOT_ALLOWED") is (peer in method.callers), (
            f"{peer} at {method.full_name}: {said}"
        )
        if peer not in method.callers:
            assert said.refusal is not None
            # The sidecar's own words: the interceptor behind it would name the peer.
            assert said.refusal.metadata == {"caller": "of this connection", "method": method.full_name}
            assert len(mesh.rooms.heard) == before


@pytest.mark.parametrize("caller", SERVICES)
def test_service_gets_out_where_the_contract_names_it(mesh: Planes, caller: Service) -> None:
    """Its own sidecar sends what it may call to the callee, whose sidecar lets it in, and refuses all else at home."""
    with mesh.grpc_own(f"{caller.name}-1") as channel:
        own = Native(caller.name, channel, mesh, inside=True)
        for method in contract().methods.values():
            said = own.call(method, valid(method), Who(), KEY)
            assert (said.reason != "CALLER_NOT_ALLOWED") is (caller.name in method.callers), (
                f"{method.full_name}: {said}"
            )
            if said.reason == "CALLER_NOT_ALLOWED":
                assert said.refusal is not None
                service = contract().services[method.service].full_name
                assert said.refusal.metadata == {"caller": caller.name, "method": service}


@pytest.mark.parametrize("callee", SERVICES)
def test_identity_is_passed_on_by_whom_the_contract_trusts(mesh: Planes, judge: Judge, callee: Service) -> None:
    """A peer that may call but not act for a user is heard without the identity that it claims."""
    for peer in {caller for method in callee.methods for caller in method.callers}:
        method = next(m for m in callee.methods if peer in m.callers)
        mesh.rooms.heard.clear()
        judge.inside.as_peer(peer, method, valid(method), Who("42", method.scopes), KEY)
        trusted = peer in {EDGE, *callee.on_behalf}
        assert [metadata.get(SUBJECT) for _, _, metadata in mesh.rooms.heard] == ["42" if trusted else None], peer


def test_client_cannot_claim_an_identity(mesh: Planes, judge: Judge) -> None:
    """Every method that asks for a token is refused to whom brings the headers of one instead."""
    forger = Native("gRPC", judge.native.channel, mesh, inside=True)
    for method in contract().methods.values():
        if method.auth in {Auth.USER, Auth.SCOPES}:
            said = forger.call(method, valid(method), Who("42", contract().scopes), KEY)
            assert said.reason == "UNAUTHENTICATED", method.full_name
