"""Payment methods: cards that users keep."""

from __future__ import annotations

from typing import TYPE_CHECKING

from paymesh.payment.v1 import payment_service_pb2 as pb
from paymesh.payment.v1 import payment_service_pb2_grpc as rpc
from services.kernel.pages import page
from services.payment import mapping, usecases
from services.platform.interceptor import current

if TYPE_CHECKING:
    from services.payment.ports import Ports
    from services.payment.servicer.payments import Context
    from services.platform.batcher import Batcher
    from services.platform.reads import ReadPool


class Methods(rpc.PaymentServiceServicer):
    """Payment methods; a part of the servicer, at its desk."""

    _ports: Ports
    _batcher: Batcher
    _reads: ReadPool

    async def SavePaymentMethod(
        self, request: pb.SavePaymentMethodRequest, context: Context
    ) -> pb.SavePaymentMethodResponse:
        """Keep a card: its number in the vault, which blocks and has transactions of its own, then the rest of it."""
        call = current()
        card = await self._reads.run(usecases.tokenize, self._ports, *mapping.card_number(request))
        command = mapping.save_payment_method(call, request, card)
        saved = await self._batcher.submit("save_payment_methods", command, call.deadline)
        return pb.SavePaymentMethodResponse(payment_method=mapping.payment_method(saved))

    async def ListPaymentMethods(
        self, request: pb.ListPaymentMethodsRequest, context: Context
    ) -> pb.ListPaymentMethodsResponse:
        """List the caller's cards."""
        owner, wanted = current().caller.subject, page(request.page_size, request.page_token)
        found, token = await self._reads.run(usecases.list_payment_methods, self._ports, owner, wanted)
        return pb.ListPaymentMethodsResponse(payment_methods=map(mapping.payment_method, found), next_page_token=token)

    async def SetDefaultPaymentMethod(
        self, request: pb.SetDefaultPaymentMethodRequest, context: Context
    ) -> pb.SetDefaultPaymentMethodResponse:
        """Make a card the default."""
        call = current()
        command = mapping.set_default_payment_method(call, request)
        now = await self._batcher.submit("set_default_payment_methods", command, call.deadline)
        return pb.SetDefaultPaymentMethodResponse(payment_method=mapping.payment_method(now))

    async def RemovePaymentMethod(
        self, request: pb.RemovePaymentMethodRequest, context: Context
    ) -> pb.RemovePaymentMethodResponse:
        """Forget a card."""
        call = current()
        command = mapping.remove_payment_method(call, request)
        await self._batcher.submit("remove_payment_methods", command, call.deadline)
        return pb.RemovePaymentMethodResponse()
