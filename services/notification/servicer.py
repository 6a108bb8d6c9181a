"""gRPC in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from paymesh.notification.v1 import notification_service_pb2 as pb
from paymesh.notification.v1 import notification_service_pb2_grpc as rpc
from services.kernel.pages import page
from services.notification import mapping, usecases
from services.platform.interceptor import current

if TYPE_CHECKING:
    from grpc.aio import ServicerContext

    from services.notification.ports import Ports
    from services.platform.batcher import Batcher
    from services.platform.reads import ReadPool

    Context = ServicerContext[Any, Any]

READ_ANY = "notifications:read"


class NotificationServicer(rpc.NotificationServiceServicer):
    """The service."""

    def __init__(self, ports: Ports, batcher: Batcher, reads: ReadPool, checks: ReadPool) -> None:
        """Write through ``batcher``, read through ``reads``; ``checks`` look up hosts, which may take long."""
        self._ports, self._batcher, self._reads, self._checks = ports, batcher, reads, checks

    async def SendSms(self, request: pb.SendSmsRequest, context: Context) -> pb.SendSmsResponse:
        """Queue a text message."""
        return pb.SendSmsResponse.FromString(await self._send(mapping.send_sms(current(), request)))

    async def SendEmail(self, request: pb.SendEmailRequest, context: Context) -> pb.SendEmailResponse:
        """Queue an e-mail."""
        return pb.SendEmailResponse.FromString(await self._send(mapping.send_email(current(), request)))

    async def SendPush(self, request: pb.SendPushRequest, context: Context) -> pb.SendPushResponse:
        """Queue a push message."""
        return pb.SendPushResponse.FromString(await self._send(mapping.send_push(current(), request)))

    async def GetNotification(self, request: pb.GetNotificationRequest, context: Context) -> pb.GetNotificationResponse:
        """Read a notification."""
        owner = current().caller.owns_or(READ_ANY)
        found = await self._reads.run(usecases.get_notification, self._ports.store, request.id, owner)
        return pb.GetNotificationResponse(notification=mapping.notification(found))

    async def ListUserNotifications(
        self, request: pb.ListUserNotificationsRequest, context: Context
    ) -> pb.ListUserNotificationsResponse:
        """List the notifications to a user; whose they are was checked by the contract's owner rule."""
        wanted = page(request.page_size, request.page_token)
        store = self._ports.store
        return mapping.notifications(
            *await self._reads.run(usecases.list_user_notifications, store, request.user_id, wanted)
        )

    async def CreateWebhookEndpoint(
        self, request: pb.CreateWebhookEndpointRequest, context: Context
    ) -> pb.CreateWebhookEndpointResponse:
        """Make an endpoint."""
        wanted = mapping.create_webhook_endpoint(current(), request)
        command = await self._checks.run(usecases.checked, self._ports, wanted)
        return pb.CreateWebhookEndpointResponse.FromString(await self._write("create_webhook_endpoints", command))

    async def ListWebhookEndpoints(
        self, request: pb.ListWebhookEndpointsRequest, context: Context
    ) -> pb.ListWebhookEndpointsResponse:
        """List the endpoints."""
        wanted = page(request.page_size, request.page_token)
        found = await self._reads.run(usecases.list_webhook_endpoints, self._ports.store, wanted)
        return mapping.webhook_endpoints(*found)

    async def UpdateWebhookEndpoint(
        self, request: pb.UpdateWebhookEndpointRequest, context: Context
    ) -> pb.UpdateWebhookEndpointResponse:
        """Enable an endpoint, or disable it."""
        changed = await self._write("update_webhook_endpoints", mapping.update_webhook_endpoint(request))
        return pb.UpdateWebhookEndpointResponse(endpoint=mapping.webhook_endpoint(changed))

    async def DeleteWebhookEndpoint(
        self, request: pb.DeleteWebhookEndpointRequest, context: Context
    ) -> pb.DeleteWebhookEndpointResponse:
        """Delete an endpoint."""
        await self._write("delete_webhook_endpoints", request.id)
        return pb.DeleteWebhookEndpointResponse()

    async def RotateWebhookSecret(
        self, request: pb.RotateWebhookSecretRequest, context: Context
    ) -> pb.RotateWebhookSecretResponse:
        """Give an endpoint a new secret."""
        command = mapping.rotate_webhook_secret(current(), request)
        return pb.RotateWebhookSecretResponse.FromString(await self._write("rotate_webhook_secrets", command))

    async def ListWebhookDeliveries(
        self, request: pb.ListWebhookDeliveriesRequest, context: Context
    ) -> pb.ListWebhookDeliveriesResponse:
        """List the deliveries to an endpoint."""
        wanted = page(request.page_size, request.page_token)
        store = self._ports.store
        found = await self._reads.run(usecases.list_webhook_deliveries, store, request.endpoint_id, wanted)
        return mapping.webhook_deliveries(*found)

    async def ResendWebhookDelivery(
        self, request: pb.ResendWebhookDeliveryRequest, context: Context
    ) -> pb.ResendWebhookDeliveryResponse:
        """Try a delivery again that was given up."""
        delivery = await self._write("resend_webhook_deliveries", request.id)
        return pb.ResendWebhookDeliveryResponse(delivery=mapping.webhook_delivery(delivery))

    async def _write(self, kind: str, command: object) -> Any:  # noqa: ANN401 - the outcome of the kind
        return await self._batcher.submit(kind, command, current().deadline)

    async def _send(self, command: usecases.SendNotification) -> bytes:
        made: bytes = await self._write("send_notifications", command)
        return made
