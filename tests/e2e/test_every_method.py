"""Every method of the contract on the live mesh: every caller inside, every rule of its fields, every user at another's things.

The requests are made from the descriptors, so that a method that is added is asked the same.
"""

from __future__ import annotations

import json
from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from google.protobuf import json_format

from services.contract.load import contract
from services.contract.model import Auth
from services.mesh.node import EDGE
from services.platform.identity import dns_name
from tests.e2e.clients import Cast, Native, People, Person, Plane, Rest, Shop, cny, some_key
from tests.e2e.mesh import Mesh, paymesh, until
from tests.e2e.refusals import Refusal, outcome, refusal
from tests.integration.requests import invalid, valid, violations

if TYPE_CHECKING:
    from collections.abc import Mapping

    from google.protobuf.message import Message

    from services.contract.model import Method

CALLERS = (*contract().services, EDGE)
METHODS = [*contract().methods.values()]
OWNED = [method for method in METHODS if method.auth is Auth.USER]
"""The methods of a user, each of which says whose data it reaches."""


def _json(request: Message) -> dict[str, Any]:
    return dict(json_format.MessageToDict(request, preserving_proto_field_name=True))


# -- Every caller -----------------------------------------------------------------------------------------------------


def _as(mesh: Mesh, caller: str) -> grpc.ChannelCredentials:
    out = mesh.top / f"every-{caller}"
    if not out.exists():
        done = paymesh("cert", "--as", caller, "--out", str(out), "--data", str(mesh.data))
        assert done.returncode == 0, done.stderr
    cert, key, ca = ((out / file).read_bytes() for file in ("cert.pem", "key.pem", "ca.pem"))
    return grpc.ssl_channel_credentials(ca, key, cert)


def _at(mesh: Mesh, service: str, credentials: grpc.ChannelCredentials) -> Native:
    options = [("grpc.ssl_target_name_override", dns_name(service)), ("grpc.enable_retries", 0)]
    return Native(grpc.secure_channel(mesh.record["services"][service][0]["mesh"], credentials, options))


@pytest.mark.parametrize("caller", CALLERS)
def test_only_the_pairs_of_the_contract_pass_on_live_sidecars(mesh: Mesh, caller: str) -> None:
    """Each service with its certificate at each method of each service: let in where it is named, else refused."""
    credentials = _as(mesh, caller)
    for service in contract().services.values():
        with closing(_at(mesh, service.name, credentials)) as sidecar:
            for method in service.methods:
                bad = invalid(method)  # so that nothing comes of being let in
                said = outcome(partial(sidecar.call, method.name, _json(bad or valid(method)), key=some_key()))
                refused = isinstance(said, Refusal) and said.reason == "CALLER_NOT_ALLOWED"
                assert refused is (caller not in method.callers), f"{caller} at {method.full_name}: {said}"


# -- Every field ------------------------------------------------------------------------------------------------------


def test_invalid_request_gets_the_same_answer_on_every_plane(
    mesh: Mesh, rest: Rest, grpc_edge: Native, people: People
) -> None:
    """REST, gRPC and a peer inside the mesh are told of the same fields: those that the rules of the contract refuse."""
    identity = {
        "x_paymesh_sub": people.operator.id,
        "x_paymesh_scope": " ".join(contract().scopes),
        "x_paymesh_sid": "s",
    }
    for method in METHODS:
        bad = invalid(method)
        if bad is None:
            continue
        peer = EDGE if EDGE in method.callers else method.callers[0]
        with closing(_at(mesh, method.service, _as(mesh, peer))) as sidecar:
            said = [refusal(partial(sidecar.call, method.name, _json(bad), key=some_key(), **identity))]
        if method.auth is not Auth.INTERNAL:
            token = "" if method.auth is Auth.PUBLIC else people.operator.token
            said += [
                refusal(partial(plane.call, method.name, _json(bad), token=token, key=some_key()))
                for plane in (rest, grpc_edge)
            ]
        wanted = Refusal("INVALID_ARGUMENT", "INVALID_ARGUMENT", {}, violations(bad))
        assert said == [wanted] * len(said), method.full_name


