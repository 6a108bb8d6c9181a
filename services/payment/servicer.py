"""gRPC in: parse, submit, render; no decision, no SQL."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from paymesh.payment.v1 import payment_service_pb2 as pb
from paymesh.payment.v1 import payment_service_pb2_grpc as rpc
from services.kernel.ids import shard_of
from services.kernel.pages import page
from services.payment import mapping, usecases
from services.platform.interceptor import current

if TYPE_CHECKING:
    from grpc.aio import ServicerContext

    from services.payment.ports import Ports
    from services.platform.batcher import Batcher
    from services.platform.reads import ReadPool

    Context = ServicerContext[Any, Any]


class PaymentServicer(rpc.PaymentServiceServicer):
    """The payment service of the contract."""

    def __init__(self, ports: Ports, batcher: Batcher, reads: ReadPool) -> None:
        """Write through ``batcher``, read through ``reads``."""
        self._ports, self._batcher, self._reads = ports, batcher, reads

    async def CreatePayment(self, request: pb.CreatePaymentRequest, context: Context) -> pb.CreatePaymentResponse:
        """Pay an order."""
        call = current()
        command = mapping.create_payment(call, request, self._ports.ids.next(shard_of(call.caller.subject)))
        answer = await self._batcher.submit("create_payments", command, call.deadline)
        return pb.CreatePaymentResponse.FromString(answer)

    async def RefundPayment(self, request: pb.RefundPaymentRequest, context: Context) -> pb.RefundPaymentResponse:
        """Give money back."""
        call = current()
        answer = await self._batcher.submit("refund_payments", mapping.refund_payment(call, request), call.deadline)
        return pb.RefundPaymentResponse.FromString(answer)

    async def TopUpBalance(self, request: pb.TopUpBalanceRequest, context: Context) -> pb.TopUpBalanceResponse:
        """Book money to a balance."""
        call = current()
        answer = await self._batcher.submit("top_up_balances", mapping.top_up_balance(call, request), call.deadline)
        return pb.TopUpBalanceResponse.FromString(answer)

    async def GetPayment(self, request: pb.GetPaymentRequest, context: Context) -> pb.GetPaymentResponse:
        """Read a payment."""
        owner = current().caller.owns_or("payments:read")
        found = await self._reads.run(usecases.get_payment, self._ports, request.id, owner)
        return pb.GetPaymentResponse(payment=mapping.payment(found))

    async def ListOrderPayments(
        self, request: pb.ListOrderPaymentsRequest, context: Context
    ) -> pb.ListOrderPaymentsResponse:
        """List the payments of an order."""
        owner, wanted = current().caller.owns_or("payments:read"), page(request.page_size, request.page_token)
        found, token = await self._reads.run(
            usecases.list_payments, self._ports, wanted, owner=owner, order_id=request.order_id
        )
        return pb.ListOrderPaymentsResponse(payments=map(mapping.payment, found), next_page_token=token)

    async def ListPayments(self, request: pb.ListPaymentsRequest, context: Context) -> pb.ListPaymentsResponse:
        """List the caller's payments."""
        owner, wanted = current().caller.subject, page(request.page_size, request.page_token)
        found, token = await self._reads.run(usecases.list_payments, self._ports, wanted, owner=owner, order_id=None)
        return pb.ListPaymentsResponse(payments=map(mapping.payment, found), next_page_token=token)

    async def ListPaymentRefunds(
        self, request: pb.ListPaymentRefundsRequest, context: Context
    ) -> pb.ListPaymentRefundsResponse:
        """List the refunds of a payment."""
        owner, wanted = current().caller.owns_or("payments:read"), page(request.page_size, request.page_token)
        found, token = await self._reads.run(usecases.list_refunds, self._ports, request.payment_id, owner, wanted)
        return pb.ListPaymentRefundsResponse(refunds=map(mapping.refund, found), next_page_token=token)

    async def GetBalance(self, request: pb.GetBalanceRequest, context: Context) -> pb.GetBalanceResponse:
        """Read a balance."""
        found = await self._reads.run(usecases.get_balance, self._ports, request.user_id, request.currency_code)
        return pb.GetBalanceResponse(balance=mapping.balance(*found))
