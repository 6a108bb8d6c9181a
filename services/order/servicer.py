"""gRPC in."""

from __future__ import annotations

from typing import TYPE_CHECKING

from paymesh.order.v1 import order_service_pb2 as pb
from paymesh.order.v1 import order_service_pb2_grpc as rpc
from services.order import mapping, usecases
from services.platform.interceptor import current

if TYPE_CHECKING:
    from typing import Any

    from grpc.aio import ServicerContext

    from services.order.ports import Ports
    from services.platform.batcher import Batcher
    from services.platform.reads import ReadPool

    Context = ServicerContext[Any, Any]


class Orders(rpc.OrderServiceServicer):
    """The service: writes go through the Batcher, reads through the pool."""

    def __init__(self, ports: Ports, batcher: Batcher, reads: ReadPool) -> None:
        """Serve what the use cases decide over ``ports``."""
        self._ports, self._batcher, self._reads = ports, batcher, reads

    async def CreateOrder(self, request: pb.CreateOrderRequest, context: Context) -> pb.CreateOrderResponse:
        """Send the very bytes that are kept for a repeat."""
        call = current()
        answer = await self._batcher.submit("create_orders", mapping.create_order(call, request), call.deadline)
        return pb.CreateOrderResponse.FromString(answer)

    async def GetOrder(self, request: pb.GetOrderRequest, context: Context) -> pb.GetOrderResponse:
        """Read by the owner's predicate."""
        user = current().caller.owns_or(usecases.READ_ANY)
        found = await self._reads.run(usecases.get_order, self._ports, request.id, user)
        return pb.GetOrderResponse(order=mapping.order(found))

    async def UpdateOrderStatus(
        self, request: pb.UpdateOrderStatusRequest, context: Context
    ) -> pb.UpdateOrderStatusResponse:
        """Cancel."""
        call = current()
        command = mapping.set_order_status(call, request)
        found = await self._batcher.submit("set_order_statuses", command, call.deadline)
        return pb.UpdateOrderStatusResponse(order=mapping.order(found))

    async def ListUserOrders(self, request: pb.ListUserOrdersRequest, context: Context) -> pb.ListUserOrdersResponse:
        """Read a page; the interceptor checked whose."""
        page = mapping.page(request)
        return mapping.user_orders(
            *await self._reads.run(usecases.list_user_orders, self._ports, request.user_id, page)
        )

    async def BatchGetOrders(self, request: pb.BatchGetOrdersRequest, context: Context) -> pb.BatchGetOrdersResponse:
        """Read for the payment service."""
        return mapping.batch_of_orders(
            await self._reads.run(usecases.batch_get_orders, self._ports, tuple(request.ids))
        )

    async def ListStock(self, request: pb.ListStockRequest, context: Context) -> pb.ListStockResponse:
        """Read a page of the inventory."""
        return mapping.stocks(*await self._reads.run(usecases.list_stock, self._ports, mapping.page(request)))

    async def GetStock(self, request: pb.GetStockRequest, context: Context) -> pb.GetStockResponse:
        """Read an item."""
        found = await self._reads.run(usecases.get_stock, self._ports, request.sku)
        return pb.GetStockResponse(stock=mapping.stock(found))

    async def SetStock(self, request: pb.SetStockRequest, context: Context) -> pb.SetStockResponse:
        """Set an item."""
        found = await self._batcher.submit("set_stocks", mapping.set_stock(request), current().deadline)
        return pb.SetStockResponse(stock=mapping.stock(found))
