"""Providers' bills."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from paymesh.payment.v1 import payment_service_pb2 as pb
from paymesh.payment.v1 import payment_service_pb2_grpc as rpc
from services.kernel.pages import page
from services.payment import mapping, usecases
from services.platform.interceptor import current

if TYPE_CHECKING:
    from grpc.aio import ServicerContext

    from services.payment.servicer.payments import Desk

    Context = ServicerContext[Any, Any]


class Bills(rpc.PaymentServiceServicer):
    """Bills and what they and the books do not agree about."""

    _desk: Desk

    async def ImportBill(self, request: pb.ImportBillRequest, context: Context) -> pb.ImportBillResponse:
        """Import a provider's bill of a day; what takes longer than the caller has goes on, and is there next time."""
        desk, command = self._desk, mapping.import_bill(current(), request)
        found = await desk.imports.run(usecases.import_bill, desk.ports, desk.batcher.submit_all, command)
        return pb.ImportBillResponse(bill=mapping.bill(found))

    async def ListBills(self, request: pb.ListBillsRequest, context: Context) -> pb.ListBillsResponse:
        """List the bills that were imported."""
        desk, wanted = self._desk, page(request.page_size, request.page_token)
        found, token = await desk.reads.run(usecases.list_bills, desk.ports, wanted)
        return pb.ListBillsResponse(bills=map(mapping.bill, found), next_page_token=token)

    async def ListBillDifferences(
        self, request: pb.ListBillDifferencesRequest, context: Context
    ) -> pb.ListBillDifferencesResponse:
        """List what a bill and the books do not agree about."""
        desk, wanted = self._desk, page(request.page_size, request.page_token)
        found, token = await desk.reads.run(usecases.list_bill_differences, desk.ports, request.bill_id, wanted)
        return pb.ListBillDifferencesResponse(differences=map(mapping.bill_difference, found), next_page_token=token)
