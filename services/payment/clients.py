"""Other services behind the payment room's ports: risk and order, through our own Envoy."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from paymesh.order.v1 import order_service_pb2, order_service_pb2_grpc
from paymesh.risk.v1 import risk_pb2, risk_service_pb2_grpc
from services.contract.load import contract
from services.kernel.errors import DomainError
from services.payment import mapping

if TYPE_CHECKING:
    from collections.abc import Sequence

    from services.kernel.caller import Caller
    from services.payment.domain import KnownOrder
    from services.payment.ports import ToAssess
    from services.platform.client import MeshChannel

_SILENT = frozenset({"UNAVAILABLE", "DEADLINE_EXCEEDED"})
"""How a call ends when risk cannot be reached; any other failure is an answer."""
_BLOCK = risk_pb2.Assessment.DECISION_BLOCK
_PASS = frozenset({risk_pb2.Assessment.DECISION_APPROVE, risk_pb2.Assessment.DECISION_REVIEW})


def _timeout_ms(path: str, deadline: float) -> int:
    """The contract's time-out, cut to what is left until ``deadline`` (monotonic seconds)."""
    return max(1, min(contract().methods[path].timeout_ms, int((deadline - time.monotonic()) * 1000)))


class RiskClient:
    """Asks the risk service, one call for a whole batch."""

    PATH = "/paymesh.risk.v1.RiskService/BatchAssessPayments"

    def __init__(self, mesh: MeshChannel) -> None:
        """Call through ``mesh``. Until risk was heard once, payments are refused while it cannot be reached."""
        self._mesh, self._stub = mesh, risk_service_pb2_grpc.RiskServiceStub(mesh.channel)
        self._unreachable = _BLOCK

    def blocked(self, payments: Sequence[ToAssess], cause: Caller) -> list[bool]:
        """Return for each payment whether it is to be refused; see the port."""
        request, timeout_ms = mapping.to_assess(list(payments)), _timeout_ms(self.PATH, cause.deadline)
        try:
            answer = self._mesh.call(self._stub.BatchAssessPayments, request, timeout_ms, cause.unnamed())
        except DomainError as failure:
            if timeout_ms < contract().methods[self.PATH].timeout_ms:
                raise DomainError("DEADLINE_EXCEEDED") from None  # a caller in a hurry does not get past risk by it
            if failure.reason not in _SILENT or self._unreachable not in _PASS:
                raise DomainError("UNAVAILABLE") from None
            return [False] * len(payments)
        self._unreachable = answer.unreachable_decision or _BLOCK
        if [a.payment_id for a in answer.assessments] != [p.payment_id for p in payments]:
            raise DomainError("UNAVAILABLE")  # a verdict never falls on another payment
        return [a.decision not in _PASS for a in answer.assessments]


class OrderClient:
    """Asks the order service."""

    PATH = "/paymesh.order.v1.OrderService/BatchGetOrders"

    def __init__(self, mesh: MeshChannel) -> None:
        """Call through ``mesh``."""
        self._mesh, self._stub = mesh, order_service_pb2_grpc.OrderServiceStub(mesh.channel)

    def find(self, order_ids: Sequence[int], cause: Caller) -> list[KnownOrder]:
        """Return those of the orders that exist; 200 at most in a call."""
        request = order_service_pb2.BatchGetOrdersRequest(ids=order_ids)
        timeout_ms = _timeout_ms(self.PATH, cause.deadline)
        answer = self._mesh.call(self._stub.BatchGetOrders, request, timeout_ms, cause.unnamed())
        return [mapping.known_order(order) for order in answer.orders]
