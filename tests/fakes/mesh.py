"""The rest of the mesh as a service sees it through its own Envoy: risk and order that say what a test wants."""

from __future__ import annotations

import time
from concurrent import futures
from typing import TYPE_CHECKING, Self

import grpc
from grpc_status import rpc_status

from paymesh.order.v1 import order_pb2, order_service_pb2, order_service_pb2_grpc
from paymesh.risk.v1 import risk_pb2, risk_service_pb2, risk_service_pb2_grpc
from services.kernel.errors import DomainError
from services.platform.status import status_of

if TYPE_CHECKING:
    Context = grpc.ServicerContext
    from paymesh.risk.v1.risk_pb2 import Assessment


class FakeMesh(risk_service_pb2_grpc.RiskServiceServicer, order_service_pb2_grpc.OrderServiceServicer):
    """Answers BatchAssessPayments and BatchGetOrders on a socket; counts what it was asked."""

    def __init__(self, address: str) -> None:
        """Serve at ``address``. Blocks users in ``blocked`` and knows ``orders``.

        Risk is silent when ``risk_down``, has too much to do when ``risk_full``, takes ``risk_takes_s`` for an answer.
        """
        self.address = address
        self.blocked: set[int] = set()
        self.orders: dict[int, order_pb2.Order] = {}
        self.unreachable: Assessment.Decision.ValueType = risk_pb2.Assessment.DECISION_BLOCK
        self.risk_down = self.risk_full = False
        self.risk_takes_s = 0.0
        self.assessed: list[list[int]] = []
        self.heard: list[dict[str, str]] = []
        self._server = grpc.server(futures.ThreadPoolExecutor(8))
        risk_service_pb2_grpc.add_RiskServiceServicer_to_server(self, self._server)
        order_service_pb2_grpc.add_OrderServiceServicer_to_server(self, self._server)
        self._server.add_insecure_port(address)

    def __enter__(self) -> Self:
        """Start."""
        self._server.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop."""
        self._server.stop(0).wait()

    def add_order(
        self, order_id: int, user_id: int, minor_units: int, currency: str = "CNY", *, expires_in: float = 1800
    ) -> None:
        """Know a pending order."""
        order = order_pb2.Order(id=order_id, user_id=user_id, status=order_pb2.Order.STATUS_PENDING)
        order.amount.currency_code, order.amount.minor_units = currency, minor_units
        order.expire_time.FromMilliseconds(int((time.time() + expires_in) * 1000))
        self.orders[order_id] = order

    def BatchAssessPayments(
        self, request: risk_service_pb2.BatchAssessPaymentsRequest, context: Context
    ) -> risk_service_pb2.BatchAssessPaymentsResponse:
        """Assess by the list of blocked users."""
        if self.risk_down:
            context.abort(grpc.StatusCode.UNAVAILABLE, "down")
        if self.risk_full:
            context.abort_with_status(rpc_status.to_status(status_of(DomainError("OVERLOADED"))))
        time.sleep(self.risk_takes_s)
        self.heard.append({key: str(value) for key, value in context.invocation_metadata()})
        self.assessed.append([p.payment_id for p in request.payments])
        decision = {True: risk_pb2.Assessment.DECISION_BLOCK, False: risk_pb2.Assessment.DECISION_APPROVE}
        found = [
            risk_pb2.Assessment(payment_id=p.payment_id, decision=decision[p.user_id in self.blocked])
            for p in request.payments
        ]
        return risk_service_pb2.BatchAssessPaymentsResponse(assessments=found, unreachable_decision=self.unreachable)

    def BatchGetOrders(
        self, request: order_service_pb2.BatchGetOrdersRequest, context: Context
    ) -> order_service_pb2.BatchGetOrdersResponse:
        """Return the orders that are known."""
        found = [self.orders[i] for i in request.ids if i in self.orders]
        return order_service_pb2.BatchGetOrdersResponse(orders=found)