# -- Every user -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def things(rest: Rest, shop: Shop, cast: Cast) -> dict[str, str]:
    """One of everything that a user owns, all of one owner: the collection in a route, or the noun of a field -> its id."""
    owner = cast.owner
    card = {"card_number": "4242 4242 4242 4242", "expire_month": 12, "expire_year": 2034}
    saved = rest.do("POST", "/api/payment-methods", card, token=owner.token)["payment_method"]["id"]
    order = shop.order(owner, cast.sku)
    payment = shop.pay(owner, order)
    body = {"id": payment["id"], "amount": cny(1)}
    refund = rest.call("RefundPayment", body, token=owner.token, key=some_key())["refund"]["id"]
    read = partial(rest.call, "GetOrder", {"id": order["id"]}, token=owner.token)
    until(lambda: read()["order"]["status"] != "STATUS_PENDING", 30)
    found = {
        "users": owner.id, "user": owner.id, "balances": owner.id, "orders": order["id"], "order": order["id"],
        "payments": payment["id"], "payment": payment["id"], "refunds": refund, "notifications": cast.notification,
        "payment-methods": saved, "payment_method": saved,
    }  # fmt: skip
    if any(method.name == "CreateApiKey" for method in OWNED):
        made = rest.call("CreateApiKey", {"name": "till"}, token=owner.token, key=some_key())
        found["keys"] = made["key"]["id"]
    return found


def _of(method: Method, things: Mapping[str, str]) -> tuple[dict[str, Any], bool]:
    """Return a request for the owner's things, and whether it names one of them at all."""
    assert method.http is not None
    body, names = _json(valid(method)), False
    for field in valid(method).DESCRIPTOR.fields:
        collection = method.http.path.partition("/{id}")[0].rpartition("/")[2]
        noun = collection if field.name == "id" else field.name.removesuffix("_id")
        if field.name == "id" or (field.name.endswith("_id") and field.name != "request_id"):
            assert noun in things, f"{method.full_name}.{field.name}: say in `things` which {noun} a user owns"
            body[field.name], names = things[noun], True
    return body, names


def _seen(method: Method, answer: dict[str, Any] | Refusal, things: Mapping[str, str]) -> bool:
    """Whether an answer is more than "there is no such thing"."""
    if isinstance(answer, Refusal):
        return answer.code != "NOT_FOUND"
    return any(f'"{each}"' in json.dumps(answer) for each in things.values())


def _snapshot(plane: Plane, owner: Person, things: Mapping[str, str]) -> dict[str, Any]:
    """Read all that an owner has."""
    reads = [method for method in OWNED if method.http and method.http.verb == "GET"]
    return {m.name: outcome(partial(plane.call, m.name, _of(m, things)[0], token=owner.token)) for m in reads}


def test_nobody_reads_or_changes_what_is_anothers(
    plane: Plane, people: People, cast: Cast, things: dict[str, str]
) -> None:
    """Each method of a user, called for the owner's things by another user and by nobody: not found, and all is as it was."""
    assert len(OWNED) > 20
    before, stranger = _snapshot(plane, cast.owner, things), people.somebody()
    for method in OWNED:
        body, names = _of(method, things)
        said = refusal(partial(plane.call, method.name, body, key=some_key()))
        assert said.reason == "UNAUTHENTICATED", method.full_name
        # What names nothing is about the caller himself, who may be logged out by it.
        caller = stranger if names else people.somebody()
        answer = outcome(partial(plane.call, method.name, body, token=caller.token, key=some_key()))
        assert not names or not _seen(method, answer, things), f"{method.full_name}: {answer}"
        assert isinstance(answer, Refusal) or not _seen(method, answer, things), f"{method.full_name}: {answer}"
    after = _snapshot(plane, cast.owner, things)
    told, known = (each.pop("ListUserNotifications")["notifications"] for each in (after, before))
    assert after == before
    assert {each["id"] for each in known} <= {each["id"] for each in told}, "more may come of what the owner did before"


def test_owner_and_who_is_entitled_reach_it(plane: Plane, people: People, cast: Cast, things: dict[str, str]) -> None:
    """The same reads by the owner, and by an operator where the contract lifts the rule: so they ask for what is there."""
    for method in OWNED:
        if method.http is None or method.http.verb != "GET":
            continue
        body, names = _of(method, things)
        answer = outcome(partial(plane.call, method.name, body, token=cast.owner.token))
        assert _seen(method, answer, things), f"{method.full_name}: {answer}"
        assert method.owner is not None
        answer = outcome(partial(plane.call, method.name, body, token=people.operator.token))
        assert _seen(method, answer, things) is (names and bool(method.owner.lifted_by)), (
            f"{method.full_name}: {answer}"
        )
