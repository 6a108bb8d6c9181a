"""The ledger as a whole."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from paymesh.payment.v1 import payment_service_pb2 as pb
from paymesh.payment.v1 import payment_service_pb2_grpc as rpc
from services.payment import mapping, usecases

if TYPE_CHECKING:
    from services.payment.ports import Ports
    from services.payment.servicer.payments import Context, Desk
    from services.platform.reads import ReadPool


class Ledger(rpc.PaymentServiceServicer):
    """Sums of the ledger; a part of the servicer, at its desk."""

    _desk: Desk
    _ports: Ports
    _reads: ReadPool

    async def GetTrialBalance(self, request: pb.GetTrialBalanceRequest, context: Context) -> pb.GetTrialBalanceResponse:
        """Add up the ledger."""
        lines = await self._reads.run(usecases.get_trial_balance, self._ports)
        return pb.GetTrialBalanceResponse(lines=map(mapping.trial_balance_line, lines))

    async def ExportLedger(self, request: pb.ExportLedgerRequest, context: Context) -> pb.ExportLedgerResponse:
        """Write the journal of a day; what takes longer than the caller has goes on, and is there next time."""
        exports, day = self._desk.exports, request.day
        if day not in exports:  # a day that is over never changes; one that failed is begun again
            begun = self._desk.imports.run(usecases.export_ledger, self._ports, day)
            exports[day] = asyncio.ensure_future(begun)
            exports[day].add_done_callback(
                lambda made: exports.pop(day) if made.cancelled() or made.exception() else None
            )
        return pb.ExportLedgerResponse(export=mapping.ledger_export(await asyncio.shield(exports[day])))
