"""Payments, refunds, balances, and what providers tell of them."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from paymesh.payment.v1 import payment_service_pb2 as pb
from paymesh.payment.v1 import payment_service_pb2_grpc as rpc
from services.kernel.idempotency import InFlight
from services.kernel.ids import shard_of
from services.kernel.pages import page
from services.payment import mapping, usecases
from services.platform.interceptor import current
from services.platform.pipeline import MARGIN_S

if TYPE_CHECKING:
    from grpc.aio import ServicerContext

    from services.payment.ports import Ports
    from services.platform.batcher import Batcher
    from services.platform.pipeline import Pipeline
    from services.platform.reads import ReadPool

    Context = ServicerContext[Any, Any]

_ASKED_MAX = 4
"""Attempts of one payment that a read has looked into at most."""
_PATIENCE_S = 1.0
"""How long a read waits for a provider."""


@dataclass(frozen=True, slots=True)
class Desk:
    """What the servicer hands calls to: reads in a pool, writes in batches, what asks providers through the pipeline.

    ``imports`` is the pool of what takes long, so that reads do not wait for it; ``exports`` are the days' that were begun.
    """

    ports: Ports
    batcher: Batcher
    reads: ReadPool
    pipeline: Pipeline
    imports: ReadPool
    exports: dict[str, asyncio.Future[usecases.LedgerExport]] = field(default_factory=dict)


class Payments(rpc.PaymentServiceServicer):
    """Payments, refunds and balances."""

    def __init__(self, desk: Desk) -> None:
        """Hand calls to ``desk``."""
        self._desk = desk
        self._ports, self._batcher, self._reads, self._pipeline = desk.ports, desk.batcher, desk.reads, desk.pipeline

    async def CreatePayment(self, request: pb.CreatePaymentRequest, context: Context) -> pb.CreatePaymentResponse:
        """Pay an order."""
        call = current()
        command = mapping.create_payment(call, request, self._ports.ids.next(shard_of(call.caller.subject)))
        if (cvv := mapping.cvv(request)) is not None:
            self._ports.outside.cvvs.put(f"P{command.payment_id}", cvv)
        answer = await self._pipeline.submit("create_payments", command, call.deadline)
        return pb.CreatePaymentResponse.FromString(answer)

    async def CapturePayment(self, request: pb.CapturePaymentRequest, context: Context) -> pb.CapturePaymentResponse:
        """Take what was authorized."""
        call = current()
        answer = await self._pipeline.submit("capture_payments", mapping.capture_payment(call, request), call.deadline)
        return pb.CapturePaymentResponse.FromString(answer)

    async def VoidPayment(self, request: pb.VoidPaymentRequest, context: Context) -> pb.VoidPaymentResponse:
        """Let go of what was authorized."""
        call = current()
        answer = await self._pipeline.submit("void_payments", mapping.void_payment(call, request), call.deadline)
        return pb.VoidPaymentResponse.FromString(answer)

    async def ClosePayment(self, request: pb.ClosePaymentRequest, context: Context) -> pb.ClosePaymentResponse:
        """End a payment that waits for its payer."""
        call = current()
        answer = await self._pipeline.submit("close_payments", mapping.close_payment(call, request), call.deadline)
        return pb.ClosePaymentResponse.FromString(answer)

    async def HandleCallback(self, request: pb.HandleCallbackRequest, context: Context) -> pb.HandleCallbackResponse:
        """Take what a provider tells."""
        call = current()
        provider, callback = mapping.callback(call, request)
        told = await self._reads.run(usecases.read_callback, self._ports, provider, callback)
        await self._batcher.submit("take_notices", told, call.deadline)
        return mapping.acknowledgement(usecases.acknowledge(self._ports, provider))

    async def RefundPayment(self, request: pb.RefundPaymentRequest, context: Context) -> pb.RefundPaymentResponse:
        """Give money back."""
        call = current()
        answer = await self._pipeline.submit("refund_payments", mapping.refund_payment(call, request), call.deadline)
        return pb.RefundPaymentResponse.FromString(answer)

    async def TopUpBalance(self, request: pb.TopUpBalanceRequest, context: Context) -> pb.TopUpBalanceResponse:
        """Book money to a balance."""
        call = current()
        answer = await self._batcher.submit("top_up_balances", mapping.top_up_balance(call, request), call.deadline)
        return pb.TopUpBalanceResponse.FromString(answer)

    async def GetPayment(self, request: pb.GetPaymentRequest, context: Context) -> pb.GetPaymentResponse:
        """Read a payment."""
        call = current()
        owner = call.caller.owns_or("payments:read")
        found = await self._reads.run(usecases.get_payment, self._ports, request.id, owner)
        if usecases.worth_asking(found, self._ports.clock.now_ms()):
            await self._ask_about(found.id, call.deadline)
            found = await self._reads.run(usecases.get_payment, self._ports, request.id, owner)
        return pb.GetPaymentResponse(payment=mapping.payment(found))

    async def _ask_about(self, payment_id: int, deadline: float) -> None:
        """Have the provider asked how a payment stands, and wait for that a moment at most."""
        taken = await self._batcher.submit("take_up", usecases.TakeUp(_ASKED_MAX, payment_id), deadline)
        tasks = self._pipeline.resume([InFlight(attempt.id, attempt) for attempt in taken])
        if tasks:
            await asyncio.wait(tasks, timeout=max(0.0, min(_PATIENCE_S, deadline - time.monotonic() - MARGIN_S)))

    async def GetRefund(self, request: pb.GetRefundRequest, context: Context) -> pb.GetRefundResponse:
        """Read a refund."""
        owner = current().caller.owns_or("payments:read")
        found = await self._reads.run(usecases.get_refund, self._ports, request.id, owner)
        return pb.GetRefundResponse(refund=mapping.refund(found))

    async def WithdrawBalance(self, request: pb.WithdrawBalanceRequest, context: Context) -> pb.WithdrawBalanceResponse:
        """Take money off a balance."""
        call = current()
        command = mapping.withdraw_balance(call, request)
        answer = await self._batcher.submit("withdraw_balances", command, call.deadline)
        return pb.WithdrawBalanceResponse.FromString(answer)

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
