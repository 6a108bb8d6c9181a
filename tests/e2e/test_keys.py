"""API keys through the real mesh: made, shown, rotated, revoked, on connections that stay open."""

from __future__ import annotations

import time
import uuid
from typing import TYPE_CHECKING, Any

import pytest

from tests.e2e.mesh import until
from tests.e2e.refusals import Refused

if TYPE_CHECKING:
    from tests.e2e.clients import Native, People, Person, Rest
    from tests.e2e.mesh import Mesh


def _make(rest: Rest, person: Person, *, scopes: tuple[str, ...] = (), key: str = "") -> dict[str, Any]:
    body = {"name": "of a test", "scopes": list(scopes), "lifetime_days": 1}
    return rest.call("CreateApiKey", body, token=person.token, key=key or uuid.uuid4().hex)


def _shown(rest: Rest, person: Person, secret: str) -> tuple[int, str]:
    """Show a key: the status, and the reason of a refusal."""
    answer = rest.ask("GET", f"/api/orders/user/{person.id}", headers={"x-api-key": secret})
    return answer.status_code, answer.json()["details"][0]["reason"] if answer.status_code != 200 else ""


def test_key_lives_through_rotation_and_ends_within_a_second_of_its_revocation(
    rest: Rest, grpc_edge: Native, people: People, mesh: Mesh
) -> None:
    """REST and native gRPC, each on one connection throughout; what was shown is stored nowhere."""
    person = people.somebody()
    idempotency_key = uuid.uuid4().hex
    made = _make(rest, person, key=idempotency_key)
    old, secret = made["key"], made["secret"]
    assert old["status"] == "STATUS_ACTIVE"
    assert _shown(rest, person, secret) == (200, "")
    assert grpc_edge.call("ListUserOrders", {"user_id": person.id}, x_api_key=secret)["orders"] == []
    again = _make(rest, person, key=idempotency_key)
    assert again["key"] == old
    assert _shown(rest, person, again["secret"]) == (200, "")

    rotated = rest.call("RotateApiKey", {"id": old["id"]}, token=person.token, key=uuid.uuid4().hex)
    new = rotated["secret"]
    assert _shown(rest, person, new) == _shown(rest, person, secret) == (200, ""), "both, for 24 hours"
    listed = rest.call("ListApiKeys", {"user_id": person.id}, token=person.token)["keys"]
    assert [(key["id"], key["status"]) for key in listed] == [
        (rotated["key"]["id"], "STATUS_ACTIVE"),
        (old["id"], "STATUS_RETIRING"),
    ]

    rest.call("RevokeApiKey", {"id": old["id"]}, token=person.token)
    took_s = until(lambda: _shown(rest, person, secret) == (401, "API_KEY_REVOKED"))
    assert took_s < 1.5, "about a second, and what a slow machine adds"
    with pytest.raises(Refused) as refused:
        grpc_edge.call("ListUserOrders", {"user_id": person.id}, x_api_key=again["secret"])
    assert refused.value.refusal.reason == "API_KEY_REVOKED"
    assert _shown(rest, person, new) == (200, "")
    signature = new.rpartition(".")[2].encode()
    written = [path for path in mesh.data.rglob("*") if path.is_file() and signature in path.read_bytes()]
    assert not written


def test_key_gives_way_when_its_overlap_ends(rest: Rest, people: People) -> None:
    """Nobody does anything then: the edge is told by itself."""
    person = people.somebody()
    made = _make(rest, person)
    body = {"id": made["key"]["id"], "overlap_seconds": 1}
    rotated = rest.call("RotateApiKey", body, token=person.token, key=uuid.uuid4().hex)
    began = time.monotonic()
    until(lambda: _shown(rest, person, made["secret"]) == (401, "API_KEY_REVOKED"))
    assert time.monotonic() - began < 4
    assert _shown(rest, person, rotated["secret"]) == (200, "")


def test_key_opens_its_owners_own_and_makes_no_keys(rest: Rest, people: People) -> None:
    """No scope that he has not; no other's data; no method that takes no keys; no token beside it."""
    person, stranger = people.somebody(), people.somebody()
    with pytest.raises(Refused) as refused:
        _make(rest, person, scopes=("orders:read",))
    assert refused.value.refusal.reason == "SCOPE_MISSING"
    secret = _make(rest, person)["secret"]
    answer = rest.ask("GET", f"/api/orders/user/{stranger.id}", headers={"x-api-key": secret})
    assert answer.status_code == 404
    answer = rest.ask("POST", "/api/gateway/keys", {"name": "more"}, headers={"x-api-key": secret})
    assert answer.status_code == 401
    answer = rest.ask("GET", f"/api/orders/user/{person.id}", token=person.token, headers={"x-api-key": secret})
    assert answer.status_code == 401
    operators = _make(rest, people.operator, scopes=("orders:read",))["secret"]
    answer = rest.ask("GET", f"/api/orders/user/{person.id}", headers={"x-api-key": operators})
    assert answer.status_code == 200
