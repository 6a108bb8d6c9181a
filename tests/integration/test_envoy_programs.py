"""Which methods a program may call with an API key, and which calls are counted over all edges, at a real edge.

Both are decisions, which no rule can know: they stand here by name, beside the contract.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import grpc
import httpx
import pytest

from services.contract.load import contract
from services.contract.model import Auth
from services.mesh.node import EDGE
from tests.e2e.refusals import of_grpc
from tests.integration.edge_alone import EdgeAlone
from tests.integration.planes import Native, right
from tests.integration.requests import valid

if TYPE_CHECKING:
    from collections.abc import Iterator

    from services.contract.model import Method

AT_EDGE = [m for m in contract().methods.values() if EDGE in m.callers and m.auth is not Auth.INTERNAL]

BY_PROGRAMS = {
    # A shop's server sells, ships and gives back, and looks at what became of it,
    "CreateOrder", "GetOrder", "UpdateOrderStatus", "ListUserOrders", "SetStock", "CreatePayment", "GetPayment",
    "RefundPayment", "ListOrderPayments", "ListPayments", "ListPaymentRefunds", "GetBalance", "GetRefund",
    "CapturePayment", "VoidPayment", "ClosePayment",
    # asks before it sells, and tells its customers,
    "AssessRisk", "SendSms", "SendEmail", "SendPush", "GetNotification", "ListUserNotifications",
    # and an operator's tools watch.
    "ListAlerts", "ListBills", "ListBillDifferences", "ListWebhookDeliveries", "ListInstances", "ListRoutes",
}  # fmt: skip
"""Everything else wants a person who has logged in: accounts, cards, keys, rules, secrets, and money that leaves."""

COUNTED_TOGETHER = {"RegisterUser", "LoginUser", "RefreshSession", "RefundPayment", "WithdrawBalance"}
"""What is guessed at, and what takes money out: more edges must not mean more tries."""


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EdgeAlone]:
    """An edge that nobody stands behind: who is let in finds nothing."""
    services = tuple(f"{name}-1" for name in contract().services)
    with EdgeAlone(tmp_path_factory.mktemp("m"), instances=services).running() as running:
        yield running


def _by_key(mesh: EdgeAlone, channel: grpc.Channel, method: Method) -> str:
    who = right(method, valid(method))
    key = mesh.api_key(subject=who.subject, scope=" ".join(who.scopes))
    invoke: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(method.path)
    with pytest.raises(grpc.RpcError) as caught:
        invoke(valid(method).SerializeToString(), timeout=15, metadata=(("x-api-key", key),))
    return of_grpc(caught.value).reason


def test_program_with_a_key_is_let_in_where_programs_are(mesh: EdgeAlone) -> None:
    """Each method that asks for a user, with a key that has its scopes: so it is with a key, or only with a token."""
    asked = [method for method in AT_EDGE if method.auth is not Auth.PUBLIC]
    with mesh.grpc_edge() as channel:
        said = {method.name: _by_key(mesh, channel, method) for method in asked}
    assert set(said.values()) == {"UNAUTHENTICATED", "UNAVAILABLE"}
    assert {name for name, reason in said.items() if reason == "UNAVAILABLE"} == BY_PROGRAMS


def test_call_that_is_guessed_at_or_takes_money_out_is_counted_for_all_edges(mesh: EdgeAlone) -> None:
    """The edge asks who counts for all of them at these methods and at no others."""
    asked = set()
    with mesh.grpc_edge() as channel:
        edge = Native("gRPC", channel, mesh, inside=False)
        for method in AT_EDGE:
            before = _asked(mesh)
            edge.call(method, valid(method), right(method, valid(method)), "a-key-of-8")
            if _asked(mesh) > before:
                asked.add(method.name)
    assert asked == COUNTED_TOGETHER


def _asked(mesh: EdgeAlone) -> int:
    """How often the edge has asked the rate-limit service, whatever came of it."""
    stats = httpx.get(f"{mesh.admin[EDGE]}/stats", params={"filter": "ratelimit"}).text
    return sum(int(number) for number in re.findall(r"\.ratelimit\.(?:[\w.]*)(?:ok|error|over_limit): (\d+)", stats))
