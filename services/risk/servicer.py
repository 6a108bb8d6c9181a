"""gRPC in."""

from __future__ import annotations

from typing import TYPE_CHECKING

from paymesh.risk.v1 import risk_service_pb2 as pb
from paymesh.risk.v1 import risk_service_pb2_grpc as rpc
from services.kernel.pages import page
from services.platform import telemetry
from services.platform.interceptor import current
from services.risk import mapping, usecases

if TYPE_CHECKING:
    from typing import Any

    from grpc.aio import ServicerContext

    from services.platform.batcher import Batcher
    from services.platform.reads import ReadPool
    from services.risk.ports import Ports

    Context = ServicerContext[Any, Any]


class RiskServicer(rpc.RiskServiceServicer):
    """The service."""

    def __init__(self, ports: Ports, rules: usecases.RulesInForce, batcher: Batcher, reads: ReadPool) -> None:
        """Judge by ``rules``, write through ``batcher``, read through ``reads``."""
        self._ports, self._rules, self._batcher, self._reads = ports, rules, batcher, reads

    async def AssessRisk(self, request: pb.AssessRiskRequest, context: Context) -> pb.AssessRiskResponse:
        """Judge a payment that is only thought of."""
        payment = mapping.payment(request)
        return mapping.assessment(await self._reads.run(usecases.assess_risk, self._ports, self._rules, payment))

    async def BatchAssessPayments(
        self, request: pb.BatchAssessPaymentsRequest, context: Context
    ) -> pb.BatchAssessPaymentsResponse:
        """Judge payments."""
        command = mapping.assess_payments(request)
        outcome = await self._batcher.submit("assess_payments", command, current().deadline)
        telemetry.ASSESSED.inc(len(outcome.assessments))
        return mapping.assessed(outcome)

    async def ListRules(self, request: pb.ListRulesRequest, context: Context) -> pb.ListRulesResponse:
        """List the rules."""
        wanted = page(request.page_size, request.page_token)
        return mapping.rules(*await self._reads.run(usecases.list_rules, self._ports.store, wanted))

    async def CreateRule(self, request: pb.CreateRuleRequest, context: Context) -> pb.CreateRuleResponse:
        """Make a rule."""
        call = current()
        made = await self._batcher.submit("create_rules", mapping.create_rule(call, request), call.deadline)
        return pb.CreateRuleResponse.FromString(made)

    async def UpdateRule(self, request: pb.UpdateRuleRequest, context: Context) -> pb.UpdateRuleResponse:
        """Give a rule other contents."""
        command = mapping.update_rule(request)
        return mapping.rule_updated(await self._batcher.submit("update_rules", command, current().deadline))

    async def ListAlerts(self, request: pb.ListAlertsRequest, context: Context) -> pb.ListAlertsResponse:
        """List the alerts."""
        wanted = page(request.page_size, request.page_token)
        return mapping.alerts(*await self._reads.run(usecases.list_alerts, self._ports.store, wanted))

    async def ListBlocks(self, request: pb.ListBlocksRequest, context: Context) -> pb.ListBlocksResponse:
        """List the blocked users."""
        wanted = page(request.page_size, request.page_token)
        return mapping.blocks(*await self._reads.run(usecases.list_blocks, self._ports.store, wanted))

    async def SetBlock(self, request: pb.SetBlockRequest, context: Context) -> pb.SetBlockResponse:
        """Put a user on the block list, or take him off."""
        command = mapping.set_block(request)
        return mapping.block_set(await self._batcher.submit("set_blocks", command, current().deadline))
